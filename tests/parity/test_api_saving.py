"""What clients save of a documented class, both libraries load: differences are 0.0.

The oracle is transformers. `Trainer` and `accelerate` save in their own ways; the case of equal
widths is one in which transformers gives a tensor another name, and computes another shortcut.
"""

import copy

import pytest
import torch
from oracle import spread, transformers
from small_api import SMALL, SMALL_DETR

import rtdetr_lab as lab

EQUAL = {"hidden_sizes": [8, 8, 16, 16]}
KINDS = {
    "RTDetr": SMALL,
    "RTDetr, equal widths": SMALL
    | {"backbone_config": SMALL["backbone_config"] | EQUAL, "encoder_in_channels": [8, 16, 16]},
    "RTDetrV2": SMALL,
    "Detr": SMALL_DETR,
}
HEAD = "ForObjectDetection"


def class_of(library, kind, name):
    return getattr(library, kind.partition(",")[0] + name)


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory):
    """(kind, their detector, the folder it was saved in)."""
    kind, folder = request.param, tmp_path_factory.mktemp("theirs")
    given = copy.deepcopy(KINDS[kind])
    if kind == "Detr":
        given["backbone_config"] = transformers.ResNetConfig(**without_type(given))
    else:
        given["backbone_config"] = transformers.RTDetrResNetConfig(**without_type(given))
    theirs = spread(
        class_of(transformers, kind, HEAD)(class_of(transformers, kind, "Config")(**given))
    )
    theirs.save_pretrained(folder)
    return kind, theirs, folder


def without_type(given):
    return {name: v for name, v in given["backbone_config"].items() if name != "model_type"}


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 96)


@torch.no_grad()
def same(ours, theirs, images):
    """Both compute the same, in fp64; a tensor that the file lacked would be random."""
    ours, theirs = (copy.deepcopy(model).double().eval() for model in (ours, theirs))
    expected = theirs(images.double())
    for name in {"logits", "last_hidden_state"} & set(expected):
        found = ours(images.double())[name]
        torch.testing.assert_close(found, expected[name], rtol=1e-9, atol=1e-9)


def load(one, folder, **how):
    """A model and its tensors: nothing was missing, left over or of another shape."""
    model, info = one.from_pretrained(folder, output_loading_info=True, **how)
    assert not any(info.values()), info
    return model


def test_a_state_has_the_names_of_the_file_and_loads_in_both(saved, images):
    kind, theirs, folder = saved
    ours = load(class_of(lab, kind, HEAD), folder)
    state = ours.state_dict()
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        assert set(state) == set(file.keys()) | {n for n in state if n.endswith("_tracked")}
    config = theirs.config
    read = type(theirs).from_pretrained(None, config=config, state_dict=copy.deepcopy(state))
    same(ours, read, images)
    new = class_of(lab, kind, HEAD)(ours.config)
    new.load_state_dict(theirs.state_dict())  # names in memory, which differ from those in files
    same(new, theirs, images)
    deeper = torch.nn.ModuleDict({"inside": class_of(lab, kind, HEAD)(ours.config)})
    deeper.load_state_dict({f"inside.{name}": tensor for name, tensor in state.items()})
    assert set(deeper.state_dict()) == {f"inside.{name}" for name in state}
    same(deeper["inside"], theirs, images)
    with pytest.raises(RuntimeError, match="Missing key"):
        new.load_state_dict({n: t for n, t in state.items() if "input_proj" not in n})


def test_models_without_heads_load_what_the_other_saved(saved, images, tmp_path):
    kind, _, folder = saved
    inner = load_inner(transformers, kind, folder)
    inner.save_pretrained(tmp_path / "theirs")
    ours = load(class_of(lab, kind, "Model"), tmp_path / "theirs")
    same(ours, inner, images)
    ours.save_pretrained(tmp_path / "ours")
    same(ours, load(class_of(transformers, kind, "Model"), tmp_path / "ours"), images)
    same(load_inner(lab, kind, folder), inner, images)
    detector, info = class_of(lab, kind, HEAD).from_pretrained(
        tmp_path / "theirs", output_loading_info=True
    )
    assert info["missing_keys"], "its heads are new"
    maps = [model.encoder_last_hidden_state for model in (detector(images), inner(images))]
    torch.testing.assert_close(*maps, rtol=1e-4, atol=1e-4)


def load_inner(library, kind, folder):
    return class_of(library, kind, "Model").from_pretrained(folder).eval()


def test_a_backbone_alone_goes_both_ways(images, tmp_path):
    inner = without_type(SMALL)
    theirs = spread(transformers.RTDetrResNetBackbone(transformers.RTDetrResNetConfig(**inner)))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(lab.RTDetrResNetBackbone, tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    back = load(transformers.RTDetrResNetBackbone, tmp_path / "ours")
    with torch.no_grad():
        expected = theirs(images).feature_maps
        for found in (ours(images), back.eval()(images)):
            torch.testing.assert_close(found.feature_maps, expected, rtol=1e-4, atol=1e-4)


def test_what_a_trainer_and_accelerate_save_both_libraries_load(saved, images, tmp_path):
    reason = "accelerate, which Trainer needs, is not installed; runs with the extra [dev]"
    accelerate = pytest.importorskip("accelerate", reason=reason)
    kind, theirs, folder = saved
    ours = class_of(lab, kind, HEAD).from_pretrained(folder)
    same(ours, theirs, images)
    how = transformers.TrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=1, save_steps=1, report_to=[], use_cpu=True,
        per_device_train_batch_size=2, remove_unused_columns=False, learning_rate=0.0,
        disable_tqdm=True,
    )  # fmt: skip
    data = [{"pixel_values": image, "labels": target()} for image in images]
    trainer = transformers.Trainer(ours, how, train_dataset=data, data_collator=collated)
    trainer.save_model(str(tmp_path / "saved"))
    trainer.train()
    ours.eval()
    accelerate.Accelerator(cpu=True).save_model(ours, tmp_path / "saved by accelerate")
    (tmp_path / "saved" / "config.json").rename(tmp_path / "config.json")
    for name in ("saved", "saved by accelerate"):
        (tmp_path / name / "config.json").write_bytes((tmp_path / "config.json").read_bytes())
    for name in ("saved", "saved by accelerate", "run/checkpoint-1"):
        assert (tmp_path / name / "config.json").is_file()
        # One step, even with a rate of 0, moves the statistics of the batch norms.
        for library in (lab, transformers):
            read = load(class_of(library, kind, HEAD), tmp_path / name)
            same(read, theirs if name == "saved" else ours, images)
    resumed = transformers.Trainer(
        class_of(lab, kind, HEAD)(ours.config), how, train_dataset=data, data_collator=collated
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    same(resumed.model, ours, images)


def target():
    return {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.4, 0.3, 0.2]])}


def collated(rows):
    images = torch.stack([row["pixel_values"] for row in rows])
    return {"pixel_values": images, "labels": [row["labels"] for row in rows]}


CHANGED = {
    "layer_norm_eps": {"layer_norm_eps": 0.3},
    "batch_norm_eps": {"batch_norm_eps": 0.2},
    "normalize_before": {"normalize_before": True},
    "activations": {
        "encoder_activation_function": "gelu_new",
        "decoder_activation_function": "gelu_new",
    },
    "dropouts": {"attention_dropout": 0.2, "activation_dropout": 0.3, "dropout": 0.4},
}


@pytest.mark.parametrize("change", CHANGED)
@pytest.mark.parametrize("kind", ["RTDetr", "RTDetrV2"])
def test_a_value_that_no_published_model_has_goes_both_ways(kind, change, tmp_path):
    given = {**copy.deepcopy(KINDS[kind]), **CHANGED[change]}
    given["backbone_config"] = transformers.RTDetrResNetConfig(**without_type(given))
    theirs = class_of(transformers, kind, HEAD)(class_of(transformers, kind, "Config")(**given))
    theirs = spread(theirs).double().eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = class_of(lab, kind, HEAD).from_pretrained(tmp_path / "theirs").double()
    images = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        wanted, found = theirs(images), ours(images)
    assert (wanted.logits - found.logits).abs().max() < 1e-9
    assert (wanted.pred_boxes - found.pred_boxes).abs().max() < 1e-9
    cfg = lab.load_pretrained(tmp_path / "theirs").cfg
    for layout in ("lab", "transformers"):
        lab.save_pretrained(ours.lab, tmp_path / layout, layout=layout)
        assert lab.load_pretrained(tmp_path / layout).cfg == cfg
    read = class_of(transformers, kind, "Config").from_pretrained(tmp_path / "transformers")
    assert {name: getattr(read, name) for name in CHANGED[change]} == CHANGED[change]


def test_the_dropouts_of_a_file_are_those_of_the_model():
    told = {"attention_dropout": 0.2, "activation_dropout": 0.3, "dropout": 0.4}
    rtdetr = lab.RTDetrConfig(**SMALL, **told).to_lab()
    aifi, decoder = rtdetr.encoder.aifi, rtdetr.decoder
    assert (aifi.dropout, aifi.activation_dropout) == (0.4, 0.3), "as theirs, whose AIFI reads two"
    assert (decoder.attention_dropout, decoder.activation_dropout, decoder.dropout) == (
        0.2,
        0.3,
        0.4,
    )
    detr = lab.DetrConfig(**SMALL_DETR, **told).to_lab()
    for part in (detr.encoder, detr.decoder):
        assert (part.attention_dropout, part.activation_dropout, part.dropout) == (0.2, 0.3, 0.4)
    layer = detr.build().decoder.layers[1]
    assert (layer.self_attn.dropout, layer.cross_attn.dropout) == (0.2, 0.2)
    assert (layer.ffn.dropout.p, layer.dropout.p) == (0.3, 0.4)

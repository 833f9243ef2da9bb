"""What people pass to `from_pretrained` and `save_pretrained` works, or is refused by name."""

import json
import math
import re
import shutil
from dataclasses import fields

import pytest
import torch
from paths import ROOT
from safetensors.torch import load_file
from small_api import SMALL, SMALL_DETR, picture

import rtdetr_lab as lab
from rtdetr_lab.errors import CheckpointError, ConfigError, LabError

load = lab.RTDetrForObjectDetection.from_pretrained


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return lab.RTDetrForObjectDetection(lab.RTDetrConfig(**SMALL)).eval()


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def images():
    return torch.rand(1, 3, 64, 96)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("given", [torch.float16, "float16", "torch.float16", "auto"])
def test_a_dtype_has_three_names_and_auto_is_that_of_the_file(model, folder, key, given):
    if given == "auto":
        assert load(folder, **{key: given}).dtype == torch.float32
        load(folder, dtype="float16").save_pretrained(folder)
        assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    assert load(folder, **{key: given}).dtype == torch.float16
    for wrong in ("int8", "fast"):
        with pytest.raises(ConfigError, match="dtype"):
            load(folder, dtype=wrong)


NOTHING_CHANGES = [
    {"trust_remote_code": True, "low_cpu_mem_usage": True, "weights_only": False},
    {"attn_implementation": "eager"},
    {"attn_implementation": "sdpa"},
    {"use_safetensors": True},
    {"device_map": {"": "cpu"}},
    {"device_map": "auto"},
    {"force_download": True, "token": None, "cache_dir": None},
]


@pytest.mark.parametrize("told", NOTHING_CHANGES, ids=str)
def test_what_changes_nothing_is_accepted(model, folder, images, told):
    if told.get("device_map") == "auto" and torch.cuda.is_available():
        pytest.skip("auto is the GPU here; runs where there is none")
    found = load(pretrained_model_name_or_path=folder, **told)
    assert torch.equal(found(images).logits, model(images).logits)
    assert found.name_or_path == str(folder)


@pytest.mark.parametrize(
    "told",
    [{"attn_implementation": "flash_attention_2"}, {"use_safetensors": False},
     {"device_map": "balanced"}, {"quantization_config": {}}],
    ids=str,
)  # fmt: skip
def test_what_would_change_something_is_refused_by_name(folder, told):
    with pytest.raises((ConfigError, CheckpointError), match=next(iter(told))):
        load(folder, **told)


def test_depth_is_flexible_and_what_is_left_over_is_told(model, folder, images, caplog):
    shallow, info = load(folder, decoder_layers=1, num_denoising=0, output_loading_info=True)
    assert info["missing_keys"] == info["mismatched_keys"] == []
    assert all("decoder.layers.1." in n or "embed" in n for n in info["unexpected_keys"])
    assert torch.equal(shallow(images).logits, model(images).intermediate_logits[:, 0])
    assert not caplog.text
    deep, info = load(folder, decoder_layers=3, output_loading_info=True)
    assert all("layers.2." in n or "embed.2." in n for n in info["missing_keys"])
    assert "new and must be trained: decoder.class_heads.2" in caplog.text or caplog.text
    first = slice(0, 2)
    expected = model(images).intermediate_logits
    assert torch.equal(deep(images).intermediate_logits[:, first], expected)


def test_other_shapes_are_new_on_request_only(folder, caplog):
    with pytest.raises(CheckpointError, match="other shapes"):
        load(folder, decoder_ffn_dim=40)
    found, info = load(
        folder, decoder_ffn_dim=40, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert {n.split(".")[-2] for n in info["mismatched_keys"]} == {"fc1", "fc2"}
    assert "new and must be trained" in caplog.text
    assert found.lab.decoder.layers[0].ffn.fc1.out_features == 40


@pytest.mark.parametrize("form", ["object", "dictionary", "folder"])
def test_a_configuration_may_be_given_apart(folder, tmp_path, form):
    config = lab.RTDetrConfig(**SMALL | {"decoder_layers": 1})
    config.save_pretrained(tmp_path / "config")
    given = {"object": config, "dictionary": config.to_dict(), "folder": tmp_path / "config"}[form]
    assert len(load(folder, config=given).lab.decoder.layers) == 1
    assert len(load(folder, config=given, decoder_layers=2).lab.decoder.layers) == 2


def test_a_file_may_lie_deeper(folder, tmp_path, images, model):
    shutil.move(folder, tmp_path / "deep" / "er")
    found = load(tmp_path, subfolder="deep/er")
    assert torch.equal(found(images).logits, model(images).logits)
    assert lab.RTDetrConfig.from_pretrained(tmp_path / "deep", subfolder="er").num_queries == 10


def test_a_tensor_that_is_lost_without_a_request_is_an_error(folder):
    from safetensors.torch import save_file

    tensors = load_file(folder / "model.safetensors")
    lost = tensors.pop("model.decoder.class_embed.1.bias")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"decoder\.class_heads\.1\.bias"):
        load(folder)
    save_file({**tensors, "model.more": lost}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="class_heads"):
        load(folder)


def test_saving_takes_the_tensors_and_the_process_it_is_given(model, tmp_path):
    model.save_pretrained(tmp_path / "other", is_main_process=False)
    assert not (tmp_path / "other").exists()
    state = {name: tensor * 2 for name, tensor in model.state_dict().items()}
    model.save_pretrained(save_directory=tmp_path, state_dict=state)
    saved = load_file(tmp_path / "model.safetensors")
    assert torch.equal(saved["model.enc_score_head.bias"], state["model.enc_score_head.bias"])
    state.pop("model.enc_score_head.bias")
    with pytest.raises(CheckpointError, match="enc_score_head"):
        model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ConfigError, match="safe_serialization"):
        model.save_pretrained(tmp_path, safe_serialization=False)


@pytest.mark.parametrize("kind", ["RTDetr", "RTDetrV2", "Detr"])
def test_classes_set_afterwards_are_those_of_the_model(kind, images):
    config = getattr(lab, f"{kind}Config")(**(SMALL_DETR if kind == "Detr" else SMALL))
    config.num_labels = 9
    assert config.id2label[8] == "LABEL_8"
    new = getattr(lab, f"{kind}ForObjectDetection")(config)
    assert new.training
    assert new.eval()(images).logits.shape[-1] == 9 + (kind == "Detr")
    config.id2label = {0: "a", 1: "b"}
    assert (config.num_labels, config.label2id) == (2, {"a": 0, "b": 1})
    config.num_labels = 2
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"}


def test_class_biases_start_at_the_documented_prior(model):
    heads = [model.lab.proposal_head.class_head, *model.lab.decoder.class_heads]
    for head in heads:  # 1 / (3 + 1)
        torch.testing.assert_close(head.bias, torch.full((3,), math.log(1 / 3)))


def test_parameters_can_be_counted(model):
    assert model.num_parameters() == sum(p.numel() for p in model.parameters())
    table = model.lab.denoising.label_embedding.weight.numel()
    assert model.num_parameters(exclude_embeddings=True) == model.num_parameters() - table
    model.freeze_backbone()
    fewer = model.num_parameters(only_trainable=True)
    model.unfreeze_backbone()
    assert fewer < model.num_parameters(only_trainable=True)


def test_a_new_model_can_be_made_from_a_configuration_alone():
    for kind, small in (("RTDetr", SMALL), ("RTDetrV2", SMALL), ("Detr", SMALL_DETR)):
        config = getattr(lab, f"{kind}Config")(**small)
        made = lab.AutoModelForObjectDetection.from_config(config)
        assert type(made) is getattr(lab, f"{kind}ForObjectDetection")
    with pytest.raises(ConfigError, match="rt_detr_resnet"):
        lab.AutoModelForObjectDetection.from_config(lab.RTDetrResNetConfig())


def test_the_page_lists_every_parameter_with_one_value():
    page = (ROOT / "docs" / "transformers.md").read_text()
    section = page.partition("## Parameters with one value")[2].partition("\n## ")[0]
    cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    listed = {name for cell in cells for name in re.findall(r"`(.*?)`", cell)}
    configs = (lab.RTDetrV2Config, lab.DetrConfig, lab.RTDetrResNetConfig)
    assert listed == {f.name for c in configs for f in fields(c) if "only" in f.metadata}


def test_a_saved_model_and_processor_come_back(model, images, tmp_path):
    model.save_pretrained(tmp_path)
    lab.RTDetrImageProcessor(size={"height": 64, "width": 96}).save_pretrained(tmp_path)
    back = lab.AutoModelForObjectDetection.from_pretrained(tmp_path)
    assert torch.equal(back(images).logits, model(images).logits)
    assert back.config.id2label == {0: "cat", 1: "dog", 2: "cow"}
    processor = lab.AutoImageProcessor.from_pretrained(tmp_path)
    assert processor(picture(), return_tensors="pt").pixel_values.shape == (1, 3, 64, 96)


def test_new_classes_are_asked_for_in_so_many_words(model, tmp_path):
    model.save_pretrained(tmp_path)
    new = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
    with pytest.raises(CheckpointError, match="3 classes, but 2"):
        lab.RTDetrForObjectDetection.from_pretrained(tmp_path, **new)
    found = lab.RTDetrForObjectDetection.from_pretrained(
        tmp_path, **new, ignore_mismatched_sizes=True
    )
    assert found(torch.rand(1, 3, 64, 64)).logits.shape[-1] == 2


def test_a_folder_without_the_file_is_named(tmp_path):
    with pytest.raises(LabError, match=r"config\.json"):
        lab.RTDetrForObjectDetection.from_pretrained(tmp_path)

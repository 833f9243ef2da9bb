"""Calls of the documented classes with what a part would compute, and with further keywords.

The oracle is transformers, fp64: `encoder_outputs`, `inputs_embeds`, `decoder_inputs_embeds`.
"""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from oracle import transformers
from small_api import SMALL, SMALL_DETR, label
from torch.utils import _pytree as tree

import rtdetr_lab as lab
from rtdetr_lab.decoder import look_forward_once
from rtdetr_lab.errors import ConfigError, ImageError
from rtdetr_lab.transformers_api.calls import warn_of

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(4)).double()
ALL = {"output_hidden_states": True, "output_attentions": True}


@pytest.fixture
def random():
    generator = torch.Generator().manual_seed(5)
    return lambda *shape: torch.randn(*shape, generator=generator).double()


def pair(kind, std=0.3, **more):
    """One set of weights: transformers' class, and ours."""
    small = copy.deepcopy(SMALL_DETR if kind.startswith("Detr") else SMALL) | more
    name, backbone = f"{kind.partition('For')[0]}Config", small.pop("backbone_config")
    name = name.replace("Model", "")
    inner = (
        transformers.ResNetConfig if kind.startswith("Detr") else transformers.RTDetrResNetConfig
    )
    inner = inner(**{k: v for k, v in backbone.items() if k != "model_type"})
    more = {"use_timm_backbone": False} if kind.startswith("Detr") else {}
    told = {**small, **more, "backbone_config": inner}
    theirs = getattr(transformers, kind)(getattr(transformers, name)(**copy.deepcopy(told)))
    theirs.set_attn_implementation("eager")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        for parameter in theirs.parameters():
            parameter.normal_(std=std)
    ours = getattr(lab, kind)(getattr(lab, name)(**told))
    ours.load_state_dict(theirs.state_dict())
    return theirs.double().eval(), ours.double().eval()


@torch.no_grad()
def same(theirs, ours, **given):
    found = ours(**given, **ALL)
    wanted = theirs(**given, **ALL)  # second: it writes into a list of maps that it is given
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        for one, other in zip(tree.tree_leaves(found[name]), tree.tree_leaves(value), strict=True):
            torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9, msg=name)


def encoded(state):
    return transformers.modeling_outputs.BaseModelOutput(last_hidden_state=state)


@pytest.mark.parametrize("kind", ["RTDetrForObjectDetection", "RTDetrV2ForObjectDetection"])
def test_an_rtdetr_goes_on_from_maps_as_theirs_does(kind, random):
    theirs, ours = pair(kind)
    maps = [random(2, 16, side, side) for side in (8, 4, 2)]
    same(theirs, ours, pixel_values=IMAGES, encoder_outputs=encoded(maps))
    same(theirs, ours, pixel_values=IMAGES, encoder_outputs=(maps, (maps[0],)))
    same(theirs, ours, pixel_values=IMAGES)  # nothing is left of it in the model
    with pytest.raises(ConfigError, match=r"encoder_outputs.*\[2, 16, 8, 8\], \[2, 16, 4, 4\]"):
        ours(IMAGES, encoder_outputs=(maps[1:],))
    with pytest.raises(ConfigError, match="inputs_embeds: is one tensor in transformers"):
        ours(IMAGES, inputs_embeds=random(2, 84, 16))
    with pytest.raises((AttributeError, TypeError, ValueError)):
        theirs(None, inputs_embeds=maps)


@pytest.mark.parametrize("kind", ["DetrModel", "DetrForObjectDetection", "DetrForSegmentation"])
def test_a_detr_goes_on_from_cells_memory_and_content_as_theirs_does(kind, random):
    theirs, ours = pair(kind, encoder_attention_heads=8)
    mask, images = torch.ones(2, 64, 64), IMAGES.clone()
    mask[0, 32:], images[0, :, 32:] = 0, 0
    start, memory, cells = random(2, 7, 16), random(2, 4, 16), random(2, 9, 16)
    same(theirs, ours, pixel_values=IMAGES, encoder_outputs=encoded(memory))
    same(theirs, ours, pixel_values=images, pixel_mask=mask, decoder_inputs_embeds=start)
    with pytest.raises(ImageError, match=r"pixel_values"):
        ours(encoder_outputs=encoded(memory))
    with pytest.raises(ConfigError, match=r"decoder_inputs_embeds.*give \[\[2, 7, 16\]\]"):
        ours(IMAGES, decoder_inputs_embeds=start[:, :3])
    if kind == "DetrForSegmentation":
        with pytest.raises(ConfigError, match="inputs_embeds: has no maps that a mask is drawn"):
            ours(IMAGES, inputs_embeds=cells)
        return
    same(theirs, ours, pixel_values=None, inputs_embeds=cells, decoder_inputs_embeds=start)
    same(theirs, ours, pixel_values=None, inputs_embeds=cells, encoder_outputs=encoded(2 * cells))
    with pytest.raises(ConfigError, match=r"inputs_embeds.*\[2, 9, 8\].*give \[\[2, 9, 16\]\]"):
        ours(inputs_embeds=cells[..., :8])


@torch.no_grad()
def test_a_mask_hides_cells_that_are_given_as_it_hides_those_of_the_picture():
    _, ours = pair("DetrForObjectDetection")
    mask = torch.ones(2, 64, 64)
    mask[0, 32:] = 0  # the lower row of cells
    cells = ours.lab.project(ours.lab.backbone(IMAGES * mask[:, None])[-1]).flatten(2).mT
    given, wanted = ours(inputs_embeds=cells, pixel_mask=mask), ours(IMAGES, pixel_mask=mask)
    torch.testing.assert_close(given.logits, wanted.logits, atol=1e-9, rtol=0)


@torch.no_grad()
def test_cells_are_a_square_map_of_a_picture_with_the_size_of_its_mask(random):
    _, ours = pair("DetrForObjectDetection")
    for wrong in (random(2, 6, 16), random(2, 16)):
        with pytest.raises(ConfigError, match=r"inputs_embeds: has shape .* N is a square"):
            ours(inputs_embeds=wrong)
    images, mask = IMAGES[..., :60, :50].clone(), torch.ones(2, 60, 50)
    mask[1, :, 32:], images[1, ..., 32:] = 0, 0
    cells = ours.lab.project(ours.lab.backbone(images)[-1]).flatten(2).mT
    given, wanted = ours(inputs_embeds=cells, pixel_mask=mask), ours(images, pixel_mask=mask)
    torch.testing.assert_close(given.logits, wanted.logits, atol=1e-9, rtol=0)
    with pytest.raises(
        ImageError, match=r"pixel_mask: has shape \(2, 70, 50\).*pass \(2, 64, 64\)"
    ):
        ours(inputs_embeds=cells, pixel_mask=torch.ones(2, 70, 50))


@torch.no_grad()
def test_what_is_given_for_the_encoder_is_read_by_name_and_checked(random):
    _, ours = pair("DetrModel", encoder_attention_heads=8)
    memory = random(2, 4, 16)
    wanted = ours(IMAGES, encoder_outputs=(memory, (memory,)))
    for given in ({"last_hidden_state": memory}, (memory, None, None, "more")):
        found = ours(IMAGES, encoder_outputs=given)
        assert torch.equal(found.last_hidden_state, wanted.last_hidden_state)
    wrong = {
        "memory": "is a str",
        3: "is a int",
        (): "NoneType",
        (3,): "int",
        memory: "is a Tensor",
    }
    for given, said in [*wrong.items(), ({"last_hidden": memory}, "NoneType")]:
        with pytest.raises(ConfigError, match=rf"encoder_outputs: .*{said}.*; give "):
            ours(IMAGES, encoder_outputs=given)


@torch.no_grad()
def test_another_thread_computes_what_one_thread_gives(random):
    _, ours = pair("DetrForObjectDetection", encoder_attention_heads=8)
    here, wanted, found = threading.get_ident(), ours(IMAGES).logits, []

    def meanwhile(*_):
        if threading.get_ident() == here:
            found.append(pool.submit(torch.no_grad()(ours), IMAGES).result().logits)

    cells, start = random(2, 4, 16), random(2, 7, 16)
    given = {"inputs_embeds": cells, "decoder_inputs_embeds": start}
    with ThreadPoolExecutor(1) as pool, ours.lab.backbone.register_forward_pre_hook(meanwhile):
        for more in (given, {"pixel_values": IMAGES, "encoder_outputs": (cells,)}):
            assert not torch.allclose(ours(**more).logits, wanted)
    for logits in found:
        torch.testing.assert_close(logits, wanted, atol=1e-12, rtol=0)
    assert len(found) == 2


def test_a_part_that_is_replaced_counts_no_statistics(random):
    theirs, ours = pair("RTDetrForObjectDetection", num_denoising=0)
    given = encoded([random(2, 16, side, side) for side in (8, 4, 2)])
    counted = []
    for model in (theirs.train(), ours.train()):
        before = copy.deepcopy(model.state_dict())
        model(IMAGES, encoder_outputs=given)
        now = model.state_dict()
        counted.append({name for name in now if not torch.equal(now[name], before[name])})
    assert counted[0] == counted[1] != set()
    assert all(part.training for part in ours.lab.modules())
    _, detr = pair("DetrModel")
    modes = []
    note = lambda part, *_: modes.append(part.training)  # noqa: E731
    with detr.train().lab.backbone.register_forward_hook(note):
        detr(inputs_embeds=random(2, 4, 16))
    assert (modes, detr.lab.backbone.training) == ([False], True)


def test_three_maps_are_enough_for_masks(tmp_path):
    inner = {**SMALL_DETR["backbone_config"], "out_features": ["stage2", "stage3", "stage4"]}
    told = {"backbone_config": inner, "encoder_attention_heads": 8}
    theirs, ours = pair("DetrForSegmentation", **told)
    same(theirs, ours, pixel_values=IMAGES)
    assert ours(IMAGES).pred_masks.shape == (2, 7, 8, 8)
    ours.save_pretrained(tmp_path)
    for library in (lab, transformers):
        again = library.DetrForSegmentation.from_pretrained(tmp_path, dtype=torch.float64).eval()
        torch.testing.assert_close(
            again(IMAGES).pred_masks, theirs(IMAGES).pred_masks, atol=1e-9, rtol=0
        )


@torch.no_grad()
def test_keywords_that_nothing_reads_are_accepted_and_named_once(caplog):
    theirs, ours = pair("RTDetrForObjectDetection")
    warn_of.cache_clear()
    more = {"decoder_input_ids": IMAGES, "use_cache": None, "num_items_in_batch": 3}
    for _ in range(2):
        assert torch.equal(ours(IMAGES, **more).logits, ours(IMAGES).logits)
    said = "RTDetrForObjectDetection.forward: nothing reads decoder_input_ids, as in transformers"
    assert caplog.messages == [said]
    torch.testing.assert_close(
        theirs(IMAGES, **more).logits, ours(IMAGES).logits, atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("kind", ["RTDetrForObjectDetection", "DetrForObjectDetection"])
def test_a_trainer_that_accumulates_takes_the_step_that_it_takes_with_their_class(kind, tmp_path):
    """Their `forward` takes further keywords, too, so `Trainer` could divide the loss otherwise."""
    pytest.importorskip("accelerate", reason="Trainer needs it; runs with the extra [dev]")
    more = {"dropout": 0.0} if kind.startswith("Detr") else {"num_denoising": 0}
    told = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, report_to=[],
        gradient_accumulation_steps=2, remove_unused_columns=False, use_cpu=True, optim="sgd",
        learning_rate=0.1, max_grad_norm=0.0, disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    # The loss of transformers' DETR cannot be computed in fp64.
    kind_of = torch.float32 if kind.startswith("Detr") else torch.float64
    pictures = [*IMAGES.to(kind_of), *IMAGES.to(kind_of).flip(-1)]
    boxes = [label((0,)), label((2, 1)), label((1,), (0.3, 0.4, 0.5, 0.2)), label((0, 0, 1))]
    for one in boxes:
        one["boxes"] = one["boxes"].to(kind_of)
    data = [{"pixel_values": p, "labels": b} for p, b in zip(pictures, boxes, strict=True)]
    theirs, ours = pair(kind, std=0.05, **more)
    theirs.model.freeze_backbone()  # transformers freezes more of DETR's ResNet than it says
    ours.model.freeze_backbone()
    if not kind.startswith("Detr"):  # ours trains the boxes as the authors do; docs/differences.md
        ours.lab.decoder.cfg = replace(ours.lab.decoder.cfg, box_gradient=look_forward_once)
    before = copy.deepcopy(ours.to(kind_of).state_dict())
    for model in (theirs.to(kind_of), ours):
        collate = lambda items: {  # noqa: E731
            "pixel_values": torch.stack([one["pixel_values"] for one in items]),
            "labels": [dict(one["labels"]) for one in items],
        }
        transformers.Trainer(model, told, collate, data).train()
    wanted = copy.deepcopy(ours)
    wanted.load_state_dict(theirs.state_dict())
    found, steps = ours.state_dict(), 0
    for name, tensor in wanted.state_dict().items():
        step = (tensor - before[name]).abs().max()
        steps += bool(step > 1e-4)
        assert (found[name] - tensor).abs().max() <= 0.02 * step + 1e-5, name  # not twice the step
    assert steps > 20

"""DETR's masks: answers, losses, gradients and pictures as transformers' DetrForSegmentation."""

import pytest
import torch
from detr_oracle import (
    SMALL,
    as_targets,
    differences,
    doubles,
    labels_of,
    learn_everything,
    pictures,
    run,
    theirs,
    twins,
)

from rtdetr_lab.checkpoints.rename import export_tensors, import_tensors, table_of
from rtdetr_lab.checkpoints.tables_detr import DETR_MASKS
from rtdetr_lab.taps import record

KINDS = {
    "plain": {"masks": True},
    "DC5": {"masks": True, "dc5": True},
    "other widths": {
        "masks": True,
        "basic": True,
        "settings": {**SMALL, "d_model": 32, "encoder_attention_heads": 8, "num_queries": 5},
    },
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request):
    with torch.random.fork_rng():
        return twins(**KINDS[request.param])


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 64, 64), (2, 75, 101)], ids=str)
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_every_mask_is_theirs(pair, shape, padded, rng):
    model, ours = pair
    images, padding = pictures(*shape, rng, padded)
    expected = run(model, images, padding)
    assert max(differences(ours(images, padding=padding), expected).values()) <= 1e-9
    masks = expected.out.pred_masks
    assert masks.shape[-2:] == ((shape[1] + 3) // 4, (shape[2] + 3) // 4)
    assert masks.flatten(2).std(-1).mean() > 0.1
    assert masks.std(1).mean() > 0.03


@torch.no_grad()
def test_the_attention_maps_of_every_query_are_theirs(pair, rng):
    model, ours = pair
    images, padding = pictures(2, 64, 97, rng, padded=True)
    kept = []
    hook = model.bbox_attention.register_forward_hook(lambda _m, _i, out: kept.append(out))
    run(model, images, padding)
    hook.remove()
    with record(ours, keep="mask_attention.weights") as seen:
        ours(images, padding=padding)
    assert (seen["mask_attention.weights"] - kept[0]).abs().max() <= 1e-12


@torch.no_grad()
def test_one_percent_of_any_tensor_of_the_mask_head_would_be_seen(rng):
    model, ours = twins(masks=True)
    images, padding = pictures(2, 64, 97, rng, padded=True)
    expected, blind = run(model, images, padding).out.pred_masks, []
    for name, tensor in ours.state_dict().items():
        if not name.startswith("mask_"):
            continue
        kept = tensor.clone()
        tensor *= 1.01
        if (ours(images, padding=padding).masks - expected).abs().max() <= 1e-9:
            blind.append(name)
        tensor.copy_(kept)
    # Eight groups of eight channels, and of four: a channel normalised alone forgets its bias.
    assert blind == [f"mask_head.levels.{i}.refine.conv.bias" for i in (1, 2)]


COUNTS = {"usual": (3, 0, 4), "more objects than queries": (15, 2)}


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_every_loss_term_and_every_gradient_is_theirs(counts, rng):
    labels = labels_of(counts, rng, size=(64, 97))
    images, padding = pictures(len(counts), 64, 97, rng, padded=True)
    model, ours = twins(masks=True)
    learn_everything(model, ours)
    expected = run(model.train(), images, padding)
    model.config.auxiliary_loss = True
    with doubles():
        loss, terms, _ = model.loss_function(
            expected.out.logits, labels, "cpu", expected.out.pred_boxes, expected.out.pred_masks,
            model.config, expected.layer_logits, expected.layer_boxes,
        )  # fmt: skip
    loss.backward()

    targets = as_targets(labels)
    mine = ours.cfg.criterion.build()(ours.train()(images, targets, padding), targets)
    sum(mine.values()).backward()
    assert mine["mask"].item() == pytest.approx(terms["loss_mask"].item(), rel=1e-9)
    assert mine["dice"].item() == pytest.approx(terms["loss_dice"].item(), rel=1e-9)
    assert sum(mine.values()).item() == pytest.approx(loss.item(), rel=1e-9)

    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    wanted = import_tensors(DETR_MASKS, gradients, "their gradients")
    for name, parameter in ours.named_parameters():
        off = (parameter.grad - wanted[name]).norm()
        assert off <= 1e-8 * wanted[name].norm() + 1e-11, name


def test_a_file_of_theirs_is_read_and_written_name_by_name(tmp_path):
    from safetensors.torch import load_file

    model = theirs(masks=True, spread_out=False)
    model.save_pretrained(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    file, memory = load_file(path), model.state_dict()
    assert table_of(file) is table_of(memory) is DETR_MASKS
    ours = import_tensors(DETR_MASKS, file, "file")
    same = import_tensors(DETR_MASKS, memory, "memory")
    assert ours.keys() == same.keys()
    assert all(torch.equal(ours[name], same[name]) for name in ours)
    back = export_tensors(DETR_MASKS, ours, "ours")
    assert back.keys() == file.keys()
    assert all(torch.equal(back[name], file[name]) for name in file)

"""The oracle: transformers' RT-DETR and RT-DETRv2 with random weights that a test can see through.

`twins(size)` are the two models with the same weights; `answer(model, images)` is what either says,
in one vocabulary; `by_token` lays two answers side by side. Plain random weights make deep features
nearly constant, and then a wrong model agrees with a right one: `spread` prevents that.
"""

from contextlib import nullcontext
from functools import lru_cache

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from rtdetr_lab import rtdetr, rtdetrv2
from rtdetr_lab.checkpoints.rename import import_tensors
from rtdetr_lab.checkpoints.tables import TRANSFORMERS
from rtdetr_lab.config import replace_at
from rtdetr_lab.structures import Prediction

transformers = pytest.importorskip(
    "transformers", reason="transformers, the oracle, is not installed; runs with the extra [dev]"
)

BASIC = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}
BOTTLENECK = {"layer_type": "bottleneck", "hidden_sizes": [256, 512, 1024, 2048]}
WIDER = {"encoder_hidden_dim": 384, "encoder_ffn_dim": 2048, "decoder_in_channels": [384] * 3}
NARROW = {"hidden_expansion": 0.5}

THEIRS = {
    "r18": ({**BASIC, "depths": [2, 2, 2, 2]}, {**NARROW, "decoder_layers": 3}),
    "r34": ({**BASIC, "depths": [3, 4, 6, 3]}, {**NARROW, "decoder_layers": 4}),
    "r50_m": ({**BOTTLENECK, "depths": [3, 4, 6, 3]}, NARROW),
    "r50": ({**BOTTLENECK, "depths": [3, 4, 6, 3]}, {}),
    "r101": ({**BOTTLENECK, "depths": [3, 4, 23, 3]}, WIDER),
}
"""What transformers calls each preset: backbone, and what differs from its defaults."""

VERSIONS = {
    "v1": (transformers.RTDetrConfig, transformers.RTDetrForObjectDetection, rtdetr, "rtdetr_"),
    "v2": (
        transformers.RTDetrV2Config,
        transformers.RTDetrV2ForObjectDetection,
        rtdetrv2,
        "rtdetrv2_",
    ),
}


def theirs(size, version="v1", **changes):
    """Their model of one of our presets, 80 classes, in eval mode."""
    backbone, rest = THEIRS[size]
    resnet = transformers.RTDetrResNetConfig(**backbone, out_indices=[2, 3, 4])
    config, model, _, _ = VERSIONS[version]
    widths = backbone["hidden_sizes"][1:]
    settings = {"encoder_in_channels": widths, "num_labels": 80, **rest, **changes}
    return model(config(backbone_config=resnet, **settings)).eval()


def preset(size, version="v1"):
    """Our configuration of the same model; all layers run, as theirs do."""
    _, _, module, prefix = VERSIONS[version]
    return replace_at(getattr(module, prefix + size)(), "decoder.inference_layers", None)


def same_weights(model, cfg):
    """Our model of `cfg` with the weights of theirs."""
    tensors = import_tensors(TRANSFORMERS, model.state_dict(), "the oracle")
    ours = cfg.build().to(model.dtype).eval()
    ours.load_state_dict(tensors)
    return ours


@lru_cache(maxsize=2)
def twins(size, version="v1", num_queries=300):
    """(theirs, ours) with one set of spread weights, exact in fp32. Copy before you change them."""
    model = spread(theirs(size, version, num_queries=num_queries))
    cfg = replace_at(preset(size, version), "selection.num_queries", num_queries)
    return model, same_weights(model, cfg)


GAINS = {
    "sampling_offsets": 0.5,
    "output_proj": 0.7,
    **dict.fromkeys(("bbox_embed", "bbox_head"), 0.5),
}
"""Smaller than 1 where a decoder would amplify rounding errors out of all proportion."""


@torch.no_grad()
def spread(model, seed=0):
    """Random weights with which every part matters to the answer; exact in fp32, any model.

    Convolution filters have zero mean (otherwise the mean of the input is all that survives),
    batch norm statistics are those of a noisy picture (activations have spread 1 everywhere),
    norms scale and shift, scores spread over ±2, boxes move, and offsets leave their star.
    """
    rng = torch.Generator().manual_seed(seed)

    def normal(tensor, std, mean=0.0):
        tensor.copy_(mean + std * torch.randn(tensor.shape, generator=rng, dtype=torch.float32))

    model.double()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            gain = next((g for part, g in GAINS.items() if part in name), 1.0)
            normal(module.weight, gain * module.weight[0].numel() ** -0.5)
            if isinstance(module, nn.Conv2d):
                module.weight -= module.weight.mean(dim=(1, 2, 3), keepdim=True)
            elif "sampling_offsets" not in name:
                normal(module.bias, 0.2)
        elif isinstance(module, nn.Embedding):
            normal(module.weight[: module.padding_idx], 1.0)
        elif hasattr(module, "running_var") or isinstance(module, nn.LayerNorm):
            normal(module.weight, 0.1, mean=1.0)
            normal(module.bias, 0.1)
    picture = torch.rand(2, 3, 128, 128, generator=rng).double()
    _calibrate(model, picture)
    return model.float().eval()


def _calibrate(model, picture):
    """Let every batch norm normalise what this picture brings it, from the first to the last."""

    def adopt(norm, inputs):
        x = inputs[0]
        norm.running_mean.copy_(x.mean(dim=(0, 2, 3)))
        norm.running_var.copy_(x.var(dim=(0, 2, 3)))

    norms = [m for m in model.modules() if hasattr(m, "running_var")]
    hooks = [norm.register_forward_pre_hook(adopt) for norm in norms]
    model.eval()(picture)
    for hook in hooks:
        hook.remove()


class Selecting(TorchFunctionMode):
    """Every top-k inside chooses these: in fp32 a token may be lost, and all others hear of it."""

    def __init__(self, index):
        self.index = index

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function not in (torch.topk, torch.Tensor.topk):
            return function(*args, **(kwargs or {}))
        return torch.return_types.topk((args[0].gather(1, self.index), self.index))


@torch.no_grad()
def answer(model, images, index=None):
    """What a model, ours or theirs, says in the precision of `images`, query by query; with
    `index` about those tokens."""
    with nullcontext() if index is None else Selecting(index):
        out = model.to(images.dtype)(images)
    if isinstance(out, Prediction):
        return {
            "index": out.proposals.index,
            "proposal logits": out.proposals.logits,
            "proposal boxes": out.proposals.boxes,
            "layer logits": torch.stack([layer.logits for layer in out.layers], dim=2),
            "layer boxes": torch.stack([layer.boxes for layer in out.layers], dim=2),
            "logits": out.logits,
            "boxes": out.boxes,
        }
    if index is None:
        score = out.enc_outputs_class.amax(-1)
        index = score.topk(out.logits.shape[1], dim=1).indices
    return {
        "index": index,
        "proposal logits": out.enc_topk_logits,
        "proposal boxes": out.enc_topk_bboxes,
        "layer logits": out.intermediate_logits.transpose(1, 2),
        "layer boxes": out.intermediate_reference_points.transpose(1, 2),
        "logits": out.logits,
        "boxes": out.pred_boxes,
    }


def by_token(a, b):
    """Both answers for the queries that hold the same token, and the share of such queries.

    In fp32 two tokens of nearly the same score may swap slots, or one make it and the other not.
    """
    picture, i, j = (a["index"][:, :, None] == b["index"][:, None, :]).nonzero(as_tuple=True)
    return (
        {name: value[picture, i] for name, value in a.items()},
        {name: value[picture, j] for name, value in b.items()},
        len(picture) / a["index"].numel(),
    )


def error(a, b):
    """Quantity → largest difference, over the queries with the same token."""
    left, right, _ = by_token(a, b)
    return {n: (left[n].double() - right[n].double()).abs().max().item() for n in left}

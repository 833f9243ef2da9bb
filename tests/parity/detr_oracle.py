"""The oracle of DETR: transformers' classes over their own ResNet, with spread weights.

timm cannot be imported here, so that DC5, which transformers has only through timm, is made by
hand. Eager attention: torch's fused one misreads an fp32 mask beside fp64 queries.
"""

import dataclasses
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from oracle import spread
from torch import nn

from rtdetr_lab.backbone import BasicBlock, Bottleneck
from rtdetr_lab.checkpoints.rename import import_tensors, table_of
from rtdetr_lab.config import replace_at
from rtdetr_lab.detr.model import IMAGENET_MEAN, IMAGENET_STD, DETRConfig
from rtdetr_lab.detr.positions import LearnedPositions, SinePositions
from rtdetr_lab.detr.resnet import ResNetConfig
from rtdetr_lab.detr.segmentation import SegmentationConfig, segmentation_criterion
from rtdetr_lab.detr.transformer import DETRDecoderConfig, DETREncoderConfig
from rtdetr_lab.structures import Targets

transformers = pytest.importorskip(
    "transformers", reason="transformers, the oracle, is not installed; runs with the extra [dev]"
)

SMALL = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "num_queries": 12,
    "num_labels": 5,
}
SMALL_RESNET = {"embedding_size": 8, "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 2]}
WHOLE = {"num_labels": 91}
WHOLE_RESNET = {"depths": [3, 4, 6, 3]}


def theirs(
    settings=SMALL, resnet=SMALL_RESNET, dc5=False, basic=False, masks=False, spread_out=True
):
    """Their model in eval mode and fp64."""
    resnet = transformers.ResNetConfig(
        **resnet,
        layer_type="basic" if basic else "bottleneck",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.DetrConfig(
        backbone_config=resnet, use_timm_backbone=False, dropout=0.0, **settings
    )
    config._attn_implementation = "eager"
    kind = transformers.DetrForSegmentation if masks else transformers.DetrForObjectDetection
    model = kind(config)
    if dc5:
        _dilate(model)
    if spread_out:
        spread(model)
        torch.nn.init.normal_(getattr(model, "detr", model).model.input_projection.bias, std=0.2)
    if spread_out and masks:
        _let_queries_differ(model)
    return model.double().eval()


@torch.no_grad()
def _let_queries_differ(model):
    """Random mask heads drown where a query looks in what the picture shows: turn it up."""
    head, heads = model.mask_head, model.config.encoder_attention_heads
    model.bbox_attention.q_proj.weight *= 4
    head.conv1.conv.weight[:, -heads:] *= 100
    for module in head.modules():
        if isinstance(module, nn.GroupNorm):
            module.weight += 0.1 * torch.randn_like(module.weight)
            module.bias += 0.1 * torch.randn_like(module.bias)
        if isinstance(module, nn.Conv2d):
            torch.nn.init.normal_(module.bias, std=0.2)
    for stage in head.fpn_stages:
        stage.fpn_adapter.weight *= 0.1


def _dilate(model):
    """DC5: stride 1 in the last stage, and from its second block on every other cell."""
    body = getattr(model, "detr", model).model.backbone.model
    first, *rest = body.encoder.stages[-1].layers
    first.layer[1].convolution.stride = first.shortcut.convolution.stride = (1, 1)
    for block in rest:
        conv = block.layer[1].convolution
        conv.dilation = conv.padding = (2, 2)


def our_config(model, dc5=False):
    """The same model in our words."""
    c = model.config
    resnet = c.backbone_config
    sine = c.position_embedding_type == "sine"
    cfg = DETRConfig(
        c.num_labels,
        c.d_model,
        ResNetConfig(
            tuple(resnet.depths),
            tuple(resnet.hidden_sizes),
            Bottleneck if resnet.layer_type == "bottleneck" else BasicBlock,
            resnet.embedding_size,
            dilated=dc5,
        ),
        SinePositions() if sine else LearnedPositions(),
        DETREncoderConfig(c.encoder_layers, c.encoder_attention_heads, c.encoder_ffn_dim, 0.0),
        DETRDecoderConfig(
            c.num_queries, c.decoder_layers, c.decoder_attention_heads, c.decoder_ffn_dim, 0.0
        ),
    )
    if not hasattr(model, "mask_head"):
        return cfg
    fields = {f.name: getattr(cfg, f.name) for f in dataclasses.fields(cfg)} | {
        "backbone": replace_at(cfg.backbone, "outputs", (1, 2, 3, 4)),
        "criterion": segmentation_criterion(),
    }
    return SegmentationConfig(**fields, num_mask_heads=c.encoder_attention_heads)


def same_weights(model, cfg):
    """Our model of `cfg` with the weights of theirs, in fp64 and eval mode."""
    theirs_ = model.state_dict()
    ours = cfg.build().double().eval()
    ours.load_state_dict(import_tensors(table_of(theirs_), theirs_, "the oracle"))
    return ours


def twins(**options):
    """(theirs, ours) with one set of weights."""
    model = theirs(**options)
    cfg = our_config(model, options.get("dc5", False))
    return model, same_weights(model, cfg)


def pictures(batch, height, width, rng, padded=False):
    """Pictures in [0, 1], and what is padding in them (None unless `padded`)."""
    images = torch.rand(batch, 3, height, width, generator=rng).double()
    if not padded:
        return images, None
    padding = torch.zeros(batch, height, width, dtype=torch.bool)
    for i in range(1, batch):
        padding[i, height * 2 // 3 :] = padding[i, :, width // 2 + 3 :] = True
    return images, padding


def as_theirs(images, padding):
    """Normalised, then zero where padded; a mask that is 1 at the picture."""
    mean, std = (images.new_tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (images - mean) / std
    if padding is None:
        return {"pixel_values": pixels}
    return {
        "pixel_values": pixels.masked_fill(padding[:, None], 0),
        "pixel_mask": (~padding).long(),
    }


def run(model, images, padding=None, **more):
    """Their answer after every decoder layer, heads and norm applied by hand to what layers return:
    their `auxiliary_loss=True`, which would do it, changes the answer."""
    detector = getattr(model, "detr", model)
    kept = []
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out: kept.append(out))
        for layer in detector.model.decoder.layers
    ]
    out = model(**as_theirs(images, padding), **more)
    for hook in hooks:
        hook.remove()
    content = detector.model.decoder.layernorm(torch.stack(kept))
    return SimpleNamespace(
        out=out,
        layer_logits=detector.class_labels_classifier(content),
        layer_boxes=detector.bbox_predictor(content).sigmoid(),
    )


def differences(ours, theirs_):
    """Quantity → largest difference between our prediction and their run."""
    pairs = {
        "logits": (ours.logits, theirs_.out.logits),
        "boxes": (ours.boxes, theirs_.out.pred_boxes),
        "layer logits": (torch.stack([p.logits for p in ours.layers]), theirs_.layer_logits),
        "layer boxes": (torch.stack([p.boxes for p in ours.layers]), theirs_.layer_boxes),
    }
    if ours.masks is not None:
        pairs["masks"] = (ours.masks, theirs_.out.pred_masks)
    return {name: (a - b).abs().max().item() for name, (a, b) in pairs.items()}


@contextmanager
def doubles():
    """Their loss makes its class weights in the default precision."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def learn_everything(*models):
    """Theirs freezes the whole of its own ResNet, ours what `frozen_stages` says: here, nothing."""
    for model in models:
        model.requires_grad_(True)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                assert module.p == 0


def labels_of(counts, rng, num_classes=5, size=None):
    """Their labels of random objects, with masks where a size is given."""
    found = []
    for count in counts:
        one = {
            "class_labels": torch.randint(num_classes, (count,), generator=rng),
            "boxes": (0.2 + 0.4 * torch.rand(count, 4, generator=rng)).double(),
        }
        if size:
            coarse = torch.rand(count, 1, 4, 5, generator=rng)
            if count:
                coarse = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
            one["masks"] = coarse[:, 0] > 0.5 if count else torch.zeros(0, *size).bool()
        found.append(one)
    return found


def as_targets(labels):
    """The same as our record."""
    return Targets.of({**one, "labels": one["class_labels"]} for one in labels)

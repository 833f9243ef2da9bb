"""The oracle of D-FINE: transformers' model of every size, with spread weights, and ours beside it.

transformers keeps 1/K of the sampling points in float32; with three or six points that alone moves
a score by 1e-8. `twins` gives their model the exact numbers.
"""

from functools import lru_cache

import pytest
import torch
from oracle import Selecting, spread

from rtdetr_lab.checkpoints.rename import import_tensors
from rtdetr_lab.checkpoints.tables_dfine import DFINE
from rtdetr_lab.config import replace_at
from rtdetr_lab.successors import dfine

transformers = pytest.importorskip(
    "transformers", reason="transformers, the oracle, is not installed; runs with the extra [dev]"
)

B0 = {
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "hidden_sizes": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "use_learnable_affine_block": True,
}
B2 = {
    "stem_channels": [3, 24, 32],
    "stage_in_channels": [32, 96, 384, 768],
    "stage_mid_channels": [32, 64, 128, 256],
    "stage_out_channels": [96, 384, 768, 1536],
    "hidden_sizes": [96, 384, 768, 1536],
    "stage_numb_of_layers": [4, 4, 4, 4],
    "use_learnable_affine_block": True,
}
B5 = {
    "stem_channels": [3, 32, 64],
    "stage_in_channels": [64, 128, 512, 1024],
    "stage_mid_channels": [64, 128, 256, 512],
    "stage_num_blocks": [1, 2, 5, 2],
}
LIVE = {"freeze_backbone_batch_norms": False}
N = {
    "encoder_in_channels": [512, 1024], "feat_strides": [16, 32], "encode_proj_layers": [1],
    "encoder_hidden_dim": 128, "encoder_ffn_dim": 512, "hidden_expansion": 0.34, "depth_mult": 0.5,
    "decoder_in_channels": [128, 128], "d_model": 128, "decoder_ffn_dim": 512, "decoder_layers": 3,
    "num_feature_levels": 2, "decoder_n_points": [6, 6], **LIVE,
}  # fmt: skip
S = {"encoder_in_channels": [256, 512, 1024], "hidden_expansion": 0.5, "depth_mult": 0.34, **LIVE}
M = {"encoder_in_channels": [384, 768, 1536], "depth_mult": 0.67, "decoder_layers": 4, **LIVE}
X = {"encoder_hidden_dim": 384, "encoder_ffn_dim": 2048, "decoder_in_channels": [384] * 3}

THEIRS = {
    "n": (B0, [3, 4], N),
    "s": (B0, [2, 3, 4], {**S, "decoder_layers": 3}),
    "m": (B2, [2, 3, 4], M),
    "l": ({}, [2, 3, 4], {}),
    "x": (B5, [2, 3, 4], {**X, "reg_scale": 8.0}),
}
"""The authors' configurations: backbone, its outputs, and what differs from L."""


def theirs(size, **changes):
    """Their model of one of our presets, 80 classes, in eval mode."""
    backbone, outputs, rest = THEIRS[size]
    inner = transformers.HGNetV2Config(**backbone, out_indices=outputs)
    settings = {"num_labels": 80, "decoder_n_points": [3, 6, 3], **rest, **changes}
    config = transformers.DFineConfig(backbone_config=inner, **settings)
    return transformers.DFineForObjectDetection(config).eval()


def preset(size):
    return getattr(dfine, f"dfine_{size}")()


@torch.no_grad()
def lively(model):
    """`model` with scales, shifts and gates that matter; exact in fp32."""
    for name, parameter in model.named_parameters():
        if ".lab." in name:
            rng = torch.Generator().manual_seed(len(name))
            parameter.add_(0.3 * torch.randn(1, generator=rng))
    return model


@lru_cache(maxsize=1)
def twins(size, num_queries=60):
    """(theirs, ours) with one set of spread weights. Copy before you change them."""
    model = spread(lively(theirs(size, num_queries=num_queries)))
    with torch.no_grad():
        for project in model.model.encoder_input_proj:
            project[0].weight.add_(0.01)  # filters of mean zero would not see a learned shift
        for head in model.model.decoder.bbox_embed:
            head.layers[-1].weight.mul_(8.0)  # distributions with peaks, so that edges move
    tensors = import_tensors(DFINE, model.state_dict(), "the oracle")
    ours = replace_at(preset(size), "selection.num_queries", num_queries).build().eval()
    ours.load_state_dict(tensors)
    return all_layers(model), ours


def all_layers(model):
    """Let their decoder return all layers, with exact 1/K; nothing else there asks for the mode."""
    decoder = model.model.decoder
    decoder.training = True
    for layer in decoder.layers:
        attention = layer.encoder_attn
        scale = [1 / n for n in attention.num_points_list for _ in range(n)]
        attention.num_points_scale = torch.nn.Buffer(torch.tensor(scale, dtype=torch.float64))
    return model


class SelectingTokens(Selecting):
    """Only the top-k of the scores chooses these: LQE has a top-k of its own."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.topk, torch.Tensor.topk) and args[0].ndim != 2:
            return function(*args, **(kwargs or {}))
        return super().__torch_function__(function, types, args, kwargs)


@torch.no_grad()
def said(model, images, index=None):
    """What a model, ours or theirs, says in the precision of `images`."""
    exact = {n: b for n, b in model.named_buffers() if n.endswith("points_scale")}
    model.to(images.dtype)
    for name, buffer in model.named_buffers():
        if name in exact:
            buffer.data = exact[name]
    if index is None:
        out = model(images)
    else:
        with SelectingTokens(index):
            out = model(images)
    if hasattr(out, "layers"):
        layers = out.layers
        return {
            "index": out.proposals.index,
            "proposal logits": out.proposals.logits,
            "proposal boxes": out.proposals.boxes,
            "start logits": layers[0].start.logits,
            "start boxes": layers[0].start.boxes,
            "corner logits": torch.stack([layer.corner_logits for layer in layers], 1).flatten(3),
            "layer logits": torch.stack([layer.logits for layer in layers], 1),
            "layer boxes": torch.stack([layer.boxes for layer in layers], 1),
            "logits": out.logits,
            "boxes": out.boxes,
        }
    score = out.enc_outputs_class.amax(-1)
    return {
        "index": score.topk(out.logits.shape[1], dim=1).indices if index is None else index,
        "proposal logits": out.enc_topk_logits,
        "proposal boxes": out.enc_topk_bboxes,
        "start logits": out.intermediate_logits[:, 0],
        "start boxes": out.intermediate_reference_points[:, 0],
        "corner logits": out.intermediate_predicted_corners,
        "layer logits": out.intermediate_logits[:, 1:],
        "layer boxes": out.intermediate_reference_points[:, 1:],
        "logits": out.logits,
        "boxes": out.pred_boxes,
    }


def furthest(a, b):
    """Quantity → largest difference; the queries hold the same tokens in the same order."""
    return {n: (a[n].double() - b[n].double()).abs().max().item() for n in a if n != "index"}

"""# The deploy form: the same answers from fewer steps

    fast = lab.deploy(model)          # a new model, in eval mode; `model` does not change
    Detector(fast)("picture.png")

`deploy` takes these steps, each where it applies:

1. It folds constant batch norms into the convolutions before them, and turns a RepVGG block into
   one 3×3 convolution (`kernels/folding.py`).
2. It connects RT-DETR's chapters anew, without the parts that only a loss reads
   (`inference_form.py`). A DETR predicts for its last layer only.
3. It gives deformable attention a faster sampler, as a value: a fused Triton kernel on CUDA,
   weighted bags of rows on the CPU (`kernels/embedding_bag_samplers.py`).

Which of the exact rewrites pay depends on the processor and on the runtime, so each is a switch of
`Rewrites`, and `fastest.py` tries them.

Anchors and position embeddings are constants of a size and are cached by size, so a deployed model
takes pictures of any size. A part that is not the chapter's own class (an ablation, a class from a
notebook) stays as it is; only the blocks inside it are fused.

The predictions equal those of the training form: to 1e-9 in fp64. In fp32 they are as close to the
fp64 result as the training form itself. `Prediction.layers` contains only the last layer;
`proposals` and `denoising` are gone. Taps of removed parts are gone too, and `record` reports it.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rtdetr_lab.deformable_attention import DeformableAttention
from rtdetr_lab.deployment.inference_form import InferenceCCFF, InferenceRTDETR, splits
from rtdetr_lab.detr.transformer import DETRDecoder
from rtdetr_lab.hybrid_encoder import HybridEncoder
from rtdetr_lab.kernels.folding import fused
from rtdetr_lab.kernels.fused_sampler import fastest_for, unfused
from rtdetr_lab.model import declared
from rtdetr_lab.query_selection import LearnedContentSelection, ProposalHead, QuerySelection
from rtdetr_lab.rtdetr import RTDETR
from rtdetr_lab.samplers import Sampler


@dataclass(frozen=True)
class Rewrites:
    """Exact rewrites that pay on some processors or runtimes and not on others."""

    split_fusion: bool = True
    """Convolve before upsampling, in every fusion from top to bottom (`InferenceCCFF`)."""
    read_first: bool = True
    """Sum rows of the memory and project the sums (`GatherFirst`); packed CPU kernels only."""
    planar: bool = True
    """Keep values as maps (`planar.py`); exported graphs only."""


ALL_REWRITES = Rewrites()


@torch.no_grad()
def deploy(
    model: nn.Module,
    sampler: Callable[[Sampler], Sampler] | None = None,
    rewrites: Rewrites = ALL_REWRITES,
) -> nn.Module:
    """Copy `model` into a form that predicts the same and computes less.

    `sampler` maps a chapter's sampler to the one to run; the default is the fastest for the device
    of the model. Pass `same` to keep the chapter's (an export needs `grid_sample`). A backend
    applies the `rewrites` that need its kernels.
    """
    choose = sampler or fastest_for(next(iter(model.parameters()), torch.zeros(())).device)
    form = _inference_form(fused_copy(model, choose), rewrites)
    form.metadata = declared(model).metadata
    return form.eval()


@torch.no_grad()
def fused_copy(model: nn.Module, sampler: Callable[[Sampler], Sampler] | None = None) -> nn.Module:
    """Copy `model` with fused blocks and, by default, the chapter's samplers; its taps remain."""
    form = fuse_inside(copy.deepcopy(model)).eval().requires_grad_(False)
    swap_samplers(form, sampler or same)
    return form


def fuse_inside(module: nn.Module) -> nn.Module:
    """Replace every block of `module` that can be fused by its fused form, in place."""
    module = fused(module)
    for name, child in module.named_children():
        setattr(module, name, fuse_inside(child))
    return module


def swap_samplers(model: nn.Module, choose: Callable[[Sampler], Sampler]) -> None:
    """Replace the sampler of every deformable attention by what `choose` returns for it."""
    for module in model.modules():
        if isinstance(module, DeformableAttention):
            module.sampler = choose(unfused(module.sampler))  # fused after training on CUDA


def same(sampler: Sampler) -> Sampler:
    """Keep the chapter's sampler."""
    return sampler


def _inference_form(model: Any, rewrites: Rewrites) -> Any:
    """Replace the chapters' own parts by shorter forms; leave all other parts alone."""
    if type(getattr(model, "decoder", None)) is DETRDecoder:
        model.decoder = LastContent(model.decoder)
    if type(model).forward is not RTDETR.forward:
        return model
    encoder = model.encoder
    split = rewrites.split_fusion and isinstance(encoder, HybridEncoder)
    if split and splits(encoder.ccff):
        # Another class on purpose: type checkers expect the chapter's.
        setattr(encoder, "ccff", InferenceCCFF(encoder.ccff))  # noqa: B010
    known = type(model.proposal_head) is ProposalHead
    known &= type(model.selection) in (QuerySelection, LearnedContentSelection)
    return InferenceRTDETR(model) if known else model


class LastContent(nn.Module):
    """DETR's decoder with the output of its last layer only, so that the heads run once."""

    def __init__(self, decoder: DETRDecoder) -> None:
        super().__init__()
        self.decoder, self.query_positions = decoder, decoder.query_positions

    def forward(
        self,
        memory: Float[Tensor, "B N D"],
        positions: Float[Tensor, "#B N D"],
        blocked: Bool[Tensor, "B 1 1 N"] | None = None,
    ) -> tuple[Float[Tensor, "B Q D"]]:
        return (self.decoder(memory, positions, blocked)[-1],)

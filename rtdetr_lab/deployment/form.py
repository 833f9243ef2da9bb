r"""# The deploy form: the same answers from fewer steps

    fast = lab.deploy(model)          # a new model, in eval mode; `model` is untouched
    Detector(fast)("picture.png")

What happens, in order, and each only where it applies:

1. constant batch norms fold into the convolutions before them, a RepVGG block becomes one 3×3
   (`kernels/folding.py`);
2. RT-DETR's chapters are strung together anew without what only a loss would read
   (`inference_form.py`), and DETR answers for its last layer only;
3. deformable attention gets a faster sampler, as a value: a fused Triton kernel on CUDA, weighted
   bags of rows on the CPU (`kernels/embedding_bag_samplers.py`).

Anchors and position embeddings are constants of a size and stay remembered by it, so a deployed
model takes pictures of any size. A part that is not the chapter's own (an ablation, a class from a
notebook) is kept as it is and only fused inside.

The answer is that of the training form: to 1e-9 in fp64, and in fp32 as close to it as the training
form itself. `Prediction.layers` holds the last layer alone; `proposals` and `denoising` are gone.
Taps of what was left out are gone too, and `record` says so.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rtdetr_lab.decoder import Decoder
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


@torch.no_grad()
def deploy(model: nn.Module, sampler: Callable[[Sampler], Sampler] | None = None) -> nn.Module:
    """A copy of `model` that answers the same and computes less.

    `sampler` maps a chapter's sampler to the one to run; by default the fastest for the device the
    model is on. Pass `identity` to keep the chapter's (an export wants `grid_sample`).
    """
    shorter = fuse_inside(copy.deepcopy(model)).eval().requires_grad_(False)
    choose = sampler or fastest_for(next(iter(shorter.parameters()), torch.zeros(())).device)
    swap_samplers(shorter, choose)
    form = _inference_form(shorter)
    form.metadata = declared(model).metadata
    return form.eval()


def fuse_inside(module: nn.Module) -> nn.Module:
    """`module` with every block that can be fused in its fused form; changes it in place."""
    module = fused(module)
    for name, child in module.named_children():
        setattr(module, name, fuse_inside(child))
    return module


def swap_samplers(model: nn.Module, choose: Callable[[Sampler], Sampler]) -> None:
    """Give every deformable attention of `model` the sampler that `choose` makes of its own."""
    for module in model.modules():
        if isinstance(module, DeformableAttention):
            module.sampler = choose(unfused(module.sampler))  # one that has learned on CUDA


def same(sampler: Sampler) -> Sampler:
    """Keep the chapter's sampler."""
    return sampler


def _inference_form(model: Any) -> Any:
    """Less to compute, part by part: what is not the chapter's own is left alone."""
    if type(getattr(model, "decoder", None)) is DETRDecoder:
        model.decoder = LastContent(model.decoder)
    if type(model).forward is not RTDETR.forward:
        return model
    encoder = model.encoder
    if isinstance(encoder, HybridEncoder) and splits(encoder.ccff):
        # Another class on purpose: type checkers know the chapter's.
        setattr(encoder, "ccff", InferenceCCFF(encoder.ccff))  # noqa: B010
    known = (
        type(model.proposal_head) is ProposalHead
        and type(model.selection) in (QuerySelection, LearnedContentSelection)
        and type(model.decoder) is Decoder
    )
    return InferenceRTDETR(model) if known else model


class LastContent(nn.Module):
    """DETR's decoder, read after its last layer only: its heads answer once."""

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

r"""# The deploy form: the same answers from fewer steps

    fast = lab.deploy(model)          # a new model, in eval mode; `model` is untouched
    Detector(fast)("picture.png")

What happens, in order, and each only where it applies:

1. every block with a `fuse()` becomes its shorter self: constant batch norms fold into the
   convolutions before them, a RepVGG block becomes one 3×3;
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
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rtdetr_lab.decoder import Decoder
from rtdetr_lab.deformable_attention import DeformableAttention
from rtdetr_lab.deployment.inference_form import InferenceCCFF, InferenceRTDETR, splits
from rtdetr_lab.detr.model import DETR
from rtdetr_lab.detr.segmentation import DETRSegmentation
from rtdetr_lab.folding import Fusable
from rtdetr_lab.hybrid_encoder import HybridEncoder
from rtdetr_lab.kernels.fused_sampler import fastest_for, unfused
from rtdetr_lab.query_selection import LearnedContentSelection, ProposalHead, QuerySelection
from rtdetr_lab.rtdetr import RTDETR
from rtdetr_lab.samplers import Sampler
from rtdetr_lab.structures import Prediction, check_batch


@torch.no_grad()
def deploy(model: nn.Module, sampler: Callable[[Sampler], Sampler] | None = None) -> nn.Module:
    """A copy of `model` that answers the same and computes less.

    `sampler` maps a chapter's sampler to the one to run; by default the fastest for the device the
    model is on. Pass `identity` to keep the chapter's (an export wants `grid_sample`).
    """
    fused = fuse_inside(copy.deepcopy(model)).eval().requires_grad_(False)
    choose = sampler or fastest_for(next(iter(fused.parameters()), torch.zeros(())).device)
    swap_samplers(fused, choose)
    form = _inference_form(fused)
    metadata = getattr(model, "metadata", None)
    if metadata is not None:
        form.metadata = metadata
    return form.eval()


def fuse_inside(module: nn.Module) -> nn.Module:
    """`module` with every block that can be fused in its fused form; changes it in place."""
    if isinstance(module, Fusable):
        module = module.fuse()
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


def _inference_form(model: nn.Module) -> nn.Module:
    if isinstance(model, DETRSegmentation):
        return InferenceSegmentation(model)
    if isinstance(model, DETR):
        return InferenceDETR(model)
    if not isinstance(model, RTDETR):
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


class InferenceDETR(nn.Module):
    """A DETR that answers for its last layer only."""

    def __init__(self, model: DETR) -> None:
        super().__init__()
        self.model, self.cfg = model, model.cfg

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        padding: Bool[Tensor, "B H W"] | None = None,
    ) -> Prediction:
        check_batch(images, None, self.cfg.num_classes)
        seen = self.model.look(images, padding)
        return self.model.answer(replace(seen, content=seen.content[-1:]))


class InferenceSegmentation(nn.Module):
    """The same for a DETR that draws masks."""

    def __init__(self, model: DETRSegmentation) -> None:
        super().__init__()
        self.model, self.cfg = model, model.cfg

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        padding: Bool[Tensor, "B H W"] | None = None,
    ) -> Prediction:
        check_batch(images, None, self.cfg.num_classes)
        seen = self.model.look(images, padding)
        last = self.model.answer(replace(seen, content=seen.content[-1:]))
        return replace(last, masks=self.model.draw(seen))

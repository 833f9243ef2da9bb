"""# Packed: the CPU's convolutions in the CPU's own layout

On a CPU, a deployed model spends 95 % of its time in oneDNN's convolutions and matrix products.
They run at the machine's ceiling *if* their weights lie as the kernel needs them and no other step
reads and writes the maps between them. `pack(model, images, dtype)` ensures both:

- All maps are channels last, so a map *is* its tokens and no layout ever changes.
- Weights are laid out for their kernel once, and not in every call.
- Activation and residual sum happen inside the convolution, on values still in registers.
- Deformable attention computes its plan from one product, and reads first and projects later
  (`GatherFirst`) or the other way round (`read_first=False`: `BagAttention`).

These are the operators that torch's own compiler emits for a frozen CPU graph
(`torch.ops.mkldnn._convolution_pointwise` …). We call them by name: no compiler, no warm-up. In a
build of torch that lacks them, the layers stay unpacked. The kernels support single precision, and
bfloat16 on a processor that has it (AVX-512, or AVX2 with NE-CONVERT).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.backbone import Residual
from rtdetr_lab.deformable_attention import DeformableAttention
from rtdetr_lab.kernels.embedding_bag_samplers import BagAttention, BagSampler, GatherFirst
from rtdetr_lab.kernels.folding import ConvAct, SplitConv
from rtdetr_lab.layers import MLP, Activation, FeedForward, identity

Sizes = dict[nn.Module, list[int]]
"""Shape of the input of every convolution and linear layer."""

AFTER_A_SUM = (identity, F.relu, F.silu)
KERNEL_NAMES = {
    identity: ("none", ""),
    F.relu: ("relu", ""),
    F.silu: ("swish", ""),
    F.gelu: ("gelu", "none"),
}
"""Activations that the kernels can apply: their name there, and kind of approximation."""


def can_pack(dtype: torch.dtype) -> bool:
    """Return True if this build of torch and this processor have the kernels."""
    ops = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or "_convolution_pointwise" not in dir(ops):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and ops._is_mkldnn_bf16_supported())


@torch.inference_mode()
def pack(
    model: nn.Module,
    images: Float[Tensor, "B 3 H W"],
    dtype: torch.dtype,
    read_first: bool = True,
) -> nn.Module:
    """Pack a deployed `model` for pictures like `images`, in place."""
    model = channels_last(model.to(dtype))
    images = images.to(dtype, memory_format=torch.channels_last)
    sizes = _input_sizes(model, images)
    for path, module in list(model.named_modules()):
        if type(module) is DeformableAttention and isinstance(module.sampler, BagSampler):
            made = (GatherFirst if read_first else BagAttention)(module, module.sampler)
            sizes[made.offsets_and_weights] = sizes[module.sampling_offsets]
            model.set_submodule(path, made)
    return _packed(model, sizes)


def channels_last(model: nn.Module) -> nn.Module:
    """Convert `model` so that the weights of its convolutions are channels last."""
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class PackedConv(nn.Module):
    """`act(conv(x))`, or `act(conv(x) + other)`, in one kernel."""

    def __init__(self, conv: nn.Conv2d, act: Activation, size: list[int]) -> None:
        super().__init__()
        padding = [int(p) for p in conv.padding]
        self.where = (padding, list(conv.stride), list(conv.dilation), conv.groups)
        self.act, self.bias = act, conv.bias
        self.weight = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]
            conv.weight.to_mkldnn(), *self.where, size
        )

    def forward(self, x: Float[Tensor, "B Ci Hi Wi"]) -> Float[Tensor, "B Co Ho Wo"]:
        ops, (act, kind) = torch.ops.mkldnn, KERNEL_NAMES[self.act]
        return ops._convolution_pointwise(x, self.weight, self.bias, *self.where, act, [], kind)

    def added(
        self, x: Float[Tensor, "B Ci Hi Wi"], other: Float[Tensor, "B Co Ho Wo"]
    ) -> Float[Tensor, "B Co Ho Wo"]:
        """Compute `act(conv(x) + other)`. After a sum the kernel has only ReLU; SiLU follows."""
        act = "relu" if self.act is F.relu else None
        summed = torch.ops.mkldnn._convolution_pointwise.binary(
            x, other, self.weight, self.bias, *self.where, "add", 1.0, act, [], ""
        )
        return F.silu(summed, inplace=True) if self.act is F.silu else summed


class PackedLinear(nn.Module):
    """`act(linear(x))` in one kernel."""

    def __init__(self, linear: nn.Linear, act: Activation, rows: int) -> None:
        super().__init__()
        self.act, self.kind = KERNEL_NAMES[act]
        self.bias = linear.bias
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)

    def forward(self, x: Float[Tensor, "*n Di"]) -> Float[Tensor, "*n Do"]:
        ops = torch.ops.mkldnn
        return ops._linear_pointwise(x, self.weight, self.bias, self.act, [], self.kind)


class PackedResidual(nn.Module):
    """Residual block in which the last convolution adds the shortcut and activates."""

    def __init__(self, block: Residual, convs: list[PackedConv]) -> None:
        super().__init__()
        *first, self.last = convs
        self.first, self.shortcut = nn.Sequential(*first), block.shortcut

    def forward(self, x: Float[Tensor, "B Ci Hi Wi"]) -> Float[Tensor, "B Co Ho Wo"]:
        return self.last.added(self.first(x), self.shortcut(x))


class PackedSplit(nn.Module):
    """`SplitConv` in which the second convolution includes the sum."""

    def __init__(self, coarse: PackedConv, fine: PackedConv) -> None:
        super().__init__()
        self.coarse, self.fine = coarse, fine

    def forward(
        self, coarse: Float[Tensor, "B D h w"], fine: Float[Tensor, "B D H W"]
    ) -> Float[Tensor, "B Do H W"]:
        height, width = fine.shape[-2:]
        raised = F.interpolate(self.coarse(coarse), scale_factor=2.0, mode="nearest")
        other = raised[..., :height, :width].contiguous(memory_format=torch.channels_last)
        return self.fine.added(fine, other)


def _packed(module: nn.Module, sizes: Sizes) -> nn.Module:
    """Replace everything inside `module` that has a kernel, in place."""
    replaced = _kernel_for(module, sizes)
    if replaced is not None:
        module = replaced
    for name, child in module.named_children():
        if not isinstance(child, PackedConv | PackedLinear):
            setattr(module, name, _packed(child, sizes))
    return module


def _kernel_for(module: nn.Module, sizes: Sizes) -> nn.Module | None:
    match module:
        case Residual():
            return _residual(module, sizes)
        case ConvAct() if _fits(module.conv) and module.act in KERNEL_NAMES:
            return _conv(module.conv, module.act, sizes)
        case SplitConv() if module.act in AFTER_A_SUM:
            coarse = _conv(module.coarse, identity, sizes)
            return PackedSplit(coarse, _conv(module.fine, module.act, sizes))
        case nn.Conv2d() if _fits(module):
            return _conv(module, identity, sizes)
        case FeedForward() if module.act in KERNEL_NAMES:
            first = _linear(module.fc1, module.act, sizes)
            return nn.Sequential(first, _linear(module.fc2, identity, sizes))
        case MLP():
            acts = [F.relu] * (len(module.layers) - 1) + [identity]
            layers = zip(module.layers, acts, strict=True)
            return nn.Sequential(*[_linear(layer, act, sizes) for layer, act in layers])
        case nn.Linear():
            return _linear(module, identity, sizes)
    return None


def _fits(conv: nn.Conv2d) -> bool:
    return not isinstance(conv.padding, str) and conv.padding_mode == "zeros"


def _conv(conv: nn.Conv2d, act: Activation, sizes: Sizes) -> PackedConv:
    return PackedConv(conv, act, sizes[conv])


def _linear(linear: nn.Module, act: Activation, sizes: Sizes) -> nn.Module:
    # A linear map that never ran as a module (its weight is read directly) stays as it is.
    if linear not in sizes or not isinstance(linear, nn.Linear):
        return linear
    *rows, _ = sizes[linear]
    return PackedLinear(linear, act, torch.Size(rows).numel())


def _residual(block: Residual, sizes: Sizes) -> nn.Module | None:
    convs = [c for name, c in block.named_children() if name != "shortcut"]
    foldable = all(isinstance(c, ConvAct) and _fits(c.conv) for c in convs)
    if not foldable or block.act not in AFTER_A_SUM:
        return None
    *first, last = (c for c in convs if isinstance(c, ConvAct))
    made = [_conv(c.conv, c.act, sizes) for c in first]
    return PackedResidual(block, [*made, _conv(last.conv, block.act, sizes)])


def _input_sizes(model: nn.Module, images: Tensor) -> Sizes:
    """Return the input shape of every convolution and linear map for such pictures."""
    sizes: Sizes = {}

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        sizes[module] = list(given[0].shape)

    asked = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [m.register_forward_pre_hook(note) for m in asked]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return sizes

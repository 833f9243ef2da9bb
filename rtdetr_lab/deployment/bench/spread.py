"""# Spread: random weights whose answers differ

Freshly built, a detector says 0.01 about everything and every box is a square: what is compared on
it is compared about nothing. `spread` gives the same architecture weights with which every part
matters to the answer: filters without a mean (which is all that would survive many layers), batch
norms that know what comes to them, offsets that left their star, boxes that move, and scores that
differ from picture to picture and class to class, few of them high.
"""

import torch
from torch import Tensor, nn

from rtdetr_lab.layers import FrozenBatchNorm2d

GAINS = {"sampling_offsets": 0.5, "output_proj": 0.7, "box_head": 0.5}
"""Below 1 where layer after layer would amplify what rounding changes."""
NORMS = nn.BatchNorm2d | FrozenBatchNorm2d


@torch.no_grad()
def spread(model: nn.Module, seed: int = 0, side: int = 128) -> nn.Module:
    """`model`, changed in place and in eval mode."""
    rng = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            gain = next((g for part, g in GAINS.items() if part in name), 1.0)
            _draw(module.weight, gain * module.weight[0].numel() ** -0.5, rng)
            if isinstance(module, nn.Conv2d):
                module.weight.sub_(module.weight.mean((1, 2, 3), keepdim=True))
            elif "sampling_offsets" not in name:
                _draw(module.bias, 0.2, rng)
    _calibrate(model.eval(), torch.rand(2, 3, side, side, generator=rng))
    for head in model.get_submodule("decoder.class_heads").children():
        assert isinstance(head, nn.Linear)
        head.weight.mul_(1.5)
        head.bias.sub_(4.0)
    return model


def _draw(tensor: Tensor, scale: float, rng: torch.Generator) -> None:
    tensor.copy_(scale * torch.randn(tensor.shape, generator=rng))


def _calibrate(model: nn.Module, picture: Tensor) -> None:
    """Let every batch norm normalise what this picture brings it, from the first to the last."""

    def adopt(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, NORMS)
        norm.running_mean.copy_(given[0].mean((0, 2, 3)))  # type: ignore[union-attr]
        norm.running_var.copy_(given[0].var((0, 2, 3)))  # type: ignore[union-attr]

    norms = [m for m in model.modules() if isinstance(m, NORMS)]
    hooks = [norm.register_forward_pre_hook(adopt) for norm in norms]
    model(picture)
    for hook in hooks:
        hook.remove()

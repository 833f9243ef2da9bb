"""# Spread: random weights that give varied outputs

A newly built detector scores everything 0.01, and its boxes are squares: a comparison of such
outputs shows nothing. `spread` draws new weights for the same architecture, so that every part
matters to the output:

- Filters have zero mean. Otherwise only their mean would survive many layers.
- Batch norms are calibrated to their inputs.
- Sampling offsets differ from their initial star, and boxes move.
- Scores differ from picture to picture and from class to class; few of them are high.
"""

import torch
from torch import Tensor, nn

from rtdetr_lab.layers import FrozenBatchNorm2d

GAINS = {"sampling_offsets": 0.5, "output_proj": 0.7, "box_head": 0.5}
"""Gains below 1, for layers that would amplify rounding from layer to layer."""
NORMS = nn.BatchNorm2d | FrozenBatchNorm2d


@torch.no_grad()
def spread(model: nn.Module, seed: int = 0, side: int = 128) -> nn.Module:
    """Draw new weights for `model`, in place, and put it in eval mode."""
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
    """Set every batch norm, from the first to the last, to the statistics of this picture."""

    def adopt(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, NORMS)
        norm.running_mean.copy_(given[0].mean((0, 2, 3)))  # type: ignore[union-attr]
        norm.running_var.copy_(given[0].var((0, 2, 3)))  # type: ignore[union-attr]

    norms = [m for m in model.modules() if isinstance(m, NORMS)]
    hooks = [norm.register_forward_pre_hook(adopt) for norm in norms]
    model(picture)
    for hook in hooks:
        hook.remove()

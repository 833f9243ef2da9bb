"""Diagrams of models, drawn from the module tree itself: what is in the picture is in the model.

The model runs once on a blank picture; hooks tell what every part returned. Colours come from the
theme (`currentColor` and its accent), so that one drawing serves light and dark.
"""

import html
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import rtdetr_lab as lab

PRESETS = {"rtdetr_nano": (lab.rtdetr_nano, 320), "rtdetr_r18": (lab.rtdetr_r18, 640)}
WIDTH, ROW, GAP, PAD = 640, 74, 22, 12


@dataclass(frozen=True)
class Part:
    """A child of the model: its parts in turn, its size, and the shapes of what it returned."""

    name: str
    kind: str
    inner: tuple[str, ...]
    parameters: int
    returned: str


def parts_of(model: nn.Module, images: Tensor) -> list[Part]:
    """The children in the order in which they answer; those that never do (training only) last."""
    returned: dict[str, str] = {}

    def listen(name: str, child: nn.Module) -> Any:
        def heard(module: nn.Module, args: Any, output: Any) -> None:
            returned.setdefault(name, shapes_of(output))

        return child.register_forward_hook(heard)

    handles = [listen(name, child) for name, child in model.named_children()]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    children = dict(model.named_children())
    order = [*returned, *(n for n in children if n not in returned)]
    return [_part(name, children[name], returned.get(name, "")) for name in order]


def _part(name: str, module: nn.Module, returned: str) -> Part:
    children = list(module.named_children())
    inner = []
    for label, child in children:
        several = isinstance(child, nn.ModuleList)
        inner.append(f"{label} × {len(child)}" if several else label)
    if children and all(label.isdigit() for label, _ in children):  # a list of like things
        inner = [f"{type(children[0][1]).__name__} × {len(children)}"]
    parameters = sum(p.numel() for p in module.parameters())
    return Part(name, type(module).__name__, tuple(inner), parameters, returned)


def shapes_of(output: Any) -> str:
    """Shapes without the batch: `96 × 40 × 40`, several in a row, records by their first field."""
    if isinstance(output, Tensor):
        return " × ".join(str(n) for n in output.shape[1:])
    if isinstance(output, list | tuple):
        shapes = list(dict.fromkeys(shapes_of(v) for v in output))
        return ",  ".join(s for s in shapes if s)
    fields = [v for v in vars(output).values() if isinstance(v, Tensor)]
    return ",  ".join(shapes_of(v) for v in fields)


def diagram(preset: str) -> str:
    """Inline SVG of a preset, in a frame that scrolls where it has to."""
    make, side = PRESETS[preset]
    model = make().build().eval()
    parts = parts_of(model, torch.zeros(1, 3, side, side))
    total = sum(p.parameters for p in parts)
    height = len(parts) * (ROW + GAP) + GAP + 20
    rows = "".join(_row(part, i, total) for i, part in enumerate(parts))
    said = f"{preset}: {', then '.join(p.name for p in parts)}; {total / 1e6:.1f} M parameters"
    return (
        f'<figure class="diagram" tabindex="0"><svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{html.escape(said)}"><title>{html.escape(said)}</title>'
        f'<text x="{WIDTH / 2}" y="14" class="quiet" text-anchor="middle">picture, 3 × {side} × '
        f"{side}</text>{rows}</svg></figure>"
    )


def _row(part: Part, number: int, total: int) -> str:
    y = GAP + 8 + number * (ROW + GAP)
    middle, wide, share = WIDTH / 2, WIDTH - 2 * PAD, part.parameters / total
    dash = "" if part.returned else ' stroke-dasharray="5 4"'
    arrow = f'<path class="arrow" d="M{middle} {y - GAP + 6}v{GAP - 10}m-4 -5l4 5l4 -5"/>'
    inner = " · ".join(part.inner) or "no parts"
    inner = inner if len(inner) < 70 else inner[:67] + "…"
    gives = f"→ {part.returned}" if part.returned else "in training only"
    text = [
        f'<text x="{PAD + 10}" y="{y + 22}"><tspan class="name">{part.name}</tspan>'
        f'<tspan class="quiet" dx="10">{part.kind}</tspan></text>',
        f'<text x="{WIDTH - PAD - 10}" y="{y + 22}" text-anchor="end" class="quiet">'
        f"{part.parameters / 1e6:.2f} M · {share:.0%}</text>",
        f'<text x="{PAD + 10}" y="{y + 42}" class="quiet">{html.escape(inner)}</text>',
        f'<text x="{PAD + 10}" y="{y + 61}" class="gives">{html.escape(gives)}</text>',
    ]
    box = (
        f'<rect class="part" x="{PAD}" y="{y}" width="{wide}" height="{ROW}" rx="7"{dash}/>'
        f'<rect class="share" x="{PAD}" y="{y + ROW - 4}" height="4" rx="2" '
        f'width="{max(2, wide * share):.0f}"/>'
    )
    title = f"<title>{part.name}: {part.kind}, {part.parameters:,} parameters</title>"
    return f"<g>{title}{arrow if part.returned else ''}{box}{''.join(text)}</g>"

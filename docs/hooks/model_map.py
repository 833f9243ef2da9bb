"""The map: one drawing of the architecture, on top of every chapter and notebook.

Names and places are written here; shapes, parameters and operations come from the model, which runs
once on a blank picture. Every part leads to its chapter, every number to its notebook.
"""

import html
from dataclasses import dataclass
from functools import cache

import torch
from diagrams import shapes_of
from reading import ROOT, notebooks, reading_order
from torch.utils.flop_counter import FlopCounterMode

import rtdetr_lab as lab

SIDE, WIDTH, HEIGHT = 640, 868, 254


@dataclass(frozen=True)
class Part:
    """A box: its chapter, its title, the modules it stands for, and x, y, width, height."""

    chapter: str
    title: str
    says: str
    modules: tuple[str, ...]
    box: tuple[int, int, int, int]


DECODER = "decoder.layers."
PARTS = (
    Part("rtdetr", "RT-DETR", "the complete model", ("",), (98, 12, 674, 158)),
    Part("backbone", "backbone", "S3 S4 S5", ("backbone",), (112, 68, 108, 60)),
    Part("hybrid_encoder", "hybrid encoder", "three maps, mixed", ("encoder",),
         (240, 36, 216, 122)),
    Part("aifi", "AIFI", "attention", ("encoder.aifi",), (252, 68, 88, 60)),
    Part("ccff", "CCFF", "fusion", ("encoder.ccff",), (358, 68, 88, 60)),
    Part("query_selection", "selection", "best tokens", ("to_memory", "proposal_head", "selection"),
         (476, 68, 112, 60)),
    Part("decoder", "decoder", "boxes move, layer by layer", ("decoder",), (608, 36, 152, 122)),
    Part("deformable_attention", "sampling", "a few points each", ("cross_attn",),
         (620, 68, 128, 60)),
    Part("boxes", "boxes", "and classes", (), (784, 68, 80, 60)),
    Part("denoising", "denoising", "training only", ("denoising",), (476, 194, 112, 56)),
    Part("losses", "losses", "training only", (), (608, 194, 112, 56)),
    Part("matching", "matching", "training only", (), (740, 194, 120, 56)),
)  # fmt: skip
OPEN = {"rtdetr", "hybrid_encoder", "decoder"}
"""Parts that hold others."""
ARROWS = "M82 98H106 M220 98H234 M340 98H352 M456 98H470 M588 98H602 M760 98H778 "
ARROWS += "M824 128V188 M740 222H726 M588 222H598V140H602"
ELSEWHERE = {"criterion": "losses", "rtdetrv2": "deformable_attention", "detr/model": "rtdetr"}
ELSEWHERE |= {"detr/resnet": "backbone", "detr/positions": "aifi", "detr/transformer": "decoder"}
ELSEWHERE |= {"detr/mask_head": "boxes", "detr/segmentation": "boxes", "detr/mask_losses": "losses"}
ELSEWHERE |= {
    "successors/hgnetv2": "backbone",
    "successors/gelan": "ccff",
    "successors/fdr": "decoder",
}
ELSEWHERE |= {"successors/dfine": "rtdetr", "successors/dfine_losses": "losses"}
ELSEWHERE |= {"successors/rtdetrv3": "rtdetr", "masks/query_masks": "boxes"}
ELSEWHERE |= {"successors/deim": "losses", "notation": "rtdetr", "structures/__init__": "rtdetr"}
"""The part that a chapter without a box of its own is about."""
LESSONS = {"15": "losses"}
"""Notebooks without a chapter are about the complete model, but for these."""


@cache
def costs() -> dict[str, str]:
    """Measure on the model: shapes, parameters and operations of each part."""
    model, said = lab.rtdetr_r18().build().eval(), {}
    named, heard = dict(model.named_modules()), {}

    def listen(name, module):
        def hear(module, given, output):
            heard[name] = shapes_of(output)

        module.register_forward_hook(hear)

    for name, module in named.items():
        listen(name, module)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, SIDE, SIDE))
    counts, root = counter.get_flop_counts(), type(model).__name__
    for part in PARTS:
        ends = [n for n in named if n.endswith(".cross_attn")]
        names = ends if part.modules == ("cross_attn",) else part.modules
        if not names:
            continue
        parameters = sum(p.numel() for n in names for p in named[n].parameters())
        flops = sum(sum(counts.get(f"{root}.{n}".rstrip("."), {}).values()) for n in names)
        returned = f"returns {heard[names[-1]]}; " if heard.get(names[-1]) else ""
        operations = f", {flops / 1e9:.2f} GFLOPs" if flops else ", in training only"
        said[part.chapter] = f"{returned}{parameters / 1e6:.2f} M parameters{operations}"
    return said


def part_of(page: str) -> str:
    """The part that `chapters/aifi` or `notebooks/06_aifi` is about."""
    folder, _, name = page.partition("/")
    if folder == "notebooks":
        steps = [s.chapters[0] for s in reading_order() if s.number == name[:2]]
        name = LESSONS.get(name[:2], steps[0] if steps else "rtdetr")
        name = "rtdetrv2" if name[:2] == "14" else name
    own = {part.chapter for part in PARTS}
    return name if name in own else ELSEWHERE.get(name, "rtdetr")


def model_map(home: str, here: str = "") -> str:
    """The drawing for a page from which `home` leads to the site's root."""
    told = costs()
    found = next((part for part in PARTS if part.chapter == here), None)
    hint = "Point at a part to see its shapes and its cost; click it to read its chapter."
    caption = f"<strong>You are here: {found.title}.</strong> {hint}" if found else hint
    lessons = {s.chapters[0]: s.number for s in reading_order() if s.number}
    stems = {path.stem[:2]: path.stem for path in notebooks()}
    drawn = "".join(
        _drawn(part, home, told, stems.get(lessons.get(part.chapter, "")), part is found)
        for part in PARTS
    )
    return (
        '<figure class="map" tabindex="0"><svg role="group" aria-label="Map of RT-DETR: picture, '
        f'backbone, hybrid encoder, query selection, decoder, boxes" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="5" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>'
        f"{drawn}{_picture()}{_arrows()}</svg>"
        f'<figcaption aria-live="polite">{caption}</figcaption></figure>'
    )


def _picture() -> str:
    words = f'<text x="41" y="94">picture</text><text x="41" y="114" class="says">{SIDE} × {SIDE}'
    return f'<g><rect class="part" x="4" y="68" width="74" height="60" rx="6"/>{words}</text></g>'


def _arrows() -> str:
    return "".join(f'<path class="arrow" d="{d}" marker-end="url(#tip)"/>' for d in _paths())


def _paths() -> list[str]:
    return ["M" + path.strip() for path in ARROWS.split("M") if path.strip()]


def _drawn(part: Part, home: str, told: dict[str, str], lesson: str | None, here: bool) -> str:
    x, y, width, height = part.box
    is_open = part.chapter in OPEN
    cost = told.get(part.chapter)
    info = html.escape(f"{part.title}: {part.says}{f'; {cost}' if cost else ''}")
    kind = " ".join(["part"] + ["open"] * is_open + ["here"] * here)
    kind += " training" if y > 170 else ""
    across = x + 12 if is_open else x + width / 2
    name = (
        f'<text x="{across}" y="{y + (19 if is_open else 27)}"{_start(is_open)}>{part.title}</text>'
    )
    says = "" if is_open else f'<text x="{across}" y="{y + 46}" class="says">{part.says}</text>'
    current = ' aria-current="location"' if here else ""
    chapter = (
        f'<a href="{home}chapters/{part.chapter}.html" data-info="{info}"{current}>'
        f"<title>{info}</title>"
        f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'
        f"{name}{says}</a>"
    )
    if lesson is None:
        return chapter
    right = x + width - 12
    title = f"Notebook {lesson[:2]}: {lesson[3:].replace('_', ' ')}"
    return (
        f'{chapter}<a href="{home}notebooks/{lesson}.html" data-info="{title}" class="lesson">'
        f'<title>{title}</title><circle cx="{right}" cy="{y + 2}" r="11"/>'
        f'<text x="{right}" y="{y + 6.5}">{lesson[:2]}</text></a>'
    )


def _start(is_open: bool) -> str:
    return ' class="start"' if is_open else ""


STYLE = """.page{fill:#fff}text{font:700 15px system-ui,sans-serif;fill:#1f2328;text-anchor:middle}
.start{text-anchor:start}.says{font-weight:400;font-size:13px;fill:#57606a}
.part{fill:#f6f8fa;stroke:#8c959f}.open{fill:none;stroke-dasharray:none}
.training{stroke-dasharray:5 4}.arrow{fill:none;stroke:#57606a;stroke-width:1.5}.tip{fill:#57606a}
circle{fill:#0969da}.lesson text{fill:#fff;font-size:12px}
@media (prefers-color-scheme:dark){.page{fill:#0d1117}text{fill:#e6edf3}
.says{fill:#9198a1}.part{fill:#161b22;
stroke:#6e7681}.open{fill:none}.arrow{stroke:#9198a1}.tip{fill:#9198a1}circle{fill:#1f6feb}}"""
PAGE = f'<style>{STYLE}</style><rect class="page" width="100%" height="100%" rx="8"/><defs>'
"""Colours of the file: it has a page of its own, since the page around it may not follow."""


def standalone() -> str:
    """The map as a file, for the README: one picture, without links."""
    figure = model_map("")
    drawing = figure[figure.index("<svg") : figure.index("</svg>")]
    drawing = drawing.replace("<a href", "<g data-to").replace("</a>", "</g>")
    head = '<svg xmlns="http://www.w3.org/2000/svg" '
    return drawing.replace("<svg ", head, 1).replace("<defs>", PAGE, 1) + "</svg>\n"


if __name__ == "__main__":
    (ROOT / "docs" / "img" / "map.svg").write_text(standalone(), encoding="utf8")

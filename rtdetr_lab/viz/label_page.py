"""# Label page: pictures with their labels, as one HTML file that opens offline

    pictures = figures(labelled, names)
    page = label_page("my_data", {"train": {"classes": bars(rows), "pictures": pictures}})

The page has no script, and its Content-Security-Policy allows none. Boxes and bars are elements
with numbers for a style, so they stay sharp and follow the light or dark mode of the reader. Every
name from outside goes through `text`.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.images.arrays import RGB
from rtdetr_lab.viz.exploration import data_uri
from rtdetr_lab.viz.palette import DARK, text_on
from rtdetr_lab.writing import printable, shorten

LONGEST = 480
"""Longest side of a picture in the page, in pixels."""

CROWDED = 12
"""With more boxes than this, names show only under the mouse."""

Finding = tuple[str, str]
"""Severity and text."""

PAGE = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf8"))


@dataclass(frozen=True, eq=False)
class Labelled:
    """A picture with boxes in its pixels, the labels of these, and what is wrong.

    `anchor` is the last part of its address in the page. `image` is None if it cannot be decoded.
    """

    name: str
    anchor: str
    image: RGB | None
    boxes_xyxy: Float[Tensor, "n 4"]
    labels: Sequence[int]
    findings: Sequence[Finding] = ()


def label_page(title: str, parts: Mapping[str, Mapping[str, str]]) -> str:
    """Return the whole page. `parts` are, by split, headings and HTML; links at the top lead to
    them."""
    links, body = "", ""
    for i, (split, inside) in enumerate(parts.items()):
        places = [(f"part{i}-{j}", head) for j, head in enumerate(inside)]
        heads = " ".join(f'<a href="#{place}">{text(head)}</a>' for place, head in places)
        links += f"<nav><b>{text(split)}</b> {heads}</nav>"
        for (place, head), inner in zip(places, inside.values(), strict=True):
            body += f'<h2 id="{place}">{text(split)}: {text(head)}</h2>{inner}'
    return PAGE.substitute(title=text(title), links=links, body=body)


def text(value: object) -> str:
    """Escape a text from outside: it stays text, on one line."""
    return html.escape(printable(str(value)))


def bars(rows: Iterable[tuple[str, int]], colored: bool = False) -> str:
    """Draw counts as bars; with `colored`, row k has the colour of class k in the pictures."""
    rows = list(rows)
    most = max((count for _, count in rows), default=0) or 1
    lines = []
    for label, (name, count) in enumerate(rows):
        color = DARK.color(label) if colored else "var(--bar)"
        style = f"width:{70 * count / most:.2f}%;background:{color}"
        lines.append(f'<dt>{text(name)}</dt><dd><i style="{style}"></i>{count}</dd>')
    return f"<dl>{''.join(lines)}</dl>"


def marked(severity: str, what: str) -> str:
    """Return a finding with its severity in front; `what` is HTML."""
    return f'<span class="{text(severity)}">{text(severity)}</span> {what}'


def figures(pictures: Iterable[Labelled], names: Sequence[str]) -> str:
    """Draw pictures in a grid, each with its boxes, class names and findings."""
    return f'<div class="grid">{"".join(_figure(one, names) for one in pictures)}</div>'


def _figure(one: Labelled, names: Sequence[str]) -> str:
    about, photo = f"{len(one.labels)} boxes", '<div class="photo"></div>'
    if one.image is not None:
        height, width = one.image.shape[:2]
        about = f"{width} × {height} · {about}"
        boxes = (_box(box, label, names, (height, width)) for box, label in _rows(one))
        crowded = " crowded" * (len(one.labels) > CROWDED)
        img = f'<img loading="lazy" alt="" src="{data_uri(one.image, LONGEST)}">'
        photo = f'<div class="photo{crowded}">{img}{"".join(boxes)}</div>'
    findings = "".join(f"<li>{marked(kind, text(what))}</li>" for kind, what in one.findings)
    listed = f"<ul>{findings}</ul>" if findings else ""
    caption = f"<figcaption>{text(one.name)}<div>{about}</div>{listed}</figcaption>"
    return f'<figure id="{text(one.anchor)}">{photo}{caption}</figure>'


def _rows(one: Labelled) -> Iterable[tuple[list[float], int]]:
    """Return boxes and labels, the largest box first: small ones lie on top."""
    rows = zip(one.boxes_xyxy.tolist(), one.labels, strict=True)
    return sorted(rows, key=lambda row: -(row[0][2] - row[0][0]) * (row[0][3] - row[0][1]))


def _box(box: list[float], label: int, names: Sequence[str], size: tuple[int, int]) -> str:
    height, width = size
    x0, y0, x1, y1 = box
    color, name = DARK.color(label), text(names[label])
    style = f"left:{100 * x0 / width:.3f}%;top:{100 * y0 / height:.3f}%;border-color:{color};"
    style += f"width:{100 * (x1 - x0) / width:.3f}%;height:{100 * (y1 - y0) / height:.3f}%"
    sides = "inside " * (y0 < 0.08 * height) + "right" * (x0 > 0.7 * width)
    paint = f'class="{sides}" style="background:{color};color:{text_on(color)}"'
    tag = f"<b {paint}>{text(shorten(names[label], 24))}</b>"
    return f'<i style="{style}" title="{name}">{tag}</i>'

"""The line of models: a chart and a timeline, drawn from the two tables of docs/line.md.

The tables own the numbers. Colours come from the theme, so that one drawing serves light and dark.
"""

import re
from html import escape

from reading import notebooks

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 700, 400, 46, 44, 14, 14
MS, AP = (0.0, 15.0), (42.0, 57.0)
SHAPES = {"RT-DETR": 0, "RT-DETRv2": 1, "RT-DETRv3": 2, "D-FINE": 3, "DEIM on D-FINE": 4}
SHAPES["DEIM on v2"] = 5
ROW = re.compile(r"^\|(.+)\|$", re.M)


def with_line(markdown: str, chapters: list[str]) -> str:
    """Replace the two marks of the page. The table of the timeline becomes a list."""
    if "<!-- line: chart -->" not in markdown:
        return markdown
    before, rest = markdown.split("<!-- line: timeline -->")
    dates, rest = rest.split("\n\nModels in italics", 1)
    numbers = [row for row in rows(rest) if len(row) == 7]
    drawn = before.replace("<!-- line: chart -->", chart(numbers))
    return f"{drawn}{timeline(rows(dates), chapters)}\n\nModels in italics{rest}"


def rows(text: str) -> list[list[str]]:
    """Cells of the rows of tables, without their heads."""
    found = [[cell.strip() for cell in row.split("|")] for row in ROW.findall(text)]
    return [row for row in found if not row[0].startswith("-") and row[0] not in ("date", "family")]


def place(ms: float, ap: float) -> tuple[float, float]:
    x = LEFT + (ms - MS[0]) / (MS[1] - MS[0]) * (WIDTH - LEFT - RIGHT)
    y = HEIGHT - BOTTOM - (ap - AP[0]) / (AP[1] - AP[0]) * (HEIGHT - TOP - BOTTOM)
    return round(x, 1), round(y, 1)


def chart(numbers: list[list[str]]) -> str:
    """AP over latency, one line per family, with a legend."""
    parts = [axes()]
    families: dict[str, list[tuple[str, float, float]]] = {}
    for family, model, _, _, ap, _, ms in numbers:
        families.setdefault(family, []).append((model, float(ms), float(ap)))
    for family, models in families.items():
        kind = SHAPES[family]
        points = [place(ms, ap) for _, ms, ap in models]
        way = " ".join(f"{x},{y}" for x, y in points)
        parts.append(f'<g class="family f{kind}"><polyline points="{way}"/>')
        for (x, y), (model, ms, ap) in zip(points, models, strict=True):
            title = f"{family} {model}: {ap} AP, {ms} ms"
            parts.append(f"{mark(kind, x, y)}<title>{escape(title)}</title></g>")
        parts.append("</g>")
        # Legend, from the bottom up, where no model is: slow and poor.
        x, y = place(9.6, 42.9 + 1.15 * (len(SHAPES) - 1 - kind))
        parts.append(f'<g class="family f{kind}">{mark(kind, x, y - 4)}</g></g>')
        parts.append(f'<text x="{x + 14}" y="{y}">{escape(family)}</text>')
    label = "AP on COCO over latency for six families of models; the newer, the further up and left"
    return (
        '<figure class="line-chart"><svg role="img" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="{label}">{"".join(parts)}</svg>'
        "<figcaption>AP on COCO val2017 over milliseconds on a T4, as published. Newer families "
        "lie further up and left. Drawn from <a href='#the-numbers'>the table below</a>."
        "</figcaption></figure>"
    )


def axes() -> str:
    parts = []
    for ap in range(42, 58, 3):
        (x0, y), (x1, _) = place(MS[0], ap), place(MS[1], ap)
        parts.append(f'<line class="grid" x1="{x0}" y1="{y}" x2="{x1}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{x0 - 6}" y="{y + 4}" text-anchor="end">{ap}</text>')
    for ms in range(0, 16, 3):
        x, y = place(ms, AP[0])
        parts.append(f'<text class="tick" x="{x}" y="{y + 17}" text-anchor="middle">{ms}</text>')
    x, _ = place(7.5, AP[0])
    parts.append(f'<text x="{x}" y="{HEIGHT - 6}" text-anchor="middle">ms per picture</text>')
    parts.append(f'<text x="{LEFT + 6}" y="{TOP + 6}">AP</text>')
    return "".join(parts)


def mark(kind: int, x: float, y: float) -> str:
    """A mark with a shape of its own; the group stays open for a title."""
    sides = {1: "0,-6 6,5 -6,5", 2: "-5,-5 5,-5 5,5 -5,5", 3: "0,-7 6,0 0,7 -6,0"}
    sides |= {4: "0,-7 2,-2 7,-2 3,2 4,7 0,4 -4,7 -3,2 -7,-2 -2,-2", 5: "0,6 6,-5 -6,-5"}
    head = f'<g class="mark" transform="translate({x},{y})">'
    return head + (f'<polygon points="{sides[kind]}"/>' if kind else '<circle r="5"/>')


def timeline(dates: list[list[str]], chapters: list[str]) -> str:
    """One entry per model: date, name, what changed, two results, links to the chapters."""
    items, stems = [], {path.stem[:2]: path.stem for path in notebooks()}
    for date, model, changed, paper, lab, where in dates:
        links = []
        for entry in where.split(", "):
            name, _, number = entry.partition(" ")
            stem = name.split("/")[-1]
            shown = f"{stem} ({number})" if number else stem
            links.append(f"[{shown}](chapters/{name}.md)" if name in chapters else shown)
        lab = re.sub(r"notebook (\d\d)", lambda m: f"[{m[0]}](notebooks/{stems[m[1]]}.md)", lab)
        context = ' class="context"' if model.startswith("*") else ""
        result = "" if paper == "context" else f"**Paper:** {paper}.<br>"
        items.append(
            f'<li{context} markdown="span"><span class="date">{date}</span> **{model}** '
            f"{changed}<br>{result}**Lab:** {lab}.<br>**Code:** {', '.join(links)}</li>"
        )
    return '<ol class="line" markdown="1">\n' + "\n".join(items) + "\n</ol>"

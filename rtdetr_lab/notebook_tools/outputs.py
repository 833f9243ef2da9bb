"""# Outputs: make the outputs of a run reproducible

We remove execution counts, times and widget state, join the text of a stream, and compress figures.
A figure has two pixels for every pixel of its width on the page, unless its notebook would become
too large (`halved`). Every figure needs an alternative text. An output that differs from run to run
is an error: an address in memory, a warning on stderr.
"""

import base64
import io
import re
from typing import Any

from rtdetr_lab.config import require
from rtdetr_lab.errors import ConfigError

VIEW = "application/vnd.jupyter.widget-view+json"
STILL = "<p><em>Interactive: run this cell to move it.</em></p>"
PICTURES = ("image/png", "image/jpeg")
GOOD_SIZE = 20_000
"""Maximum bytes of a figure as palette PNG, which has sharp letters and exact colours."""

ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}|object at 0x")


def normalised(notebook: Any, where: str) -> Any:
    """Remove everything from an executed notebook that depends on time or machine."""
    notebook.metadata.pop("widgets", None)
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        place = f"{where}, cell {number} ({cell.source.strip().splitlines()[0][:50]!r})"
        cell.execution_count = None
        cell.metadata.pop("execution", None)
        cell.outputs = _outputs(cell, place)
    return notebook


def _outputs(cell: Any, place: str) -> list[Any]:
    kept: list[Any] = []
    for output in cell.outputs:
        if output.output_type == "stream":
            _add_text(kept, output, place)
            continue
        if output.output_type == "error":
            raise ConfigError(place, f"{output.ename}: {output.evalue}", "make the cell run")
        output.pop("execution_count", None)
        output.output_type = "display_data"
        output.data, output.metadata = dict(output.data), dict(output.metadata)
        kept.append(_still(output))
    figures = [o for o in kept if o.output_type == "display_data" and _picture_of(o)]
    if figures:
        kept = [o for o in kept if o in figures or not _is_artist(o)]
    _describe(figures, cell.metadata.get("alt", []), place)
    for output in kept:
        text = output.get("text", "") or output.get("data", {}).get("text/plain", "")
        what = f"prints an address: {text.strip()[:80]}"
        remedy = "assign the value to a name, or print a part of it"
        require(not ADDRESS.search(text), place, what, remedy)
    return kept


def _add_text(kept: list[Any], output: Any, place: str) -> None:
    if output.name == "stderr":
        raise ConfigError(place, f"writes to stderr: {output.text.strip()[:300]}", "fix its cause")
    if kept and kept[-1].output_type == "stream":
        kept[-1].text += output.text
    else:
        kept.append(output)


def _still(output: Any) -> Any:
    """Replace the view of a widget, which needs a kernel, by its static HTML."""
    if output.data.pop(VIEW, None) is not None and "text/html" not in output.data:
        output.data = {"text/html": STILL, "text/plain": "(interactive)"}
    return output


def _picture_of(output: Any) -> str:
    return next((mime for mime in PICTURES if mime in output.get("data", {})), "")


def _is_artist(output: Any) -> bool:
    text = output.get("data", {}).get("text/plain", "")
    return text.startswith("Text(") or "<Axes" in text or "matplotlib." in text


def _describe(figures: list[Any], alts: list[str], place: str) -> None:
    what = f"{len(figures)} figures and {len(alts)} alternative texts"
    remedy = "begin the cell with one `# alt: …` line per figure"
    require(len(figures) == len(alts), place, what, remedy)
    for output, alt in zip(figures, alts, strict=True):
        if _picture_of(output) not in output.metadata:  # otherwise it is compact already
            _compress(output)
        output.data["text/plain"] = output.metadata[_picture_of(output)]["alt"] = alt


def halved(notebook: Any) -> bool:
    """Halve the pixels of the largest figure that has two per pixel of its width, if any."""
    every = [o for c in notebook.cells for o in c.get("outputs", [])]
    sharp = [o for o in every if "width" in o.get("metadata", {}).get(_picture_of(o), {})]
    if sharp:
        _compress(max(sharp, key=lambda o: len(o.data[_picture_of(o)])), parts=2, quality=72)
    return bool(sharp)


def _compress(output: Any, parts: int = 1, quality: int = 45) -> None:
    """Replace a figure; its width on the page is stored if it has two pixels for each of it."""
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(output.data.pop(_picture_of(output)))))
    kind, data = compact(picture.convert("RGB").reduce(parts), quality)
    output.data[kind] = base64.b64encode(data).decode()
    width = {"width": picture.width // 2} if parts == 1 else {}
    output.metadata = {kind: {"alt": output.data.get("text/plain"), **width}}


def compact(picture: Any, quality: int) -> tuple[str, bytes]:
    """Compress a figure: a palette PNG if that is small, else a JPEG if that is smaller."""
    png = _saved(_few_colours(picture), "PNG", optimize=True)
    if len(png) <= GOOD_SIZE:
        return "image/png", png
    jpeg = _saved(picture, "JPEG", quality=quality, optimize=True, progressive=True)
    return ("image/jpeg", jpeg) if len(jpeg) < len(png) else ("image/png", png)


def _few_colours(picture: Any) -> Any:
    """Quantize to the most frequent colours and ours, so that no small mark turns grey."""
    from PIL import Image

    from rtdetr_lab.viz.palette import OKABE_ITO, rgb

    picture = picture.point(lambda part: 255 if part > 240 else part)  # a page that is truly white
    common = picture.quantize(88, dither=Image.Dither.NONE).getpalette()[: 3 * 88]
    ours = [part for color in (*OKABE_ITO, "#FFFFFF") for part in rgb(color)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(common + ours)
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def _saved(picture: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()

r"""# Slider: one picture per value, live in a notebook and on a page without a kernel

    slider(lambda layer: sampling_panels({"": looks[layer]}, image), layer=range(3), alt="…")

Every frame is drawn once. In a running notebook an ipywidgets slider shows them. On a page without
a kernel, radio buttons show the same frames. They work with the arrow keys, and without a script.
"""

import base64
import html
import io
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rtdetr_lab.config import require

_numbers = itertools.count()

STYLE = """<style>
.frames img { display: none; max-width: 100%; }
.frames label { margin-right: 1em; }
.frames input:focus-visible + label { outline: 2px solid currentColor; }
</style>"""


@dataclass(frozen=True, eq=False)
class Frames:
    """Pictures (WebP), one per value."""

    name: str
    values: tuple[Any, ...]
    pictures: tuple[bytes, ...]
    alt: str

    def widget(self) -> Any:
        """Return a slider over the frames, for a running notebook."""
        from ipywidgets import HTML, Image, SelectionSlider, VBox

        options = [(str(value), place) for place, value in enumerate(self.values)]
        chosen = SelectionSlider(options=options, description=self.name, value=0)
        picture = Image(value=self.pictures[0], format="webp")

        def show(change: Any) -> None:
            picture.value = self.pictures[change["new"]]

        chosen.observe(show, names="value")
        parts = [chosen, picture, HTML(html.escape(self.alt))]
        return VBox(parts, layout={"align_items": "flex-start"})  # at its own size, not stretched

    def page(self) -> str:
        """Return the frames as HTML that needs neither script nor network."""
        group = f"frames-{self.name}-{next(_numbers)}"
        inputs, images, rules = [], [], []
        for place, (value, data) in enumerate(zip(self.values, self.pictures, strict=True)):
            ident, words = f"{group}-{place}", f"{self.name} {value}"
            checked = " checked" * (place == 0)
            inputs.append(f'<input type="radio" name="{group}" id="{ident}"{checked}>')
            inputs.append(f'<label for="{ident}">{html.escape(words)}</label>')
            coded, alt = base64.b64encode(data).decode(), html.escape(f"{self.alt} ({words})")
            images.append(f'<img class="{ident}" alt="{alt}" src="data:image/webp;base64,{coded}">')
            rules.append(f"#{ident}:checked ~ .{ident} {{ display: block; }}")
        style = STYLE.replace("</style>", "\n".join(rules) + "</style>")
        body, name = "".join([style, *inputs, *images]), html.escape(self.name)
        return f'<div class="frames" role="group" aria-label="{name}">{body}</div>'

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = self.widget()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, "text/html": self.page(), "text/plain": self.alt}, metadata


def slider(draw: Callable[[Any], Any], alt: str, dpi: int = 110, **values: Iterable[Any]) -> Frames:
    """Draw a figure for every value of the keyword; `alt` describes the figures.

    Raises `ConfigError` unless there is exactly one keyword, with at least one value.
    """
    require(len(values) == 1, "slider", f"{len(values)} keywords", "give one: layer=range(3)")
    ((name, wanted),) = values.items()
    require(name.isidentifier(), f"slider {name!r}", "is no name", "give one like layer")
    chosen = tuple(wanted)
    require(bool(chosen), f"slider {name}", "has no values", "give at least one")
    return Frames(name, chosen, tuple(_drawn(draw, value, dpi) for value in chosen), alt)


def _drawn(draw: Callable[[Any], Any], value: Any, dpi: int) -> bytes:
    import matplotlib.pyplot as plt

    before = set(plt.get_fignums())
    draw(value)
    (number,) = set(plt.get_fignums()) - before or {plt.gcf().number}
    figure, picture = plt.figure(number), io.BytesIO()
    small = {"quality": 60, "method": 6}
    figure.savefig(picture, format="webp", dpi=dpi, bbox_inches="tight", pil_kwargs=small)
    plt.close(figure)
    return picture.getvalue()

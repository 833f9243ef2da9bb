r"""# Explorer: click an object, see why it was found

    explored = lab.explore(detector, "picture.png")
    explored.widget()            # in a notebook
    explored.save("page.html")   # one file, opens offline

A click or the arrow keys select a query; the picture then shows where it looked, in which layer,
with which head, on which level, whom it listened to, and how its box came about. Selecting needs no
kernel: all numbers travel once (`exploration.py`). The kernel is told all the same, so that
`widget.query`, `.layer`, `.head` and `.level` can be read, observed and set in Python.
"""

import html
from typing import Any

import anywidget
import traitlets

from rtdetr_lab.viz.explorer_page import SCRIPT, Packed, page


class Explorer(anywidget.AnyWidget):
    """The widget. `query` counts the explored queries from the best; -1 for layer, head or level
    means the last layer, all heads, all levels."""

    _esm = SCRIPT
    meta = traitlets.Dict().tag(sync=True)
    data = traitlets.Bytes().tag(sync=True)
    query = traitlets.Int(0).tag(sync=True)
    layer = traitlets.Int(-1).tag(sync=True)
    head = traitlets.Int(-1).tag(sync=True)
    level = traitlets.Int(-1).tag(sync=True)

    def __init__(self, explored: Packed, **kwargs: Any) -> None:
        meta, data = explored.payload
        self.num_queries = meta["layout"]["kept"]["shape"][0]
        super().__init__(meta=meta, data=data, **kwargs)

    @traitlets.validate("query")
    def _known_query(self, proposal: Any) -> int:
        value = int(proposal["value"])
        if not 0 <= value < self.num_queries:
            what = f"query: {value} is not one of the {self.num_queries} explored ones"
            raise traitlets.TraitError(what)
        return value


def frame(explored: Packed, height: int = 620) -> str:
    """The page in a sandboxed frame, for the HTML of a notebook or a site."""
    inside = html.escape(page(explored), quote=True)
    look = f'style="width:100%;height:{height}px;border:0" loading="lazy"'
    return f'<iframe title="Explorer" sandbox="allow-scripts" {look} srcdoc="{inside}"></iframe>'

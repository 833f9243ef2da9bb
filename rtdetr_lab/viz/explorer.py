r"""# Explorer: click an object to see why it was found

    explored = lab.explore(detector, "picture.png")
    explored.widget()            # in a notebook
    explored.save("page.html")   # one file, opens offline

A click or the arrow keys select a query. The picture then shows its sampling points per layer, head
and level, the queries that it attends to, and the steps of its box. Selecting needs no kernel: the
page has all numbers (`exploration.py`). The kernel still gets the selection, so that you can read,
observe and set `widget.query`, `.layer`, `.head` and `.level` in Python.
"""

import html
from typing import Any

import anywidget
import traitlets

from rtdetr_lab.viz.explorer_page import SCRIPT, Packed, page


class Explorer(anywidget.AnyWidget):
    """Widget of the explorer.

    `query` counts the explored queries from the best. -1 means the last layer, all heads or all
    levels.
    """

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
            what = f"query: {value} is not an explored query; use 0 … {self.num_queries - 1}"
            raise traitlets.TraitError(what)
        return value


def frame(explored: Packed, height: int = 620) -> str:
    """Return the page in a sandboxed frame, for the HTML of a notebook or a site."""
    inside = html.escape(page(explored), quote=True)
    look = f'style="width:100%;height:{height}px;border:0" loading="lazy"'
    return f'<iframe title="Explorer" sandbox="allow-scripts" {look} srcdoc="{inside}"></iframe>'

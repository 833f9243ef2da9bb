r"""# Explorer page: the explorer as one file without dependencies

The page uses the same `explorer.js` as JupyterLab. An object replaces the kernel: it implements
`get` and ignores `save_changes`. The page contains script, style, picture and numbers. Its
Content-Security-Policy blocks everything else, so a class called `<img onerror=…>` is only text on
the screen.
"""

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from rtdetr_lab.writing import write_text

SCRIPT = Path(__file__).with_name("explorer.js")
ALONE = SCRIPT.with_name("alone.js")
PAGE = Template(SCRIPT.with_name("explorer_page.html").read_text(encoding="utf8"))


@runtime_checkable
class Packed(Protocol):
    """Protocol of an `Exploration`, from which a page is made."""

    @property
    def payload(self) -> tuple[dict[str, Any], bytes]:
        """Pair (description for JSON, bytes)."""


def page(
    explored: Packed,
    script: str | None = None,
    boot: str = "alone();",
    more: Mapping[str, Any] = MappingProxyType({}),
    loads: str = "",
) -> str:
    """Return the whole page as text; it opens offline and loads nothing.

    A live page has another `script` and `boot`, `more` in its description, and `loads` its files.
    """
    meta, data = explored.payload
    own = script or SCRIPT.read_text(encoding="utf8")
    code = f"{own}{ALONE.read_text(encoding='utf8')}{boot}"
    return PAGE.substitute(
        policy=_policy(code, loads),
        title=html.escape(f"{meta['title']} · explorer".lstrip(" ·")),
        meta=_json_inside_script({**meta, **more}),
        data=base64.b64encode(data).decode(),
        script=code,
    )


def write_page(explored: Packed, path: str | Path) -> Path:
    """Write the page; return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page(explored))
    return path


def _policy(script: str, loads: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = " blob:" if loads else ""  # a picture that the reader opens
    allowed = f"script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:{own}"
    worker = f"worker-src 'self'; {loads}" if loads else ""
    return f"default-src 'none'; {allowed}; {worker}base-uri 'none'; form-action 'none'"


def _json_inside_script(value: Any) -> str:
    """Encode JSON so that no text can end its script element."""
    text = json.dumps(value, ensure_ascii=True)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")

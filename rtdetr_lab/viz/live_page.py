r"""# Live page: the explorer with a model that answers in the browser

`write_live` makes a folder. Its page is the explorer (`explorer_page.py`) with a scene to draw in
and switches that change the running model (`playground.js`). A worker (`live_worker.js`) loads the
runtime and the model when the reader first touches the page. Both are compressed. A browser loads
them from a server only, not from a disk: `python -m http.server` is enough.

The page loads files of its own folder and nothing else, and sends nothing: its policy says so.
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetr_lab.notation import Size
from rtdetr_lab.viz.explorer_page import SCRIPT, Packed, page

PLAYGROUND = SCRIPT.with_name("playground.js")
WORKER = SCRIPT.with_name("live_worker.js")
BOOT = 'fitFrame(); playground(document.getElementById("explorer"), ...contents());'


@dataclass(frozen=True, kw_only=True)
class Live:
    """Content of a live page: an ONNX file with taps and switches, and the runtime's two files.

    `input` is the model's (height, width). `scene` is the seed of the first drawn scene; without
    one the scene is the explored picture. `chapters` is the address of the site's chapters.
    """

    model: bytes
    runtime: Mapping[str, bytes]
    input: Size
    most: int = 60
    scene: int | None = None
    chapters: str | None = None


def live_files(explored: Packed, live: Live) -> dict[str, bytes]:
    """Return the files of the folder by name."""
    files = {
        "model.bin": gzip.compress(live.model, 6, mtime=0),
        "runtime.bin": gzip.compress(live.runtime["ort.wasm"], 6, mtime=0),
        "ort.mjs": live.runtime["ort.mjs"],
        "live_worker.js": WORKER.read_bytes(),
    }
    roles = {"model": "model.bin", "runtime": "runtime.bin"}
    roles |= {"script": "ort.mjs", "worker": "live_worker.js"}
    told: dict[str, Any] = {
        "files": {role: {"name": n, "bytes": len(files[n])} for role, n in roles.items()},
        "input": live.input,
        "most": live.most,
        "scene": live.scene,
        "chapters": live.chapters,
    }
    scripts = [path.read_text(encoding="utf8") for path in (SCRIPT, PLAYGROUND)]
    text = page(explored, "".join(scripts), BOOT, {"live": told}, "connect-src 'self'; ")
    return {"index.html": text.encode(), **files}


def write_live(explored: Packed, live: Live, folder: str | Path) -> Path:
    """Write the folder; return the path of its page."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, content in live_files(explored, live).items():
        (target / name).write_bytes(content)
    return target / "index.html"

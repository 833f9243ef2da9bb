"""# Explore: run a detector once, and keep what its queries did

    explored = lab.explore(detector, "picture.png")
    explored.widget()              # in a notebook: click, slide, step with the keyboard
    explored.save("page.html")     # one file that opens offline
    write_live(explored, live(detector, web_runtime()), "folder")     # the model runs in the page

This module connects a model with `viz/explorer*`, which take tensors and pictures but never a
model. The verb `explore` writes the page.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_lab.commands.base import DONE, PictureCommand, say
from rtdetr_lab.config import require
from rtdetr_lab.errors import ConfigError, RecordError
from rtdetr_lab.writing import writing

if TYPE_CHECKING:
    from rtdetr_lab.detector import Detector
    from rtdetr_lab.notation import Size
    from rtdetr_lab.viz.exploration import Exploration
    from rtdetr_lab.viz.live_page import Live

TAPS = ("backbone.*", "decoder.*", "selection.*", "proposal_head.*")
"""Taps to record; a model that lacks one of them cannot be explored."""

LIVE_TAPS: tuple[str, ...] = ("proposal_head.*", "selection.index")
LIVE_TAPS += ("decoder.layers.*", "decoder.boxes.*", "decoder.logits.*")
"""Taps that the graph of a live page returns."""


def explore(detector: "Detector", picture: Any, most: int = 60) -> "Exploration":
    """Record what the `most` best queries of a picture did. `picture` is anything that a `Detector`
    takes.

    Raises `ImageError` for a picture that cannot be read, and `ConfigError` for a model without
    deformable attention (DETR).
    """
    import torch

    from rtdetr_lab.deformable_attention import points_per_level
    from rtdetr_lab.images.decode import decode
    from rtdetr_lab.taps import record
    from rtdetr_lab.viz.exploration import exploration

    model: Any = detector.model
    require(not model.training, "explore", "the model is in training mode", "call model.eval()")
    rgb = decode(picture, detector.limits)
    images = detector.preprocess(rgb)[None].to(next(model.parameters()))
    try:
        with torch.no_grad(), record(model, keep=TAPS) as seen:
            prediction = model(images)
    except RecordError as error:  # the model has no such taps
        what = f"{type(model).__name__} has no sampling points"
        raise ConfigError("explore", what, "explore an RT-DETR or RT-DETRv2") from error
    cfg = model.cfg.decoder
    return exploration(
        prediction,
        seen,
        rgb,
        detector.classes.names,
        points_per_level(cfg.num_points, cfg.num_levels),
        level_shapes(seen, cfg.num_levels),
        most=most,
        title=Path(picture).name if isinstance(picture, str | PathLike) else "picture",
    )


def live(detector: "Detector", runtime: Mapping[str, bytes], **settings: Any) -> "Live":
    """Return what a live page of `detector` runs; `settings` are those of `Live`."""
    from rtdetr_lab.deployment.tapped import onnx_with_taps
    from rtdetr_lab.model import declared
    from rtdetr_lab.viz.live_page import Live

    model = copy.deepcopy(detector.model).cpu()
    size = declared(model).metadata.fixed_size
    file = onnx_with_taps(model, LIVE_TAPS, size, switches=True)
    return Live(model=file, runtime=runtime, input=size, **settings)


def level_shapes(seen: Mapping[str, Any], num_levels: int) -> list["Size"]:
    """Return (height, width) of the decoder's levels; after S5 each is half the one before."""
    names = [name for name in ("backbone.S3", "backbone.S4", "backbone.S5") if name in seen]
    shapes = [(int(seen[name].shape[-2]), int(seen[name].shape[-1])) for name in names]
    while len(shapes) < num_levels:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes[:num_levels]


@dataclass(frozen=True, kw_only=True)
class Explore(PictureCommand):
    """Write a page in which a click shows where a query sampled. It opens offline."""

    out: Path = Path("explorer.html")
    """File for the page."""
    queries: int = 60
    """Number of best queries that you can select."""
    live: bool = False
    """Write a folder with a page in which the model runs; a server has to serve it."""
    runtime: Path | None = None
    """With --live: the file of `npm pack onnxruntime-web`; default: download it once."""

    def run(self) -> int:
        detector = self.detector()
        explored = explore(detector, self.picture(), most=self.queries)
        if self.live:
            return self._write_live(detector, explored)
        with writing(self.out):
            path = explored.save(self.out)
        say(f"{path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser")
        return DONE

    def _write_live(self, detector: "Detector", explored: "Exploration") -> int:
        from rtdetr_lab.deployment.web_runtime import web_runtime
        from rtdetr_lab.viz.live_page import write_live

        folder = self.out.with_suffix("")
        runs = live(detector, web_runtime(self.runtime), most=self.queries)
        with writing(folder):
            write_live(explored, runs, folder)
        say(f"{folder}: type python -m http.server -b 127.0.0.1 -d {folder}")
        say("then open http://127.0.0.1:8000 in a browser")
        return DONE

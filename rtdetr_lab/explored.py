r"""# Explore: run a detector once, and keep what its queries did

    explored = explore(detector, "picture.png")
    explored.widget()              # in a notebook: click, slide, step with the keyboard
    explored.save("page.html")     # one file that opens offline

The bridge between a model and `viz/explorer*`, which take tensors and pictures and never a model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.deformable_attention import DeformableAttention
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.images.decode import decode, describe
from rtdetr_lab.notation import Size
from rtdetr_lab.taps import record
from rtdetr_lab.viz.exploration import Exploration, exploration
from rtdetr_lab.viz.explorer_page import write_page

if TYPE_CHECKING:
    from rtdetr_lab.viz.explorer import Explorer

TAPS = ("backbone.*", "decoder.*", "selection.*", "proposal_head.*")


@dataclass(frozen=True, eq=False)
class Explored:
    """One picture, seen by one detector."""

    exploration: Exploration

    def widget(self) -> "Explorer":
        """The live explorer, for a notebook."""
        from rtdetr_lab.viz.explorer import Explorer

        return Explorer(self.exploration)

    def save(self, path: str | Path) -> Path:
        """The explorer as one HTML file."""
        return write_page(self.exploration, path)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.widget()._repr_mimebundle_(**kwargs)


@torch.no_grad()
def explore(detector: Detector, picture: Any, most: int = 60) -> Explored:
    """What the `most` best queries of a picture did. Takes whatever a `Detector` takes, one of it.

    Raises `ImageError` for a picture that cannot be read and `ConfigError` for a model that has no
    deformable attention to look into (DETR).
    """
    model = detector.model
    sampling = next((m for m in model.modules() if isinstance(m, DeformableAttention)), None)
    if sampling is None:
        what = f"{type(model).__name__} has no sampling points"
        raise ConfigError("explore", what, "explore an RT-DETR or RT-DETRv2")
    require(not model.training, "explore", "the model is in training mode", "call model.eval()")
    rgb = decode(picture, detector.limits)
    images = detector.preprocess(rgb)[None].to(next(model.parameters()))
    with record(model, keep=TAPS) as seen:
        prediction = model(images)
    return Explored(
        exploration(
            prediction,
            seen,
            rgb,
            detector.classes.names,
            sampling.points,
            _shapes(seen, len(sampling.points)),
            most=most,
            title=Path(describe(picture)).name if isinstance(picture, str | Path) else "picture",
        )
    )


def _shapes(seen: Mapping[str, Tensor], num_levels: int) -> list[Size]:
    """(height, width) of the decoder's levels; beyond S5 each is half the one before."""
    names = [name for name in ("backbone.S3", "backbone.S4", "backbone.S5") if name in seen]
    shapes = [(int(seen[name].shape[-2]), int(seen[name].shape[-1])) for name in names]
    while len(shapes) < num_levels:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes[:num_levels]

"""# Demo: what the embedded model can do, and what it cannot

It runs offline, in seconds, on two pictures. `nano` was trained on shapes, but not on photos.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_lab.commands.base import DONE, Command, say
from rtdetr_lab.commands.detect import introduce
from rtdetr_lab.writing import writing

if TYPE_CHECKING:
    from rtdetr_lab.detector import Detector

NEXT = """\
nano is 3 MB and was trained on nothing but shapes, so its detections in a photo mean nothing.
For photos, use a model trained on COCO's 80 classes (80 MB, downloaded once):
    rtdetr-lab detect PICTURE --model r18
To compare the same weights in transformers' code, stage by stage:
    rtdetr-lab verify nano"""


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Detect in a picture of shapes, and in a photo, with the embedded model."""

    out: Path = Path("out")
    """Folder for the annotated pictures."""

    def run(self) -> int:
        from skimage.data import chelsea

        from rtdetr_lab.checkpoints.source import ASSETS
        from rtdetr_lab.detector import Detector

        detector = Detector.from_pretrained("name:nano", "cpu")
        introduce("nano", detector)
        with writing(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        say("\nA picture of the shapes world that was not in the training data:")
        self._show(detector, ASSETS / "shapes.png", "demo_shapes.png")
        say("\nA photo of a cat:")
        self._show(detector, chelsea(), "demo_photo.png")
        say(f"\n{NEXT}")
        return DONE

    def _show(self, detector: "Detector", picture: Any, name: str) -> None:
        detector(picture)  # the first call also pays for allocations and thread pools
        start = time.perf_counter()
        found = detector(picture)
        took = time.perf_counter() - start
        with writing(self.out / name):
            path = found.save(self.out / name)
        say(f"{found}\ndetected in {took * 1000:.0f} ms, drawn in {path}")

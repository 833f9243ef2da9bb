"""# Demo: what the embedded model can do, and what it cannot

Offline, in seconds: shapes, which `nano` has learned, and a photo, of which it knows nothing.
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
nano is 3 MB and has seen nothing but shapes: whatever it says about a photo means nothing, and it
had better be silent. For photos, a model that has learned COCO's 80 classes (80 MB, once):
    rtdetr-lab detect PICTURE --model r18
The same weights in transformers' code, stage by stage:
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
        say("\nA picture of the shapes world, which it has not seen in training:")
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

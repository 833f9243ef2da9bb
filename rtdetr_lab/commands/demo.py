"""# Demo: one picture, from a model to boxes, and a check of our numbers

Until a trained checkpoint lies in `assets/`, the demo runs a small seeded model that has learned
nothing, and says so: it shows that everything works, not that it detects.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rtdetr_lab.commands.base import DONE, Command, say
from rtdetr_lab.commands.detect import introduce
from rtdetr_lab.commands.verify import Verify

if TYPE_CHECKING:
    from torch import nn

    from rtdetr_lab.detector import Detector

UNTRAINED = """\
This model is untrained: its weights are seeded noise and its boxes mean nothing. What you see is
that a picture goes in and boxes come out. For one that has learned (80 MB from the hub):
rtdetr-lab detect PICTURE --model r18"""
ROWS, SIZE = 5, (320, 320)


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Detect on a sample photo, write the annotated picture, and verify against transformers."""

    out: Path = Path("out")
    """Folder for the annotated picture."""
    verify: bool = True
    """Compare the model with transformers' stage by stage, where that is installed."""

    def run(self) -> int:
        from skimage.data import chelsea

        detector = self._detector()
        picture = chelsea()
        detector(picture)  # the first call also pays for allocations and thread pools
        start = time.perf_counter()
        found = detector(picture)
        took = time.perf_counter() - start

        self.out.mkdir(parents=True, exist_ok=True)
        target = found[:ROWS].save(self.out / "demo.jpg")
        say(f"\n{found[:ROWS]}\n")
        say(f"one picture took {took * 1000:.0f} ms → {target}")
        return self._verified(detector.model) if self.verify else DONE

    def _detector(self) -> "Detector":
        from rtdetr_lab.checkpoints.source import ASSETS
        from rtdetr_lab.detector import Detector

        if (ASSETS / "nano.safetensors").is_file():
            detector = Detector.from_pretrained("nano", "cpu")
            introduce("nano", detector)
            return detector
        say(UNTRAINED)
        return Detector(untrained(), size=SIZE, threshold=0.0)

    def _verified(self, model: "nn.Module") -> int:
        from rtdetr_lab.checkpoints.metadata import metadata_for
        from rtdetr_lab.checkpoints.save import save_pretrained

        # What nano brings along, or what a model without any history needs to be saved.
        cfg: Any = model.cfg
        known = getattr(model, "metadata", None) or metadata_for(cfg.num_classes, image_size=SIZE)
        say("\nthe same weights in transformers:")
        with TemporaryDirectory() as folder:
            save_pretrained(model, folder, metadata=known)
            return Verify(model=folder).run()


def untrained() -> "nn.Module":
    """`rtdetr_nano` with seeded weights, the same on every machine."""
    import torch

    from rtdetr_lab.rtdetr import rtdetr_nano

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return rtdetr_nano(num_classes=8).build().eval()

"""# Figures: the pictures of the README and the site, drawn again by one command

`make figures`, or `python docs/hooks/figures.py [FOLDER]`. Every figure is a function without
arguments that returns RGB; a figure that cannot be drawn yet is named, with what it waits for, and
the command then ends with 1.
"""

import io
import json
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

import rtdetr_lab as lab
from rtdetr_lab.data.shapes import DEFAULT, SHAPE_NAMES, VAL, ShapesConfig, draw
from rtdetr_lab.data.shapes_printed import printed
from rtdetr_lab.data.shapes_worlds import WORLDS
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import LabError
from rtdetr_lab.images.arrays import RGB, RGBs
from rtdetr_lab.viz.boxes import annotate
from rtdetr_lab.viz.canvas import new_grid, themed
from rtdetr_lab.viz.masks import paint_masks
from rtdetr_lab.viz.palette import DARK, LIGHT, Palette
from rtdetr_lab.viz.training import validation_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOME = Path(__file__).resolve().parents[1] / "img"
PICTURES = (0, 1, 2)
"""Which validation pictures are shown: the first ones, not the best ones."""
RESULTS = HOME.parent / "results" / "data"
BCCD = {
    "from nano": "bccd_from_nano.jsonl",
    "from scratch": "bccd_from_scratch.jsonl",
    "from scratch, longer": "bccd_from_scratch_26000.jsonl",
}
"""The records the curves are drawn from."""


def in_a_row(pictures: RGBs, gap: int = 8) -> RGB:
    """Pictures of one height in a row, white between them."""
    white = np.full((pictures[0].shape[0], gap, 3), 255, dtype=np.uint8)
    spaced = [part for picture in pictures for part in (white, picture)][1:]
    return np.concatenate(spaced, axis=1)


def world(config: ShapesConfig = DEFAULT) -> RGB:
    """A drawn world with its truth."""
    shown = []
    for index in PICTURES:
        truth = draw(config, VAL, index)
        names = [config.names[label] for label in truth.labels]
        colors = [LIGHT.color(int(label)) for label in truth.labels]
        shown.append(annotate(truth.image, torch.from_numpy(truth.boxes_xyxy), names, colors))
    return in_a_row(shown)


def detections(model: str = "nano") -> RGB:
    """Draw the same pictures as an embedded detector sees them."""
    detector = Detector.from_pretrained(model, device="cpu")
    shown = []
    for found in detector([draw(DEFAULT, VAL, index).image for index in PICTURES]):
        assert found.image is not None
        names = [f"{d.name} {d.score:.2f}" for d in found]
        colors = [LIGHT.color(d.label) for d in found]
        image = found.image
        if found.masks is not None:
            image = paint_masks(image, found.masks, colors)
        shown.append(annotate(image, found.boxes_xyxy, names, colors))
    return in_a_row(shown)


def heatmap(page: Palette = LIGHT) -> RGB:
    """Draw three readings of the best detection in the second picture."""
    detector = Detector.from_pretrained("nano", device="cpu")
    with themed(page), TemporaryDirectory() as folder:
        maps = lab.heatmap(detector, draw(DEFAULT, VAL, PICTURES[1]).image)
        return np.asarray(Image.open(maps.save(Path(folder) / "maps.png")).convert("RGB"))


DECIDES = {
    "plain": "plain: the outline decides",
    "far": "far: a sign in a corner decides",
    "scales": "scales: small lies on large",
    "crowds": "crowds: up to 40 objects",
    "tight": "tight: tails belong to boxes",
    "marks": "marks: a print decides",
}


def world_of_each_part() -> RGB:
    """A picture of each world with its true boxes; those of a crowd would hide it."""
    axes = new_grid(None, len(DECIDES), 3, 1.0)
    for ax, (name, title) in zip(axes, DECIDES.items(), strict=True):
        truth = draw(WORLDS[name](128), VAL, 3)
        labels = truth.labels[: 0 if name == "crowds" else None].tolist()
        names, colors = [SHAPE_NAMES[n] for n in labels], [LIGHT.color(n) for n in labels]
        large = np.kron(truth.image, np.ones((3, 3, 1), np.uint8))
        boxes = 3 * torch.from_numpy(truth.boxes_xyxy[: len(labels)])
        ax.imshow(annotate(large, boxes, names, colors))
        ax.set_title(title, fontsize=9)
        ax.set_axis_off()
    return drawn(axes[0])


def bccd_curves() -> RGB:
    """Blood cells, from scratch and from nano: what `docs/results/bccd.md` tells."""
    runs = {}
    for name, file in BCCD.items():
        lines = (RESULTS / file).read_text(encoding="utf8").splitlines()
        runs[name] = [json.loads(line) for line in lines]
    return drawn(validation_curves(runs))


def drawn(axes: "Axes") -> RGB:
    """The figure that axes belong to, as pixels."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    axes.figure.savefig(buffer, format="png", dpi=100)
    plt.close(axes.figure)
    return np.asarray(Image.open(buffer).convert("RGB"))


FIGURES = {"shapes.png": world, "detections.png": detections, "bccd_curves.png": bccd_curves}
FIGURES |= {"worlds.png": world_of_each_part, "printed.png": partial(world, printed(320))}
FIGURES |= {"nano_seg.png": partial(detections, "nano-seg")}
FIGURES |= {"heatmap.webp": heatmap, "heatmap_dark.webp": partial(heatmap, DARK)}


def main(folder: Path = HOME) -> int:
    """Draw every figure into `folder`; 1 if one could not be drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name, figure in FIGURES.items():
        try:
            picture = Image.fromarray(figure())
            if name.endswith(".webp"):  # a colour scale needs more than 256 colours
                picture.save(folder / name, quality=88, method=6)
            else:
                picture.quantize(256).save(folder / name, optimize=True)  # a third of the size
            print(f"drew {folder / name}")
        except LabError as error:
            print(f"{name} not drawn: {error}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))

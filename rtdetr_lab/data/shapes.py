r"""# The shapes world: pictures without a download, with exact labels

`draw(config, seed, index)` returns a picture and its truth: a label, a box and a mask per object,
and the stuff behind the objects. It is a pure function: the same arguments give the same picture in
any process. So a data set is a configuration, a seed and a count, and a worker needs no state.

Things are painted from back to front. **Each labelled object can be seen.** So we reject a position
if too little of the thing would lie inside the picture, or if it would hide too much of an earlier
one; then we try another. A box is the extent of the *visible* pixels of its object, from the left
edge of the first to the right edge of the last, so it is exact.

The default is meant to be hard but fair. There are ten classes, some of them similar
(`shapes_outlines.py` defines the limits between them), all of COCO's sizes, overlap, crowds and
distractors. Colour, texture and area are independent of the class.

| seed          | used for                                              |
|---------------|-------------------------------------------------------|
| 0 (`TRAIN`)   | training, unless you choose another                   |
| 1 (`VAL`)     | validation: never train on it                         |
| 2, 3, …       | more training sets, for example for a second run      |
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int16, Int64, UInt8

from rtdetr_lab.data.batch import Sample, Truth
from rtdetr_lab.data.rle import run_lengths
from rtdetr_lab.data.shapes_paint import CLUTTER, develop
from rtdetr_lab.data.shapes_plan import ShapesConfig as ShapesConfig
from rtdetr_lab.data.shapes_plan import plan
from rtdetr_lab.data.shapes_scene import Scene

SHAPE_NAMES = ShapesConfig.names
"""The classes, in the order of their labels."""

TRAIN, VAL = 0, 1
"""Seeds of the two splits. Pictures of different seeds never share random numbers."""

DEFAULT = ShapesConfig()


@dataclass(frozen=True, eq=False)
class ShapesPicture:
    """A picture and its truth."""

    image: UInt8[np.ndarray, "H W 3"]
    labels: Int64[np.ndarray, "T"]
    boxes_xyxy: Float32[np.ndarray, "T 4"]
    """In pixels: left and top edge of the first visible pixel, right and bottom of the last."""
    instances: Int16[np.ndarray, "H W"]
    """1 … T at the visible pixels of that object, else 0."""
    regions: UInt8[np.ndarray, "H W"]
    """Index of the background in `STUFF_NAMES`, also behind the objects."""
    visible: Float32[np.ndarray, "T"]
    """The visible part of each object: not hidden by a thing, not cut off by the border."""

    @cached_property
    def masks(self) -> Bool[np.ndarray, "T H W"]:
        """The visible pixels of each object, as a mask."""
        numbers = np.arange(1, len(self.labels) + 1, dtype=np.int16)
        return self.instances[None] == numbers[:, None, None]

    @cached_property
    def areas(self) -> Float32[np.ndarray, "T"]:
        """The number of visible pixels per object: its area in COCO's sense."""
        counts = np.bincount(self.instances.ravel(), minlength=len(self.labels) + 1)
        return counts[1:].astype(np.float32)


def draw(config: ShapesConfig, seed: int, index: int) -> ShapesPicture:
    """Draw picture number `index` of the world `seed`."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))
    canvas, regions = config.background(rng)
    scene = Scene(config, rng, canvas)
    for thing in plan(config, rng):
        scene.add(thing)
    clutter = scene.instances < 0
    regions[clutter], scene.instances[clutter] = CLUTTER, 0
    objects, numbers = scene.objects, range(1, len(scene.objects) + 1)
    seen = np.array([o.seen for o in objects], np.float32)
    return ShapesPicture(
        image=develop(rng, canvas, config.light, config.noise).transpose(1, 2, 0),
        labels=np.array([o.label for o in objects], np.int64),
        boxes_xyxy=np.array([scene.box(n) for n in numbers], np.float32).reshape(-1, 4),
        instances=scene.instances,
        regions=regions,
        visible=seen / np.array([o.whole for o in objects], np.float32),
    )


@dataclass(frozen=True)
class ShapesDataset:
    """Pictures 0 … `count` - 1 of the world `seed`; each is drawn when it is needed."""

    config: ShapesConfig = DEFAULT
    seed: int = TRAIN
    count: int = 100_000
    with_masks: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by label."""
        return self.config.names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The ids that an export writes: they start at 1, as in COCO."""
        return tuple(range(1, len(self.names) + 1))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        picture, masks, coded = draw(self.config, self.seed, index), None, None
        if self.with_masks:
            masks, coded = torch.from_numpy(picture.masks), tuple(map(run_lengths, picture.masks))
        truth = Truth(
            image_id=index,
            size=(self.config.size, self.config.size),
            labels=torch.from_numpy(picture.labels),
            boxes_xyxy=torch.from_numpy(picture.boxes_xyxy),
            areas=torch.from_numpy(picture.areas),
            is_crowd=torch.zeros(len(picture.labels), dtype=torch.bool),
            segmentations=coded,
        )
        image = torch.from_numpy(np.ascontiguousarray(picture.image.transpose(2, 0, 1)))
        return Sample.of(image, truth, masks)

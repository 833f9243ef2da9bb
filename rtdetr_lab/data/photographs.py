"""# Photographs: backgrounds and textures for drawn pictures

The wheel of scikit-image carries them, so nothing is downloaded. All may be used for any purpose.
"""

from functools import cache

import numpy as np
from PIL import Image

from rtdetr_lab.data.shapes_paint import Canvas, Rng, log_uniform
from rtdetr_lab.notation import Size

PHOTOS = ("astronaut", "brick", "chelsea", "coffee", "grass", "gravel", "rocket")
"""Their names in `skimage.data`."""


@cache
def _photos() -> tuple[Image.Image, ...]:
    from skimage import data

    loaded = (getattr(data, name)() for name in PHOTOS)
    return tuple(Image.fromarray(pixels).convert("RGB") for pixels in loaded)


def photograph(rng: Rng, size: Size) -> Canvas:
    """Return a random part of a photograph: enlarged or reduced, mirrored, in other colours."""
    photo = _photos()[int(rng.integers(len(PHOTOS)))]
    zoom = log_uniform(rng, 0.5, 4.0)
    wide, high = (
        min(whole, max(8, round(side / zoom)))
        for whole, side in zip(photo.size, size[::-1], strict=True)
    )
    left, top = (
        int(rng.integers(w - p + 1)) for w, p in zip(photo.size, (wide, high), strict=True)
    )
    part = (left, top, left + wide, top + high)
    small = photo.resize(size[::-1], Image.Resampling.BILINEAR, box=part)
    pixels = np.asarray(small, np.float32).transpose(2, 0, 1)[rng.permutation(3)] / np.float32(255)
    pixels = pixels[:, :: _sign(rng), :: _sign(rng)]
    grey = pixels.mean(0, keepdims=True)
    pixels = grey + (pixels - grey) * np.float32(rng.uniform(0, 1.5))
    bright = pixels * np.float32(rng.uniform(0.4, 1.3)) + np.float32(rng.uniform(-0.1, 0.1))
    return np.clip(bright, 0, 1)


def _sign(rng: Rng) -> int:
    return 1 if rng.random() < 0.5 else -1

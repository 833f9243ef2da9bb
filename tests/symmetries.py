"""Flips and transpositions of a picture with its boxes, written apart from the package's own."""

import torch
from hypothesis import settings
from hypothesis import strategies as st

quick = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 10**6)
moves = st.tuples(st.booleans(), st.booleans(), st.booleans())
"""Whether rows and columns are exchanged; then whether rows, and columns, are reversed."""


def generator(seed):
    return torch.Generator().manual_seed(seed)


def shuffled(count, seed):
    """A random order; of two or more never the one that was there."""
    order = torch.randperm(count, generator=generator(seed))
    return order.roll(1) if torch.equal(order, torch.arange(count)) else order


def moved_size(size, move):
    return size[::-1] if move[0] else size


def moved_boxes(boxes, move):
    """Boxes as centre and size, in fractions of the picture."""
    transposed, rows, columns = move
    x, y, w, h = boxes.unbind(-1)
    if transposed:
        x, y, w, h = y, x, h, w
    return torch.stack([1 - x if columns else x, 1 - y if rows else y, w, h], -1)


def moved_corners(corners, size, move):
    """Boxes as corners in pixels of a picture of `size`."""
    transposed, rows, columns = move
    height, width = moved_size(size, move)
    x0, y0, x1, y1 = corners.unbind(-1)
    if transposed:
        x0, y0, x1, y1 = y0, x0, y1, x1
    if columns:
        x0, x1 = width - x1, width - x0
    if rows:
        y0, y1 = height - y1, height - y0
    return torch.stack([x0, y0, x1, y1], -1)


def moved_pixels(image, move):
    """A raster or mask with rows and columns last."""
    transposed, rows, columns = move
    image = image.transpose(-1, -2) if transposed else image
    return image.flip([axis for axis, wanted in ((-2, rows), (-1, columns)) if wanted])

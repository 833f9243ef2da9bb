"""Pictures with boxes and masks for the tests of augmentation, and how two are compared."""

import torch

from rtdetr_lab.boxes import scale_boxes, xyxy_from_cxcywh
from rtdetr_lab.data.batch import Sample, Truth
from rtdetr_lab.data.shapes import ShapesConfig, ShapesDataset

SMALL = ShapesConfig(size=96, max_side=40.0, max_objects=4)


SHAPES = [ShapesDataset(SMALL, seed=0, count=6, with_masks=True)[i] for i in range(6)]


def sample_of(boxes_xyxy, size=(60, 80), image=None):
    """A picture with these boxes (pixels) as solid masks; its red channel counts the columns."""
    height, width = size
    corners = torch.tensor(boxes_xyxy, dtype=torch.float32).reshape(-1, 4)
    masks = torch.zeros((len(corners), height, width), dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, corners.int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    if image is None:
        image = torch.zeros((3, height, width), dtype=torch.uint8)
        image[0] = torch.arange(width, dtype=torch.uint8)
    edges = torch.tensor([width, height, width, height])
    centre = (corners[:, :2] + corners[:, 2:]) / 2
    boxes = torch.cat([centre, corners[:, 2:] - corners[:, :2]], dim=1) / edges
    labels = torch.arange(len(corners))
    crowd = torch.zeros(len(corners), dtype=torch.bool)
    areas = masks.flatten(1).sum(1).float()
    truth = Truth(1, size, labels, corners, areas, crowd)
    return Sample(image, labels, boxes, truth, masks)


def corners_of(sample):
    return scale_boxes(xyxy_from_cxcywh(sample.boxes), tuple(sample.image.shape[-2:]))


def extent(mask):
    y, x = mask.nonzero().unbind(1)
    return torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()


def same(a, b):
    return torch.equal(a.image, b.image) and torch.equal(a.boxes, b.boxes)


class World:
    """Six pictures of the shapes world."""

    names, category_ids = ("thing",) * 10, tuple(range(10))

    def __len__(self):
        return len(SHAPES)

    def __getitem__(self, index):
        return SHAPES[index]

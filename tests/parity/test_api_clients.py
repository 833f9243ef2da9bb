"""transformers' own clients around our classes: pipelines, and keypoints of its processor."""

import numpy as np
import pytest
import torch
from oracle import spread, transformers
from PIL import Image
from small_api import SMALL, SMALL_DETR

import rtdetr_lab as lab


@pytest.fixture
def photo():
    values = np.random.default_rng(3).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("kind", ["RTDetr", "RTDetrV2", "Detr"])
def test_the_pipeline_for_detection_says_of_our_class_what_it_says_of_theirs(kind, photo, tmp_path):
    small = dict(SMALL_DETR if kind == "Detr" else SMALL)
    inner = {k: v for k, v in small.pop("backbone_config").items() if k != "model_type"}
    resnet = transformers.ResNetConfig if kind == "Detr" else transformers.RTDetrResNetConfig
    config = getattr(transformers, f"{kind}Config")(backbone_config=resnet(**inner), **small)
    theirs = spread(getattr(transformers, f"{kind}ForObjectDetection")(config)).eval()
    theirs.save_pretrained(tmp_path)
    name = "DetrImageProcessor" if kind == "Detr" else "RTDetrImageProcessor"
    size = {"height": 64, "width": 96}
    told = []
    for client, library, processor in (
        (transformers, transformers, f"{name}Pil"),
        (transformers, lab, name),
        (lab, lab, name),
    ):
        found = client.pipeline(
            "object-detection",
            model=getattr(library, f"{kind}ForObjectDetection").from_pretrained(tmp_path),
            image_processor=getattr(library, processor)(size=size),
        )
        told.append(found(photo, threshold=0.1))
    assert len(told[0]) > 0
    assert told[1] == told[2]
    pairs = zip(*(sorted(one, key=lambda x: str(x["box"])) for one in told[:2]), strict=True)
    for one, other in pairs:
        assert (one["label"], one["box"]) == (other["label"], other["box"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-3)


@pytest.mark.parametrize("subtask", ["semantic", "panoptic", "instance", None])
def test_the_pipeline_for_segmentation_is_theirs_around_our_class(photo, subtask):
    torch.manual_seed(0)
    model = lab.DetrForSegmentation(lab.DetrConfig(**SMALL_DETR)).eval()
    with torch.no_grad():
        model.lab.class_head.bias[:2] += 3
    processor = lab.DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    rules = {"threshold": 0.1, "mask_threshold": 0.4, "overlap_mask_area_threshold": 0.0}
    told = []
    for client in (transformers, lab):
        segments = client.pipeline("image-segmentation", model=model, image_processor=processor)
        told.append(segments(photo, subtask=subtask, **({} if subtask == "semantic" else rules)))
    assert {one["label"] for one in told[1]} <= {"cat", "dog", "sky"}
    assert {one["mask"].size for one in told[1]} == {(70, 50)}
    plain = [[(o["score"], o["label"], o["mask"].tobytes()) for o in one] for one in told]
    assert plain[0] == plain[1]


def test_keypoints_are_kept_as_theirs_are(photo):
    points = [[1, 2, 2, 30, 20, 1], [5, 6, 0, 7, 8, 2], [0, 0, 0, 9, 9, 1]]
    boxes = [[2, 3, 20, 11], [5, 5, 0, 4], [4, 10, 60, 30]]  # the second has no area
    given = {
        "image_id": 7,
        "annotations": [
            {"bbox": b, "category_id": i, "area": 9.0, "iscrowd": 0, "keypoints": k}
            for i, (b, k) in enumerate(zip(boxes, points, strict=True))
        ],
    }
    mine, theirs = (
        one(size={"height": 64, "width": 96})(photo, annotations=given, return_tensors="pt").labels
        for one in (lab.RTDetrImageProcessor, transformers.RTDetrImageProcessorPil)
    )
    assert torch.equal(mine[0]["keypoints"], theirs[0]["keypoints"])
    assert mine[0]["keypoints"].shape == (4, 3)

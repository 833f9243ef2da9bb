"""COCO's format: read strictly, ids kept, crowds and broken boxes where they belong."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from rtdetr_lab.boxes import scale_boxes, xyxy_from_cxcywh
from rtdetr_lab.data import findings as rules
from rtdetr_lab.data.batch import Mapped, collate
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.convert import export_coco
from rtdetr_lab.data.preflight import check_folder, usable
from rtdetr_lab.data.rle import decode_mask, encode_mask
from rtdetr_lab.data.shapes import TRAIN, VAL, ShapesConfig, draw
from rtdetr_lab.data.transforms import Resize
from rtdetr_lab.errors import DataError
from rtdetr_lab.images.decode import Limits

SMALL = ShapesConfig(size=96, max_side=40.0, max_objects=4)


def two_pictures():
    """A tree as COCO has it: gaps in the ids, a crowd, a box over the edge and one without area."""
    box = {"area": 100.0, "iscrowd": 0}
    return {
        "images": [
            {"id": 70, "file_name": "b.png", "width": 40, "height": 30},
            {"id": 7, "file_name": "a.png", "width": 20, "height": 10},
        ],
        "annotations": [
            {"id": 1, "image_id": 70, "category_id": 90, "bbox": [5, 6, 10, 12], **box},
            {"id": 2, "image_id": 70, "category_id": 3, "bbox": [30, -2, 20, 10.5], **box},
            {"id": 3, "image_id": 70, "category_id": 3, "bbox": [1, 1, 0, 5], **box},
            {"id": 4, "image_id": 70, "category_id": 3, "bbox": [50, 1, 5, 5], **box},
            {"id": 5, "image_id": 70, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}],
    }


@pytest.fixture
def folder(tmp_path):
    def write(tree, json_name="train.json", images="images"):
        (tmp_path / json_name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / json_name).write_text(tree if isinstance(tree, str) else json.dumps(tree))
        (tmp_path / images).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (10, 20, 30)).save(tmp_path / images / "b.png")
        Image.new("L", (20, 10), 200).save(tmp_path / images / "a.png")
        return tmp_path

    return write


@pytest.mark.parametrize("area", [0, 0.0, -3, None, "n/a", float("nan")])
def test_an_area_that_is_none_becomes_that_of_the_box(folder, area):
    """Many tools write 0, and an object of area 0 would be a small one."""
    tree = two_pictures()
    tree["annotations"][0]["area"] = area
    assert CocoDataset.from_folder(folder(tree))[0].truth.areas[0] == 120


def test_labels_are_places_among_the_sorted_category_ids(folder):
    data = CocoDataset.from_folder(folder(two_pictures()))
    assert data.category_ids == (3, 90)
    assert data.names == ("car", "toothbrush")
    assert data[0].labels.tolist() == [1, 0]


def test_training_sees_clipped_boxes_and_no_crowd(folder):
    sample = CocoDataset.from_folder(folder(two_pictures()))[0]
    boxes = scale_boxes(xyxy_from_cxcywh(sample.boxes), (30, 40))
    expected = torch.tensor([[5, 6, 15, 18], [30, 0, 40, 8.5]])
    assert torch.allclose(boxes, expected, atol=1e-5)


def test_evaluation_sees_boxes_as_annotated_and_the_crowd(folder):
    truth = CocoDataset.from_folder(folder(two_pictures()))[0].truth
    assert truth.boxes_xyxy.tolist() == [[5, 6, 15, 18], [30, -2, 50, 8.5], [0, 0, 9, 9]]
    assert truth.is_crowd.tolist() == [False, False, True]
    assert truth.areas.tolist() == [100, 100, 81], "without an area it is the box's"
    assert (truth.image_id, truth.size) == (70, (30, 40))


@pytest.mark.parametrize("mark", [1, "1", True])
def test_a_crowd_may_be_marked_by_a_word_and_so_may_an_object(folder, mark):
    tree = damaged(
        annotations_0_iscrowd="0", annotations_1_iscrowd=None, annotations_4_iscrowd=mark
    )
    truth = CocoDataset.from_folder(folder(tree))[0].truth
    assert truth.is_crowd.tolist() == [False, False, True]


def test_what_training_does_not_see_is_counted(folder):
    data = CocoDataset.from_folder(folder(two_pictures()))
    expected = {"box without area": 1, "box outside the picture": 1, "crowd region": 1}
    assert data.dropped == expected


def test_a_picture_without_annotations_is_an_empty_sample(folder):
    sample = CocoDataset.from_folder(folder(two_pictures()))[1]
    assert (sample.image_id, sample.boxes.shape, sample.image.shape) == (7, (0, 4), (3, 10, 20))
    assert (sample.image == 200).all(), "grey becomes three equal channels"


def test_resized_pictures_of_several_sizes_make_a_batch(folder):
    data = Mapped(CocoDataset.from_folder(folder(two_pictures())), Resize((32, 32)))
    batch = collate([data[0], data[1]])
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.targets.counts == [2, 0]


@pytest.mark.parametrize(
    ("json_name", "images"),
    [
        ("val.json", "images"),
        ("val2017.json", "images"),
        ("val.json", "."),
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/val.json", "images/val"),
        ("val/_annotations.coco.json", "val"),
    ],
)
def test_usual_layouts_are_found(folder, json_name, images):
    data = CocoDataset.from_folder(folder(two_pictures(), json_name, images), "val")
    assert len(data[0].labels) == 2


def test_pictures_may_lie_in_a_folder_of_their_own(folder, tmp_path):
    where = folder(two_pictures(), "labels/all.json", "elsewhere")
    data = CocoDataset.from_json(where / "labels/all.json", tmp_path / "elsewhere")
    assert data[0].size == (30, 40)


def test_a_missing_split_is_named_with_what_is_there(folder):
    with pytest.raises(DataError, match=r"no annotations for 'val'; there is train\.json"):
        CocoDataset.from_folder(folder(two_pictures()), "val")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        CocoDataset.from_folder(tmp_path / "nowhere")


def damaged(**changes):
    """The tree with entries changed: `annotations_0_bbox=…` is tree["annotations"][0]["bbox"]."""
    tree = two_pictures()
    for path, value in changes.items():
        kind, index, key = path.split("_", 2)
        tree[kind][int(index)][key] = value
    return tree


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("{", r"train\.json: is not JSON"),
        ("[]", "is not COCO's format"),
        ({"images": []}, "has no list of categories"),
        (damaged(annotations_0_segments_info=[]), "is COCO's panoptic format.*PanopticDataset"),
        (damaged(images_0_id="70"), "has the id '70'"),
        (damaged(images_1_id=70), "picture 70: occurs twice"),
        (damaged(images_0_width=0), "picture 70: has width 0 and height 30"),
        (damaged(annotations_0_bbox=[1, 2, 3]), r"annotation 1: has the bbox \[1, 2, 3\]"),
        (damaged(annotations_1_bbox=[1, 2, 3, None]), "annotation 2: has the bbox"),
        (damaged(annotations_0_bbox=[0, 0, float("nan"), 1]), "annotation 1: has the bbox"),
        (damaged(annotations_2_image_id=8), "annotation 3: is on picture 8, which is not listed"),
        (damaged(annotations_2_image_id=[70]), r"annotation 3: is on picture \[70\]"),
        (damaged(annotations_2_category_id=4), "annotation 3: is of category 4"),
        (damaged(annotations_2_category_id=3.5), r"annotation 3: is of category 3\.5"),
        (damaged(annotations_2_category_id={}), r"annotation 3: is of category \{\}"),
        (damaged(categories_0_id=3), "category 3: occurs twice"),
        (damaged(annotations_1_id=1), "annotation 1: occurs twice"),
    ],
)
def test_what_contradicts_itself_is_refused_with_its_id(folder, tree, message):
    with pytest.raises(DataError, match=message):
        CocoDataset.from_folder(folder(tree))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (damaged(images_0_file_name="c.png"), r"picture 70: 'c\.png' is not in"),
        (damaged(images_0_file_name="../b.png"), "leaves the folder"),
        (damaged(images_0_file_name="/etc/hostname"), "leaves the folder"),
        (
            damaged(images_0_width=30, images_0_height=40),
            r"b\.png: picture 70: is 40×30, .* says 30×40",
        ),
    ],
)
def test_a_picture_that_is_not_what_the_json_says_is_refused_with_its_id(folder, tree, message):
    data = CocoDataset.from_folder(folder(tree))
    with pytest.raises(DataError, match=message):
        data[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_refer_to_the_raster_as_stored_whatever_the_exif_says(folder, orientation):
    where = folder(two_pictures())
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[:10, :15] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(where / "images/b.png", exif=exif)
    image = CocoDataset.from_folder(where)[0].image
    assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_are_of_the_turned_photo_where_the_annotations_give_its_size(folder, orientation):
    where = folder(damaged(images_0_width=30, images_0_height=40))
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(where / "images/b.png", exif=exif)
    image = CocoDataset.from_folder(where)[0].image
    shown = ImageOps.exif_transpose(Image.open(where / "images/b.png"))
    assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(shown))
    assert not any(report.of(rules.TURNED) for report in check_folder(where))


def test_masks_survive_run_lengths(rng):
    mask = (torch.rand(13, 17, generator=rng) > 0.5).numpy()
    assert np.array_equal(decode_mask(encode_mask(mask), (13, 17), "here"), mask)


def test_polygons_are_filled():
    mask = decode_mask([[2, 1, 8, 1, 8, 5, 2, 5]], (10, 12), "here")
    expected = np.zeros((10, 12), bool)
    expected[1:5, 2:8] = True
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize("broken", [{"counts": "x"}, [[1, 2]], {"size": [3, 3], "counts": [9]}])
def test_a_segmentation_that_cannot_be_read_is_named(broken):
    with pytest.raises(DataError, match="annotation 5"):
        decode_mask(broken, (10, 12), "annotation 5")


def test_the_shapes_world_comes_back_as_it_was_exported(tmp_path):
    paths = export_coco(tmp_path / "shapes", 4, 2, SMALL)
    assert [p.name for p in paths] == ["train.json", "val.json"]
    for split, seed, count in (("train", TRAIN, 4), ("val", VAL, 2)):
        data = CocoDataset.from_folder(tmp_path / "shapes", split, with_masks=True)
        assert len(data) == count
        assert data.dropped == {}
        for i in range(count):
            sample, picture = data[i], draw(SMALL, seed, i)
            assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), picture.image)
            assert sample.labels.tolist() == picture.labels.tolist()
            assert np.array_equal(sample.truth.boxes_xyxy.numpy(), picture.boxes_xyxy)
            assert np.array_equal(sample.truth.areas.numpy(), picture.areas)
            assert np.array_equal(sample.masks.numpy(), picture.masks)


def test_an_export_never_writes_into_what_is_there(tmp_path):
    (tmp_path / "mine.txt").write_text("important")
    with pytest.raises(DataError, match="is not empty"):
        export_coco(tmp_path, 1, 1, SMALL)


def test_blood_cells_are_read(shared):
    data = CocoDataset.from_folder(shared("data/bccd"))
    assert len(data) == 205
    assert data.names == ("WBC", "RBC", "Platelets")
    sample = data[0]
    assert sample.image.shape == (3, *sample.size)
    assert sum(len(p.annotations) for p in data.annotations.pictures) > 2500


def test_cocos_own_photographs_are_read_with_their_masks(shared):
    data = CocoDataset.from_folder(shared("data/coco_ccby"), "val", with_masks=True)
    assert len(data.names) == 80
    assert data.category_ids[-1] == 90
    for i in range(5):
        sample = data[i]
        boxes = scale_boxes(xyxy_from_cxcywh(sample.boxes), sample.size)
        for mask, box in zip(sample.masks, boxes, strict=True):
            y, x = mask.nonzero().unbind(1)
            extent = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
            assert (extent - box).abs().max() < 3


def test_pictures_of_fewer_bits_are_usable_if_the_data_says_so(folder):
    where = folder(two_pictures())
    ten = np.arange(1000, 200, -4, dtype=np.uint16).reshape(10, 20)
    Image.fromarray(ten).save(where / "images" / "a.png")
    data = CocoDataset.from_folder(where)
    assert len(usable(data)) == 1
    assert len(usable(replace(data, limits=Limits(bits=10)))) == 2

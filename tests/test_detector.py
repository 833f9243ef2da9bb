"""The front door: a picture in, boxes in its own pixels out, whatever it was batched with."""

import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from green_things import GreenThings, meadow
from PIL import Image

from rtdetr_lab.detections import Classes, Detections
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import ConfigError, ImageError, LabError, MissingExtraError
from rtdetr_lab.images.frames import Frame
from rtdetr_lab.images.tiling import Tiling


@pytest.fixture
def detector():
    return Detector(GreenThings().eval(), names=["stone", "grass"], size=(60, 90))


@pytest.fixture
def nano():
    from rtdetr_lab.rtdetr import rtdetr_nano

    return rtdetr_nano(num_classes=8).build().double().eval()


# --- what goes in, what comes out ----------------------------------------------------------------


def test_a_picture_gives_boxes_scores_labels_and_names_in_its_own_pixels(detector):
    found = detector(meadow())
    assert found.boxes_xyxy[0].tolist() == pytest.approx([30, 12, 60, 36], abs=1e-4)
    assert found.scores.tolist() == pytest.approx([0.9526], abs=1e-4)
    assert found.labels.tolist() == [1]
    assert found.names == ("grass",)
    assert found.size == (60, 90)


def test_the_boxes_of_a_picture_of_another_size_are_in_that_size():
    detector = Detector(GreenThings().eval(), size=(30, 45))
    assert torch.allclose(detector(meadow()).boxes_xyxy, torch.tensor([[30.0, 12, 60, 36]]), atol=2)


def test_one_in_gives_one_out_and_a_list_gives_a_list(detector, tmp_path):
    path = tmp_path / "meadow.png"
    Image.fromarray(meadow()).save(path)
    data = path.read_bytes()
    tensor = torch.from_numpy(meadow()).permute(2, 0, 1) / 255
    sources = [path, str(path), data, io.BytesIO(data), Image.open(path), meadow(), tensor]
    several = detector(sources)
    assert isinstance(several, list)
    for one in several:
        assert one.boxes_xyxy[0].tolist() == pytest.approx([30, 12, 60, 36], abs=1e-4)
    assert several[0].source == str(path)
    assert isinstance(detector(path), Detections)
    assert detector([]) == []


def test_the_threshold_of_a_call_wins_over_the_detectors_own(detector):
    assert len(detector(meadow(), threshold=0.0)) == 2
    assert len(detector(meadow(), threshold=0.96)) == 0
    assert len(Detector(GreenThings().eval(), threshold=0.1, size=(60, 90))(meadow())) == 2
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="not a score"):
            detector(meadow(), threshold=wrong)


def test_a_picture_with_nothing_in_it_gives_zero_rows_of_everything(detector):
    found = detector(np.zeros((5, 5, 3), np.uint8))
    assert len(found) == 0
    assert found.boxes_xyxy.shape == (0, 4)
    assert found.names == ()
    assert found.to_coco(1) == []
    assert "0 detections" in repr(found)


# --- independent of neighbours, threads, random numbers ------------------------------------------


def test_results_do_not_depend_on_the_batch(nano):
    from skimage.data import chelsea, coffee

    pictures = [chelsea(), coffee()[:200, :150], meadow()]
    detector = Detector(nano, size=(96, 128), threshold=0.0)
    together = detector(pictures)
    by_two = list(detector.each(pictures, batch_size=2))
    for picture, one, other in zip(pictures, together, by_two, strict=True):
        alone = detector(picture)
        for found in (one, other):
            assert torch.equal(found.queries, alone.queries)
            assert torch.allclose(found.scores, alone.scores, atol=1e-12, rtol=0)
            assert torch.allclose(found.boxes_xyxy, alone.boxes_xyxy, atol=1e-9, rtol=0)


def test_threads_may_share_a_detector(nano):
    detector = Detector(nano, size=(96, 96), threshold=0.0)
    pictures = [meadow(box=(i, i, i + 20, i + 20)) for i in range(8)]
    alone = [detector(p) for p in pictures]
    with ThreadPoolExecutor(4) as pool:
        shared = list(pool.map(detector, pictures))
    for a, b in zip(alone, shared, strict=True):
        assert torch.allclose(a.boxes_xyxy, b.boxes_xyxy, atol=1e-9)


def test_detecting_leaves_no_gradients_and_does_not_touch_the_model(nano):
    before = {k: v.clone() for k, v in nano.state_dict().items()}
    found = Detector(nano, size=(96, 96), threshold=0.0)(meadow())
    assert not found.boxes_xyxy.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in nano.state_dict().items())


def test_a_model_in_training_mode_is_refused(nano):
    with pytest.raises(ConfigError, match=r"model\.eval\(\)"):
        Detector(nano.train(), size=(96, 96))(meadow())


def test_a_device_that_is_not_there_is_named():
    for device in ("warp", "meta:x", "cuda:77"):
        with pytest.raises(ConfigError, match=device):
            Detector(GreenThings().eval(), device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU; runs where torch sees one")
def test_a_gpu_finds_what_the_cpu_finds(nano):
    here = Detector(nano, size=(96, 96), threshold=0.0)(meadow())
    there = Detector(nano, size=(96, 96), threshold=0.0, device="cuda")(meadow())
    assert torch.allclose(here.scores, there.scores, atol=1e-9)
    assert there.boxes_xyxy.device.type == "cpu"


def test_odd_sizes_work_and_too_small_ones_are_refused_by_name(nano):
    assert len(Detector(nano, size=(130, 250), threshold=0.0)(meadow())) == 100
    with pytest.raises(LabError, match="tokens"):
        Detector(nano, size=(32, 32))(meadow())


# --- pictures that cannot be read ----------------------------------------------------------------


def test_one_broken_picture_among_many_is_named_and_the_rest_done(detector, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no more")
    results = list(detector.each([meadow(), broken, meadow(), b"xx", meadow()], batch_size=2))
    assert [type(r) for r in results] == [
        Detections,
        ImageError,
        Detections,
        ImageError,
        Detections,
    ]
    assert results[1].where == str(broken)
    assert results[3].where == "pictures[3] (2 bytes)"
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        detector([meadow(), broken])


def test_a_stream_is_read_batch_by_batch(detector):
    taken = []

    def stream():
        for i in range(100):
            taken.append(i)
            yield meadow()

    results = detector.each(stream(), batch_size=4)
    next(results)
    assert taken == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="batch_size"):
        next(detector.each([meadow()], batch_size=0))


# --- classes -------------------------------------------------------------------------------------


def test_names_come_from_the_caller_the_checkpoint_or_are_numbers(detector):
    from rtdetr_lab.checkpoints.metadata import Metadata

    assert Detector(GreenThings().eval()).classes.names == ("class 0", "class 1")
    model = GreenThings().eval()
    model.metadata = Metadata(("a", "b"), (3, 9), image_size=(64, 32))
    loaded = Detector(model)
    assert loaded.classes == Classes(("a", "b"), (3, 9))
    assert loaded.preprocess.size == (64, 32)
    assert Detector(model, names="xy").classes.names == ("x", "y")
    with pytest.raises(ConfigError, match="3 names for a model with 2 classes"):
        Detector(model, names="xyz")


def test_category_ids_match_names():
    with pytest.raises(ConfigError, match="2 ids for 1 names"):
        Classes(("a",), (1, 2))


# --- options that are off ------------------------------------------------------------------------


def test_tiling_finds_what_is_too_small_for_one_look():
    picture = np.zeros((600, 900, 3), np.uint8)
    picture[301:305, 605:608] = [0, 255, 0]
    model = GreenThings().eval()
    assert len(Detector(model, size=(60, 90))(picture)) == 0
    found = Detector(model, size=(100, 100), tiling=Tiling(100))(picture)
    assert len(found) == 1
    assert found.boxes_xyxy[0].tolist() == pytest.approx([605, 301, 608, 305], abs=1e-3)


def test_duplicate_removal_is_asked_for(detector):
    assert len(detector(meadow(), threshold=0.0)) == 2
    strict = Detector(GreenThings().eval(), size=(60, 90), threshold=0.0, max_iou=0.9)
    assert strict(meadow()).queries.tolist() == [0]


# --- Detections ----------------------------------------------------------------------------------


@pytest.fixture
def found(detector):
    boxes = torch.tensor([[1.0, 2, 31, 42], [5, 5, 10, 10], [0, 0, 90, 60]])
    one = detector(meadow())
    labels, queries = torch.tensor([1, 0, 1]), torch.tensor([7, 2, 7])
    scores = torch.tensor([0.9, 0.6, 0.3])
    classes = Classes(("stone", "grass"), (13, 44))
    rows = {"scores": scores, "labels": labels, "queries": queries, "classes": classes}
    return replace(one, boxes_xyxy=boxes, source="meadow.png", **rows)


def test_iterating_gives_plain_rows(found):
    first = next(iter(found))
    assert first.box_xyxy == (1, 2, 31, 42)
    assert (first.label, first.name, first.query) == (1, "grass", 7)
    assert len(list(found)) == len(found) == 3


def test_filters_by_score_class_and_position(found):
    assert found.above(0.6).queries.tolist() == [7], "strictly above"
    assert found.above({"grass": 0.5}).queries.tolist() == [7, 2], "a class not named keeps all"
    assert found.only("stone").names == ("stone",)
    assert found.only("stone", "grass").names == found.names
    assert found[[2, 0]].scores.tolist() == pytest.approx([0.3, 0.9])
    assert len(found[:2]) == 2
    assert len(found[found.labels == 1]) == 2
    with pytest.raises(ConfigError, match="nearest: grass"):
        found.only("gras")


def test_coco_rows_have_corner_and_size_and_the_categories_of_the_data_set(found):
    first, second, _ = found.to_coco(42)
    assert first == {
        "image_id": 42,
        "category_id": 44,
        "bbox": [1.0, 2.0, 30.0, 40.0],
        "score": pytest.approx(0.9),
    }
    assert second["category_id"] == 13
    assert found.to_coco(42, category_ids=[5, 6])[0]["category_id"] == 6
    json.dumps(found.to_coco(42))


def test_coco_rows_of_a_turned_photo_are_in_the_frame_of_its_annotations(found):
    """A viewer turns it clockwise, from 60 columns and 90 rows to 90 columns and 60 rows."""
    turned = replace(found, frame=Frame((90, 60), 6))
    assert turned.to_coco(42)[0]["bbox"] == [2.0, 59.0, 40.0, 30.0]
    assert turned.to_coco(42, size=(60, 90))[0]["bbox"] == [1.0, 2.0, 30.0, 40.0]


def test_json_says_everything_in_plain_numbers(found):
    tree = json.loads(json.dumps(found.to_json()))
    assert tree["image"] == "meadow.png"
    assert tree["size"] == [60, 90]
    assert tree["detections"][1]["name"] == "stone"
    assert tree["detections"][1]["box_xyxy"] == [5, 5, 10, 10]


def test_the_repr_is_a_table(found):
    lines = repr(found).splitlines()
    assert lines[0] == "3 detections in meadow.png (90 × 60)"
    assert lines[1].split() == ["grass", "0.900", "[1.0,", "2.0,", "31.0,", "42.0]"]
    assert len({line.index("[") for line in lines[1:]}) == 1, "columns line up"
    strange = replace(found, classes=Classes(("a\nb", "$x$")))
    assert len(repr(strange).splitlines()) == 4


def test_plot_draws_on_the_given_axes_and_returns_them(found):
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert found.plot(ax) is ax
    assert len(ax.patches) == len(ax.texts) == 3
    assert found.plot() is not ax
    plt.close("all")


def test_without_pixels_there_is_nothing_to_plot(found):
    with pytest.raises(ImageError, match="has no pixels"):
        found.without_image().plot()


def test_save_writes_the_annotated_picture(found, tmp_path):
    path = found.save(tmp_path / "out.png")
    drawn = np.asarray(Image.open(path))
    assert drawn.shape == (60, 90, 3)
    assert not np.array_equal(drawn, found.image)


def test_supervision_gets_the_same_detections(found, monkeypatch):
    """With the real package where it is installed, else with one that keeps what it is given."""
    try:
        import supervision
    except ImportError:
        monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=SimpleNamespace))
        supervision = None
    theirs = found.to_supervision()
    assert supervision is None or isinstance(theirs, supervision.Detections)
    np.testing.assert_allclose(theirs.xyxy, found.boxes_xyxy)
    np.testing.assert_allclose(theirs.confidence, found.scores)
    assert theirs.class_id.tolist() == found.labels.tolist()
    assert tuple(theirs.data["class_name"]) == found.names
    masks = torch.rand(len(found), *found.size) > 0.5
    assert np.array_equal(replace(found, masks=masks).to_supervision().mask, masks)


def test_without_supervision_the_error_says_what_to_install(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtraError, match="pip install supervision"):
        found.to_supervision()

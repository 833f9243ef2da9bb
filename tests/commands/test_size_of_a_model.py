"""The size a model is made for has one owner: judged, trained, asked and exported at it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small import shaken

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.rename import export_tensors
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.checkpoints.tables import AUTHORS
from rtdetr_lab.cli import main
from rtdetr_lab.commands.base import resized_for, size_of
from rtdetr_lab.data.augment import BATCH, Place, paper_augmentation
from rtdetr_lab.data.batch import First, Mapped, as_float
from rtdetr_lab.data.canvas import ResizeEdges, fitted
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.shapes import VAL, ShapesConfig, ShapesDataset
from rtdetr_lab.data.transforms import Resize
from rtdetr_lab.detector import Detector
from rtdetr_lab.detr.model import detr_nano
from rtdetr_lab.errors import ConfigError, DataError
from rtdetr_lab.evaluation.coco import coco_metrics, coco_truth
from rtdetr_lab.evaluation.evaluate import detect, evaluate
from rtdetr_lab.evaluation.examine import examine
from rtdetr_lab.images.postprocess import of_the_canvas
from rtdetr_lab.model import Metadata
from rtdetr_lab.rtdetr import rtdetr_nano
from rtdetr_lab.training import from_scratch, train

pytest.importorskip("faster_coco_eval", reason="no [eval] extra; runs where it is installed")
WORLD = ShapesDataset(ShapesConfig(size=256), VAL, 8)
PICTURES = 6


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos of shapes in several sizes, none of them the model's, none of them square."""
    folder = tmp_path_factory.mktemp("photos")
    tree = {"images": [], "annotations": [], "categories": []}
    tree["categories"] = [{"id": 3 + i, "name": n} for i, n in enumerate(WORLD.names)]
    for number in range(PICTURES):
        sample, (height, width) = WORLD[number], (300 + 17 * number, 410 - 23 * number)
        pixels = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
        pixels.resize((width, height)).save(folder / f"{number}.png")
        size = {"height": height, "width": width}
        tree["images"].append({"id": number, "file_name": f"{number}.png", **size})
        for label, box in zip(sample.labels.tolist(), sample.boxes.tolist(), strict=True):
            x, y, w, h = (v * (width, height)[i % 2] for i, v in enumerate(box))
            one = {"id": len(tree["annotations"]) + 1, "image_id": number, "area": w * h}
            one |= {"category_id": 3 + label, "bbox": [x - w / 2, y - h / 2, w, h], "iscrowd": 0}
            tree["annotations"].append(one)
    for split in ("train", "val"):
        (folder / f"{split}.json").write_text(json.dumps(tree))
    return folder


@pytest.fixture
def nano():
    return load_pretrained("nano")


def said(capsys, *words):
    assert main([*words, "--device", "cpu"]) == 0
    return capsys.readouterr()


def judged(capsys, model, photos, *words):
    return json.loads(said(capsys, "eval", str(model), "--data", str(photos), "--json", *words).out)


def by_the_detector(model, photos, **options):
    """AP of what a `Detector` finds in the files, without evaluate's own way to them."""
    data = CocoDataset.from_folder(photos, "val")
    detector = Detector(model, threshold=0.0, **options)
    rows = []
    for i in range(len(data)):
        found = detector(photos / data[i].truth.file_name)
        rows += found.to_coco(data[i].image_id, data.category_ids)
    truth = coco_truth([data[i].truth for i in range(len(data))], data.names, data.category_ids)
    return coco_metrics(truth, rows).AP


# --- evaluation -----------------------------------------------------------------------------------


def test_photos_of_any_size_are_judged_as_the_model_sees_them(nano, photos, capsys):
    right = by_the_detector(nano, photos)
    assert right > 0.5
    data = CocoDataset.from_folder(photos, "val")
    assert evaluate(nano, data, batch_size=4).AP == pytest.approx(right, abs=1e-6)
    assert examine(nano, data, queries=()).scored.metrics.AP == pytest.approx(right, abs=1e-6)
    assert judged(capsys, "nano", photos)["AP"] == pytest.approx(right, abs=1e-6)


def test_pictures_of_the_models_size_stay_untouched_to_the_last_bit(nano):
    seen = fitted(WORLD, nano.metadata)
    assert seen[2].image is not None
    assert torch.equal(seen[2].image, WORLD[2].image)
    found = detect(nano.eval(), [WORLD[2]])
    again = detect(nano.eval(), [seen[2]])
    assert torch.equal(found[0].boxes_xyxy, again[0].boxes_xyxy)
    twice = fitted(fitted(WORLD, Metadata(edges=(64, 106))), Metadata(edges=(64, 106)))
    assert isinstance(twice.dataset, ShapesDataset), "not resized a second time"


@pytest.mark.parametrize("size", [(128, 256), (288, 160)])
def test_a_rectangle_is_kept_by_eval_train_and_export(nano, photos, size, tmp_path, capsys):
    known = replace(nano.metadata, image_size=size, sha256=None)
    folder = save_pretrained(nano, tmp_path / "rect", metadata=known)
    data = CocoDataset.from_folder(photos, "val")
    here = load_pretrained(folder)
    right = evaluate(load_pretrained("nano"), Mapped(data, Resize(size))).AP
    by_hand = by_the_detector(here, photos)
    assert evaluate(here, data).AP == pytest.approx(by_hand, abs=1e-6)
    assert judged(capsys, folder, photos)["AP"] == pytest.approx(by_hand, abs=1e-6)
    assert judged(capsys, "nano", photos, "--size", "{}x{}".format(*size))["AP"] == pytest.approx(
        by_hand, abs=1e-6
    )
    assert abs(right - by_hand) > 1e-6, "judged at 256 × 256 it would be another number"
    few = ("--pictures", "2", "--batch-size", "2", "--val-limit", "1", "--out", str(tmp_path / "r"))
    told = said(capsys, "train", "--model", str(folder), "--data", str(photos), *few)
    assert f"of {size[0]} × {size[1]} px" in told.out
    assert load_pretrained(tmp_path / "r" / "model").metadata.image_size == size


def test_a_model_that_keeps_shapes_is_judged_between_its_edges(photos, capsys, tmp_path):
    torch.manual_seed(1)
    model = shaken(detr_nano(len(WORLD.names)).build()).float().eval()
    model.metadata = Metadata(WORLD.names, tuple(range(3, 13)), (64, 64), edges=(64, 90))
    data = CocoDataset.from_folder(photos, "val")
    alone = [detect(model, [fitted(data, model.metadata)[i]])[0] for i in range(len(data))]
    for one, found in zip(data, alone, strict=False):
        detector = Detector(model, threshold=0.0)
        wanted = detector(photos / one.truth.file_name)
        assert (wanted.boxes_xyxy - found.boxes_xyxy).abs().max() <= 1e-3
    metrics = evaluate(model, data, batch_size=3)  # several sizes share a canvas
    assert metrics.num_objects > 0
    assert examine(model, data, batch_size=3).scored.metrics.AP == metrics.AP
    folder = save_pretrained(model, tmp_path / "detr")
    assert judged(capsys, folder, photos, "--batch-size", "3")["AP"] == metrics.AP
    edges = Mapped(data, ResizeEdges((64, 90)))
    assert evaluate(model, edges, batch_size=3) == metrics


def test_boxes_of_the_canvas_are_judged_as_the_detector_reads_them(photos):
    torch.manual_seed(1)
    model = shaken(detr_nano(len(WORLD.names)).build()).float().eval()
    known = Metadata(WORLD.names, tuple(range(3, 13)), (64, 64), edges=(64, 90))
    model.metadata = replace(known, canvas_boxes=True)
    samples = [fitted(CocoDataset.from_folder(photos, "val"), known)[i] for i in (0, 4)]
    found = detect(model, samples)
    pictures = [photos / sample.truth.file_name for sample in samples]
    model.metadata = known
    wanted = Detector(model, threshold=0.0, fractions=of_the_canvas)(pictures)
    for a, b in zip(found, wanted, strict=True):
        assert (a.boxes_xyxy - b.boxes_xyxy).abs().max() <= 1e-3


# --- training -------------------------------------------------------------------------------------


def test_a_model_with_a_size_is_trained_at_it_and_one_without_learns_it(photos):
    data = CocoDataset.from_folder(photos, "train")
    few = from_scratch(2, batch_size=2)
    new = rtdetr_nano(len(WORLD.names)).build()
    new.metadata = Metadata(image_size=(64, 96))
    run = train(new, data, config=few, progress=False)
    assert run.model.metadata == Metadata(WORLD.names, tuple(data.category_ids), (64, 96))
    resized = Mapped(data, Resize((96, 64)))
    run = train(rtdetr_nano(len(WORLD.names)), resized, config=few, progress=False)
    assert run.model.metadata.image_size == (96, 64)


def test_a_rectangle_grows_and_shrinks_with_the_batches_of_the_papers_recipe():
    recipe = replace(paper_augmentation(128), size=(128, 256))
    seen = {recipe.size_at(Place(0, 0, step, 0.1)) for step in range(60)}
    assert seen == {(96, 192), (128, 256), (160, 320)}
    square = paper_augmentation(128)
    for step in range(20):
        side = int(Place(0, 0, step, 0.1).rng(BATCH).choice(square.sizes))
        assert square.size_at(Place(0, 0, step, 0.1)) == (side, side)


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"), [("640", (640, 640)), ("480x640", (480, 640)), ("96×64", (96, 64))]
)
def test_a_size_is_one_number_or_height_by_width(text, size):
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "0", "-3", "64x", "x64", "64x64x64", "6.5", "wide", "0x64"])
def test_what_is_no_size_is_named(text):
    with pytest.raises(ConfigError, match="is not a size; give one number or HxW"):
        size_of(text)


def test_one_number_is_the_shortest_side_of_a_model_that_keeps_shapes():
    known = Metadata(edges=(64, 90), image_size=(64, 64))
    assert resized_for(known, "800", takes_padding=True).edges == (800, 1333)
    assert resized_for(known, "80x60", takes_padding=True).edges is None
    assert resized_for(known, None, takes_padding=True) is known


# --- models without names -------------------------------------------------------------------------


@pytest.fixture
def unnamed(nano, tmp_path):
    """The authors' own kind of file: weights, and no word about classes."""
    path = tmp_path / "mine.pth"
    torch.save({"ema": {"module": export_tensors(AUTHORS, nano.state_dict(), "")}}, path)
    return path


def test_a_model_without_names_is_judged_by_the_datas_if_it_has_as_many(unnamed, photos, capsys):
    assert load_pretrained(unnamed).metadata.names == ()
    told = said(capsys, "eval", str(unnamed), "--data", str(photos), "--size", "256", "--json")
    assert "its 10 classes have no names and are taken for those of the data: circle" in told.err
    assert json.loads(told.out)["AP"] == judged(capsys, "nano", photos)["AP"]
    assert Detector(load_pretrained(unnamed)).classes.names[3] == "class 3"


def test_names_can_be_given_and_must_be_the_datas(unnamed, photos, capsys):
    given = ("eval", str(unnamed), "--data", str(photos), "--size", "256", "--names")
    assert "taken" not in said(capsys, *given, ",".join(WORLD.names)).err
    assert main([*given, ",".join(reversed(WORLD.names))]) == 1
    assert "has the classes (10)" in capsys.readouterr().err
    assert main([*given, "cat,dog"]) == 1
    assert "2 names for the 10 classes" in capsys.readouterr().err


def test_a_model_without_names_keeps_its_heads_where_the_data_has_as_many(
    unnamed, photos, capsys, tmp_path
):
    few = ("--pictures", "2", "--batch-size", "2", "--val-limit", "1", "--out", str(tmp_path / "r"))
    told = said(capsys, "train", "--model", str(unnamed), "--data", str(photos), *few).out
    assert "class heads kept: the model's 10 classes have no names" in told
    assert load_pretrained(tmp_path / "r" / "model").metadata.names == tuple(WORLD.names)


def test_unnamed_classes_of_another_number_are_refused(unnamed, photos, tmp_path):
    tree = json.loads((photos / "val.json").read_text())
    tree["categories"].append({"id": 99, "name": "cat"})
    for path in photos.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "val.json").write_text(json.dumps(tree))
    from rtdetr_lab.commands.evaluate import check_classes

    data = CocoDataset.from_folder(tmp_path, "val")
    with pytest.raises(DataError, match="has 10 unnamed classes; the data has \\(11\\)"):
        check_classes(load_pretrained(unnamed), data.names, "mine.pth")


def test_float_pictures_and_lists_of_them_are_resized_too(nano):
    class Floats:
        names, category_ids = WORLD.names, WORLD.category_ids

        def __len__(self):
            return 3

        def __getitem__(self, index):
            sample = Resize((200, 320))(WORLD[index])
            return replace(sample, image=as_float(sample.image))

    whole, shown = evaluate(nano, First(WORLD, 3)), evaluate(nano, Floats())
    assert shown.num_objects == whole.num_objects
    assert shown.AP == pytest.approx(whole.AP, abs=0.15)
    assert np.isfinite(shown.AP)

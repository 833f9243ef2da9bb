"""`pipeline` and the loaders by `model_type`: what they read, return and refuse."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from small_api import SMALL, SMALL_DETR, picture

import rtdetr_lab as lab
from rtdetr_lab.errors import ConfigError, ImageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(1)
    lab.RTDetrForObjectDetection(lab.RTDetrConfig(**SMALL)).save_pretrained(path)
    lab.RTDetrImageProcessor(size={"height": 32, "width": 64}).save_pretrained(path)
    picture().save(path / "one.png")
    return path


@pytest.fixture
def address(folder):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_path_an_address_and_a_picture_give_the_same(folder, address):
    found = lab.pipeline("object-detection", model=str(folder), device=-1)
    told = [one["label"] for one in found(picture(), threshold=0.0)]
    assert len(told) == 10
    assert set(told) <= {"cat", "dog", "cow"}
    several = found([folder / "one.png", f"{address}/one.png"], threshold=0.0)
    assert several == [found(picture(), threshold=0.0)] * 2
    corners = several[0][0]["box"]
    assert list(corners) == ["xmin", "ymin", "xmax", "ymax"]
    assert all(type(value) is int for value in corners.values())


def test_the_options_of_loading_reach_the_model(folder):
    found = lab.pipeline("object-detection", model=str(folder), dtype=torch.bfloat16)
    assert found.model.dtype == torch.bfloat16
    assert len(found(picture(), threshold=0.0)) == 10
    named = {0: "ant", 1: "bee", 2: "fly"}
    found = lab.pipeline("object-detection", model=str(folder), device_map="cpu", id2label=named)
    assert {one["label"] for one in found(picture(), threshold=0.0)} <= set(named.values())


def test_what_is_behind_an_address_must_be_a_picture(folder, address):
    found = lab.pipeline("object-detection", model=str(folder))
    with pytest.raises(ImageError, match=r"none\.png: cannot be read: .*404"):
        found(f"{address}/none.png")
    with pytest.raises(ImageError):
        found(f"{address}/config.json")


def test_a_pipeline_that_cannot_be_made_says_why(folder):
    with pytest.raises(ConfigError, match=r"'translation'.* give one of object-detection"):
        lab.pipeline("translation", model=str(folder))
    model = lab.RTDetrForObjectDetection.from_pretrained(folder)
    with pytest.raises(ConfigError, match="image_processor: is missing"):
        lab.pipeline("object-detection", model=model)


def test_a_subtask_is_one_of_three():
    model = lab.DetrForSegmentation(lab.DetrConfig(**SMALL_DETR)).eval()
    found = lab.pipeline("image-segmentation", model, lab.DetrImageProcessor(size=40))
    with pytest.raises(ConfigError, match="subtask: is 'colour'"):
        found(picture(), subtask="colour")


def test_a_configuration_is_read_in_its_class_and_can_be_changed(folder, tmp_path):
    config = lab.AutoConfig.from_pretrained(folder, num_queries=7)
    assert type(config) is lab.RTDetrConfig
    assert (config.num_queries, config.id2label) == (7, {0: "cat", 1: "dog", 2: "cow"})
    lab.DetrConfig(**SMALL_DETR).save_pretrained(tmp_path)
    assert type(lab.AutoConfig.from_pretrained(tmp_path)) is lab.DetrConfig
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf8")
    with pytest.raises(ConfigError, match=r"model_type.*'bert'.* give one of rt_detr"):
        lab.AutoConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", ["RTDetr", "Detr"])
def test_prepared_pictures_share_a_canvas(kind):
    processor = getattr(lab, f"{kind}ImageProcessor")()
    given = [torch.ones(3, 4, 6), torch.ones(3, 5, 2)]
    found = processor.pad(given, return_tensors="pt")
    assert found["pixel_values"].shape == (2, 3, 5, 6)
    assert found["pixel_mask"].sum((1, 2)).tolist() == [24, 10]
    assert list(processor.pad(given, return_pixel_mask=False)) == ["pixel_values"]

"""The documented DETR classes: what they refuse, and what they do beyond their documentation."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_api import SMALL_DETR as SMALL

import rtdetr_lab as lab
from rtdetr_lab.checkpoints.transformers_config import to_transformers
from rtdetr_lab.config import replace_at
from rtdetr_lab.data.segment_map import id_to_rgb
from rtdetr_lab.errors import CheckpointError, ConfigError, DataError, ImageError, TargetError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return lab.DetrForSegmentation(lab.DetrConfig(**SMALL)).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64)


def label(classes=(0,), box=(0.5, 0.5, 0.2, 0.2), size=(64, 64)):
    boxes = torch.tensor([box] * len(classes)).reshape(-1, 4)
    masks = torch.zeros(len(classes), *size).bool()
    return {"class_labels": torch.tensor(classes).long(), "boxes": boxes, "masks": masks}


REFUSED = {
    "is_encoder_decoder": False,
    "num_channels": 1,
    "dilation": True,
    "position_embedding_type": "rope",
    "activation_function": "quick_gelu",
    "decoder_attention_heads": 5,
    "num_labels": 5,
    "backbone_config": {"model_type": "swin"},
}


@pytest.mark.parametrize("option", REFUSED)
def test_what_does_nothing_or_cannot_be_built_is_refused_by_name(option):
    with pytest.raises(ConfigError) as error:
        lab.DetrConfig(**{**SMALL, option: REFUSED[option]})
    assert option in str(error.value)


def test_weights_from_elsewhere_are_refused_and_unknown_words_named(tmp_path, model):
    config = lab.DetrConfig(use_pretrained_backbone=True)
    with pytest.raises(ConfigError, match="use_pretrained_backbone"):
        lab.DetrForObjectDetection(config)
    with pytest.raises(ConfigError, match=r"'rt_detr'.*'detr'"):
        lab.DetrModel(lab.RTDetrConfig())
    model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="attn_implementation"):
        lab.DetrModel.from_pretrained(tmp_path, attn_implementation="flash_attention_2")
    with pytest.raises(ConfigError, match="device_map"):
        lab.DetrModel.from_pretrained(tmp_path, device_map="balanced")
    with pytest.raises(ConfigError, match=r"'detr'.*'rt_detr'"):
        lab.RTDetrModel.from_pretrained(tmp_path)


BAD_LABELS = {
    "boxes in pixels": ([label(box=(20.0, 30.0, 10.0, 8.0)), label()], "fractions"),
    "a class out of range": ([label(), label((3,))], r"label 3 is outside 0 … 2"),
    "too few": ([label()], "2 pictures and 1 targets"),
    "masks of the wrong size": ([label(size=(60, 64))] * 2, "60×64 for pictures of 64×64"),
    "a mask without objects": ([{**label(), "masks": torch.zeros(64, 64)}, label()], r"masks\[0\]"),
    "no masks": ([{k: v for k, v in label().items() if k != "masks"}, label()], "has no masks"),
    "other counts": ([{**label(), "masks": torch.zeros(2, 64, 64)}, label()], "2 masks"),
    "a dictionary": (label(), "list with one dictionary"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_labels_that_contradict_themselves_are_refused(case, model, images):
    labels, says = BAD_LABELS[case]
    with pytest.raises((TargetError, ImageError), match=says) as error:
        model(images, labels=labels)
    assert isinstance(error.value, ValueError)


def test_masks_and_parts_that_do_not_fit_are_refused(model, images):
    with pytest.raises(ImageError, match="pixel_mask"):
        model(images, pixel_mask=torch.ones(2, 64, 60))
    with pytest.raises(ImageError, match="first pixel"):
        model(images, pixel_mask=torch.zeros(2, 64, 64))
    for mask in (torch.ones(2, 3), torch.zeros(2, 7)):
        with pytest.raises(ImageError, match="decoder_attention_mask"):
            model(images, decoder_attention_mask=mask)
    for name in ("encoder_outputs", "inputs_embeds", "decoder_inputs_embeds"):
        with pytest.raises(ConfigError, match=name):
            model(images, **{name: torch.zeros(1, 1)})
    with pytest.raises(ImageError, match="pixel_values"):
        lab.DetrModel.around(model.config, model.lab)()


@torch.no_grad()
def test_what_a_hidden_pixel_holds_changes_nothing(model, images):
    mask = torch.ones(2, 64, 64)
    mask[0, 40:] = 0
    plain = model(images, pixel_mask=mask)
    images[0, :, 40:] = 1e3
    assert torch.equal(model(images, pixel_mask=mask).pred_masks, plain.pred_masks)
    assert not torch.equal(model(images).logits, plain.logits)


@torch.no_grad()
def test_auxiliary_losses_change_no_answer(model, images):
    config = lab.DetrConfig(**SMALL, auxiliary_loss=True)
    taught = lab.DetrForSegmentation.around(config, model.lab)
    labels = [label((0, 2)), label(())]
    found, plain = taught(images, labels=labels), model(images, labels=labels)
    assert torch.equal(found.pred_boxes, plain.pred_boxes)
    assert {"loss_ce_0", "cardinality_error_0"} <= set(found.loss_dict) - set(plain.loss_dict)
    assert len(found.auxiliary_outputs) == 1
    inner = lab.DetrModel.around(config, model.lab)(images)
    assert inner.intermediate_hidden_states.shape == (2, 2, 7, 16)
    assert torch.equal(inner.intermediate_hidden_states[-1], inner.last_hidden_state)


def test_one_file_serves_all_classes(model, images, tmp_path, caplog):
    model.save_pretrained(tmp_path / "drawn")
    drawn = model(images)
    boxes = lab.AutoModelForObjectDetection.from_pretrained(tmp_path / "drawn", device_map="cpu")
    assert type(boxes) is lab.DetrForObjectDetection
    assert torch.equal(boxes(images).logits, drawn.logits)
    assert not any("mask_" in name for name in boxes.lab.state_dict())
    inner = lab.DetrModel.from_pretrained(tmp_path / "drawn")
    assert torch.equal(inner(images).last_hidden_state, drawn.last_hidden_state)
    boxes.save_pretrained(tmp_path / "boxes")
    again = lab.DetrForSegmentation.from_pretrained(tmp_path / "boxes")
    assert "new and must be trained: mask_attention" in caplog.text
    assert torch.equal(again(images).logits, drawn.logits)
    assert again(images).pred_masks.shape == drawn.pred_masks.shape


def test_changes_reach_the_model_or_are_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    found = lab.DetrForSegmentation.from_pretrained(tmp_path, dropout=0.3, bbox_cost=1)
    assert found.lab.cfg.decoder.dropout == 0.3
    assert found.lab.cfg.criterion.matcher.l1_cost == 1
    assert torch.equal(found.lab.class_head.weight, model.lab.class_head.weight)
    with pytest.raises(CheckpointError, match="query_positions"):
        lab.DetrForSegmentation.from_pretrained(tmp_path, num_queries=9)
    new = {"id2label": {0: "a"}, "ignore_mismatched_sizes": True}
    found = lab.DetrForObjectDetection.from_pretrained(tmp_path, **new)
    assert found.lab.class_head.out_features == 2


def test_names_of_the_backbone_and_pixels_stay_those_of_the_file(tmp_path, images):
    timm = {**SMALL, "backbone_config": None, "backbone": "resnet18"}
    config = lab.DetrConfig(**timm)
    lab.DetrForObjectDetection(config).save_pretrained(tmp_path)
    pixels = {"image_processor_type": "DetrImageProcessor", "image_mean": [0.1, 0.2, 0.3]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(pixels))
    first = lab.DetrForObjectDetection.from_pretrained(tmp_path)
    assert first.pixels.mean == (0.1, 0.2, 0.3)
    first.save_pretrained(tmp_path / "again")
    from safetensors import safe_open

    with safe_open(tmp_path / "again" / "model.safetensors", "pt") as file:
        assert any(".layer1.0.conv1." in name for name in file.keys())  # noqa: SIM118
    again = lab.DetrForObjectDetection.from_pretrained(tmp_path / "again")
    assert torch.equal(again(images).logits, first(images).logits)
    assert again.pixels == first.pixels
    assert again.config.backbone_config == config.backbone_config


def test_a_model_changed_into_what_transformers_cannot_say_is_not_saved(tmp_path, model):
    changed = copy.deepcopy(model)
    changed.lab.cfg = replace_at(changed.lab.cfg, "encoder.act", torch.nn.functional.gelu)
    with pytest.raises(ConfigError, match=r"encoder\.act: is .*gelu.* can only express"):
        changed.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_files_of_other_models_are_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "rt_detr"}))
    with pytest.raises(ConfigError, match=r"'rt_detr'.*'detr'"):
        lab.DetrForObjectDetection.from_pretrained(tmp_path)
    other = {"image_processor_type": "ConditionalDetrImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(other))
    with pytest.raises(ConfigError, match="'ConditionalDetrImageProcessor'"):
        lab.AutoImageProcessor.from_pretrained(tmp_path)


def test_a_licence_is_kept_and_a_card_is_not_overwritten(model, images, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    boxes = lab.DetrForObjectDetection.from_pretrained(tmp_path)
    boxes.save_pretrained(tmp_path)
    assert "Mine." in (tmp_path / "README.md").read_text()
    boxes.save_pretrained(tmp_path / "new")
    assert "license: mit" in (tmp_path / "new" / "README.md").read_text()


# --- annotations --------------------------------------------------------------------------------


def picture():
    return Image.fromarray(np.full((20, 30, 3), 7, np.uint8))


@pytest.fixture
def drawn(tmp_path):
    """A folder of one PNG, and what its segments_info should say."""
    ids = np.zeros((20, 30), np.int64)
    ids[:9], ids[12:] = 5, 300
    Image.fromarray(id_to_rgb(ids)).save(tmp_path / "1.png")
    return tmp_path, [{"id": 5, "category_id": 1}, {"id": 300, "category_id": 2}]


def panoptic(folder, segments, **changes):
    annotation = {"image_id": 1, "file_name": "1.png", "segments_info": segments, **changes}
    processor = lab.DetrImageProcessor(format="coco_panoptic", size={"height": 20, "width": 30})
    return processor(picture(), annotations=annotation, masks_path=folder, return_tensors="pt")


def test_segments_without_area_or_crowd_flag_are_counted(drawn):
    found = panoptic(*drawn)["labels"][0]
    assert found["area"].tolist() == [270, 240]
    assert found["iscrowd"].tolist() == [0, 0]
    assert found["masks"].sum((1, 2)).tolist() == [270, 240]


def test_a_segment_ends_on_its_last_pixel_and_may_be_a_crowd(drawn):
    """Theirs are boxes of pixels: 30 columns reach from 0 to 29."""
    folder, segments = drawn
    found = panoptic(folder, [segments[0], segments[1] | {"iscrowd": 1}])["labels"][0]
    assert found["iscrowd"].tolist() == [0, 1]
    wanted = [[14.5 / 30, 4 / 20, 29 / 30, 8 / 20], [14.5 / 30, 15.5 / 20, 29 / 30, 7 / 20]]
    torch.testing.assert_close(found["boxes"], torch.tensor(wanted))


def test_boxes_come_in_the_order_of_the_queries():
    scores = torch.tensor([[[0.6, 0.1, 0.3], [0.05, 0.9, 0.05], [0.2, 0.1, 0.7], [0.7, 0.1, 0.2]]])
    outputs = SimpleNamespace(logits=scores.log(), pred_boxes=torch.full((1, 4, 4), 0.5))
    (found,) = lab.DetrImageProcessor().post_process_object_detection(outputs)
    assert found["labels"].tolist() == [0, 1, 0]
    torch.testing.assert_close(found["scores"], torch.tensor([0.6, 0.9, 0.7]))


def test_a_map_and_a_list_that_disagree_are_refused(drawn):
    folder, segments = drawn
    with pytest.raises(DataError, match="1 of 2 segment ids are painted and not listed: 300"):
        panoptic(folder, segments[:1])
    with pytest.raises(DataError, match="1 of 3 segment ids are listed and not painted: 9"):
        panoptic(folder, [*segments, {"id": 9, "category_id": 1}])
    with pytest.raises(DataError, match=r"segments_info\]\[0\].*category_id"):
        panoptic(folder, [{"id": 5}])
    with pytest.raises(DataError, match="there is no"):
        panoptic(folder, segments, file_name="2.png")
    with pytest.raises(DataError, match="outside"):
        panoptic(folder, segments, file_name="../1.png")
    picture().resize((8, 8)).save(folder / "small.png")
    with pytest.raises(DataError, match=r"small\.png is 8×8, but the picture is 20×30"):
        panoptic(folder, segments, file_name="small.png")


DETECTION = {"image_id": 1, "annotations": []}
IGNORED = {
    "masks_path of polygons": ({"annotations": DETECTION, "masks_path": "."}, "masks_path"),
    "masks_path of nothing": ({"masks_path": "."}, "masks_path"),
    "masks of nothing": ({"return_segmentation_masks": True}, "return_segmentation_masks"),
    "no masks_path": (
        {"annotations": {"image_id": 1}, "format": "coco_panoptic"},
        "masks_path.*not given",
    ),
    "a misspelt option": ({"do_padd": True}, "do_padd"),
    "a format": ({"format": "voc"}, "'voc'.*coco_panoptic"),
}


@pytest.mark.parametrize("case", IGNORED)
@pytest.mark.parametrize("kind", ["DetrImageProcessor", "RTDetrImageProcessor"])
def test_what_a_processor_would_have_to_ignore_is_refused(case, kind):
    options, says = IGNORED[case]
    if kind == "RTDetrImageProcessor" and "format" in options:
        says = "format"  # it knows one only
    with pytest.raises(ConfigError, match=says):
        getattr(lab, kind)()(picture(), **options)


def test_annotations_that_do_not_fit_are_refused():
    processor = lab.DetrImageProcessor()
    with pytest.raises(DataError, match="2 images and 1 annotations"):
        processor([picture(), picture()], annotations=[DETECTION])
    with pytest.raises(DataError, match="format coco_panoptic"):
        processor(picture(), annotations=DETECTION, format="coco_panoptic", masks_path=".")
    with pytest.raises(DataError, match="format coco_detection"):
        processor(picture(), annotations={"image_id": 1, "segments_info": []})
    one = {"bbox": [1, 1, 5, 5], "category_id": 0, "area": 25}
    with pytest.raises(DataError, match="segmentation"):
        given = {**DETECTION, "annotations": [one]}
        processor(picture(), annotations=given, return_segmentation_masks=True)
    with pytest.raises(ConfigError, match="max_size"):
        lab.DetrImageProcessor(size={"shortest_edge": 8, "longest_edge": 9}, max_size=9)


def test_an_answer_without_masks_is_not_drawn(model, images):
    plain = lab.DetrForObjectDetection.around(model.config, model.lab)(images)
    with pytest.raises(ImageError, match="masks"):
        lab.DetrImageProcessor().post_process_panoptic_segmentation(plain)
    with pytest.raises(ImageError, match="1 sizes for 2 pictures"):
        lab.DetrImageProcessor().post_process_semantic_segmentation(model(images), [(3, 4)])


def test_colours_that_are_no_whole_numbers_are_refused():
    assert lab.rgb_to_id([[1.0, 2, 3]]).tolist() == [1 + 2 * 256 + 3 * 65536]
    with pytest.raises(DataError, match="not colours"):
        lab.rgb_to_id([[1.5, 2, 3]])


def test_pictures_are_put_on_one_canvas_by_hand_too():
    processor = lab.DetrImageProcessor()
    found = processor.pad_and_create_pixel_mask(
        [torch.ones(3, 4, 6), torch.ones(3, 5, 2)], return_tensors="pt"
    )
    assert found["pixel_values"].shape == (2, 3, 5, 6)
    assert found["pixel_mask"].sum((1, 2)).tolist() == [24, 10]


def test_a_dilated_resnet_with_three_maps_for_masks_is_saved(tmp_path):
    told = {"backbone": "resnet18", "dilation": True, "backbone_kwargs": {"out_indices": [2, 3, 4]}}
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 5}
    model = lab.DetrForSegmentation(lab.DetrConfig(**told, **sizes)).eval()
    model.save_pretrained(tmp_path)
    again = lab.DetrForSegmentation.from_pretrained(tmp_path)
    images = torch.rand(1, 3, 64, 96)
    assert again.lab.backbone.strides == (8, 16, 16)
    assert torch.equal(again(images).pred_masks, model(images).pred_masks)
    written = to_transformers(model.lab.cfg, ("cat", "dog"))["backbone_config"]
    assert written["model_type"] == "timm_backbone"
    assert (written["out_indices"], written["output_stride"]) == ([2, 3, 4], 16)


def test_release_4_is_told_that_there_is_no_backbone_of_timm():
    """Its defaults name one, and it refuses a file with both."""
    silent = {"backbone": None, "use_timm_backbone": False, "use_pretrained_backbone": False}
    config = lab.DetrConfig(**SMALL, dilation=None)  # null, as release 4 writes it
    written = config.to_dict(), to_transformers(config.to_lab(), config.names)
    for tree in written:
        assert {name: tree[name] for name in silent} == silent
        assert tree["dilation"] is False
    assert "use_timm_backbone" not in lab.DetrConfig().to_dict()

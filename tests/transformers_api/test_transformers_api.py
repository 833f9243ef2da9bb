"""The documented classes refuse what cannot be right, and say which part of it is wrong."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_api import SMALL, SMALL_DETR, label, picture

import rtdetr_lab as lab
from rtdetr_lab.errors import (
    ConfigError,
    DataError,
    ImageError,
    TargetError,
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return lab.RTDetrForObjectDetection(lab.RTDetrConfig(**SMALL)).eval()


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64)


REFUSED = {
    "with_box_refine": False,
    "eval_size": [640, 640],
    "anchor_image_size": [640, 640],
    "use_focal_loss": False,
    "disable_custom_kernels": False,
    "is_encoder_decoder": False,
    "backbone": "resnet50",
    "use_pretrained_backbone": True,
    "backbone_kwargs": {"out_indices": [1]},
    "eos_coefficient": 0.1,
    "decoder_attention_heads": 7,
    "encoder_activation_function": "quick_gelu",
    "num_labels": 5,
    "initializer_bias_prior_prob": 1.0,
}


@pytest.mark.parametrize("option", REFUSED)
def test_what_does_nothing_or_cannot_be_built_is_refused_by_name(option):
    with pytest.raises(ConfigError) as error:
        lab.RTDetrConfig(**{**SMALL, option: REFUSED[option]})
    assert isinstance(error.value, ValueError)
    words = {option, option.replace("decoder_attention_heads", "decoder.num_heads")}
    assert any(word in str(error.value) for word in words)


def test_learned_queries_and_a_bias_prior_work_here(images):
    options = {"learn_initial_query": True, "initializer_bias_prior_prob": 0.2}
    model = lab.RTDetrForObjectDetection(lab.RTDetrConfig(**{**SMALL, **options}))
    assert model(images).logits.shape == (2, 10, 3)
    bias = model.lab.decoder.class_heads[0].bias
    torch.testing.assert_close(bias.sigmoid(), torch.full((3,), 0.2))


def test_weights_start_with_the_documented_spread_if_it_is_changed():
    torch.manual_seed(0)
    config = lab.RTDetrConfig(**SMALL, initializer_range=0.5)
    found = lab.RTDetrForObjectDetection(config).lab
    for drawn in (found.encoder.ccff.downsample[0].conv, found.decoder.layers[1].self_attn.q_proj):
        assert drawn.weight.std().item() == pytest.approx(0.5, rel=0.1)
    kept = (found.decoder.box_heads[0].layers[-1].weight, found.decoder.layers[0].cross_attn)
    assert not kept[0].any(), "a box head starts with steps of zero"
    assert not kept[1].sampling_offsets.weight.any()
    config = lab.DetrConfig(**SMALL_DETR, init_std=0.25, init_xavier_std=3.0)
    found = lab.DetrForSegmentation(config).lab
    assert found.encoder.layers[0].ffn.fc1.weight.std().item() == pytest.approx(0.25, rel=0.15)
    bound = found.mask_attention.k_proj.weight.abs().max().item()
    assert bound == pytest.approx(3 * (6 / 32) ** 0.5, rel=0.05)


def test_a_configuration_of_another_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ConfigError, match=r"'bert'.*'rt_detr'"):
        lab.RTDetrForObjectDetection.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="'bert'"):
        lab.AutoModelForObjectDetection.from_pretrained(tmp_path)


BAD_LABELS = {
    "boxes in pixels": ([label(box=(20.0, 30.0, 10.0, 8.0)), label()], "fractions"),
    "a class out of range": ([label(), label((3,))], r"label 3 is outside 0 … 2"),
    "too few": ([label()], "2 pictures and 1 targets"),
    "other counts": (
        [label(), {"class_labels": torch.tensor([0, 1]), "boxes": torch.ones(1, 4) / 2}],
        "1 boxes and 2 labels",
    ),
    "without boxes": ([label(), {"class_labels": torch.tensor([0])}], r"labels\[1\].*boxes"),
    "a dictionary": (label(), "list with one dictionary"),
    "half a class": (
        [{**label(), "class_labels": torch.tensor([0.5])}, label()],
        r"labels\[0\].*whole numbers",
    ),
    "boxes in words": ([label(), {**label(), "boxes": "here"}], r"boxes\[1\].*is a str"),
    "an infinite box": ([label(box=(0.5, 0.5, float("inf"), 0.2)), label()], "not finite"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_labels_that_contradict_themselves_are_refused(case, model, images):
    labels, says = BAD_LABELS[case]
    with pytest.raises((TargetError, ImageError), match=says) as error:
        model(images, labels=labels)
    assert isinstance(error.value, ValueError)


def test_a_pixel_mask_changes_nothing_as_documented_and_a_part_must_fit(model, images):
    mask = torch.ones(2, 64, 64)
    mask[0, 40:] = 0
    assert torch.equal(model(images, pixel_mask=mask).logits, model(images).logits)
    for name in ("encoder_outputs", "inputs_embeds"):
        with pytest.raises(ConfigError, match=name):
            model(images, **{name: torch.zeros(1, 1)})


def test_annotations_that_do_not_fit_are_refused():
    processor = lab.RTDetrImageProcessor()
    fine = {"image_id": 1, "annotations": []}
    with pytest.raises(DataError, match="1 images and 2 annotations"):
        processor(picture(), annotations=[fine, fine])
    with pytest.raises(DataError, match="coco_detection"):
        processor(picture(), annotations={"image_id": 1, "segments_info": []})
    with pytest.raises(DataError, match="bbox"):
        processor(picture(), annotations={"image_id": 1, "annotations": [{"category_id": 1}]})
    with pytest.raises(ConfigError, match="coco_panoptic"):
        lab.RTDetrImageProcessor(format="coco_panoptic")
    for option in ({"size": {"height": 3}}, {"resample": 9}, {"data_format": "last"}):
        with pytest.raises(ConfigError, match=next(iter(option))):
            processor(picture(), **option)
    with pytest.raises(ImageError, match="1 sizes for 2 pictures"):
        outputs = SimpleNamespace(logits=torch.zeros(2, 3, 4), pred_boxes=torch.ones(2, 3, 4))
        processor.post_process_object_detection(outputs, target_sizes=[(3, 4)])


def test_floats_from_0_to_1_need_no_rescaling_and_stay_what_they_were():
    processor, bytes_ = lab.RTDetrImageProcessor(size={"height": 20, "width": 30}), picture()
    fractions = np.asarray(bytes_).astype(np.float32) / 255
    wanted = processor(bytes_, return_tensors="pt").pixel_values
    for given in (fractions, torch.from_numpy(fractions).permute(2, 0, 1), [fractions]):
        found = processor(given, do_rescale=False, return_tensors="pt").pixel_values
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(processor(given, return_tensors="pt").pixel_values, wanted)
    assert processor(bytes_, do_rescale=False, return_tensors="pt").pixel_values.max() == 7


def test_options_of_the_fast_processor_work_or_are_refused_by_name():
    processor = lab.RTDetrImageProcessorFast()
    plain = processor(picture(), return_tensors="pt").pixel_values
    told = {"device": "meta", "disable_grouping": True, "do_convert_rgb": True, "crop_size": None}
    moved = processor(picture(), return_tensors="pt", **told).pixel_values
    assert moved.device.type == "meta"
    assert moved.shape == plain.shape
    for name, value in {
        "device": "cpu", "do_convert_rgb": False, "do_center_crop": True,
        "crop_size": {"height": 3, "width": 3}, "default_to_square": True,
    }.items():  # fmt: skip
        with pytest.raises(ConfigError, match=name):
            processor(picture(), **{name: value})


def test_what_is_told_about_pushing_without_a_push_is_refused(model, tmp_path):
    processor = lab.RTDetrImageProcessor()
    for saved in (model, model.config, processor):
        with pytest.raises(ConfigError, match=r"push_to_hub.*repo_id would do nothing"):
            saved.save_pretrained(tmp_path, repo_id="me/mine")
        with pytest.raises(ConfigError, match="no option max_shard_size"):
            saved.save_pretrained(tmp_path, push_to_hub=True, max_shard_size="5GB")


def test_a_v2_is_written_once_with_the_scales_only_it_has(tmp_path, monkeypatch):
    from safetensors import safe_open

    from rtdetr_lab.checkpoints import save

    written, write = [], save.write_weights
    monkeypatch.setattr(save, "write_weights", lambda *a: written.append(a[0]) or write(*a))
    made = lab.RTDetrV2ForObjectDetection(lab.RTDetrV2Config(**SMALL)).eval()
    made.save_pretrained(tmp_path)
    assert written == [tmp_path / "model.safetensors"]
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert sum(name.endswith("n_points_scale") for name in file.keys()) == 2  # noqa: SIM118
    again = lab.AutoModelForObjectDetection.from_pretrained(tmp_path)
    assert type(again) is lab.RTDetrV2ForObjectDetection
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(again(images).logits, made(images).logits)


def annotated(**changes):
    one = {"bbox": [1, 2, 3, 4], "category_id": 1, "area": 12, "segmentation": [[1, 1, 5, 1, 5, 5]]}
    return {"image_id": 1, "annotations": [one | changes]}


def in_turn():
    """A crowd, a box without area, one beside the picture, and two that are learned."""
    names = ("bbox", "category_id", "area", "iscrowd")
    rows = [
        ([0, 0, 30, 20], 4, 600, 1),
        ([3, 4, 0, 5], 2, 9, 0),
        ([6, 4, 12, 8], 1, 70, 0),
        ([31, 0, 5, 5], 5, 25, 0),
        ([-3, 10, 9, 20], 3, 50, 0),
    ]
    return {"image_id": 8, "annotations": [dict(zip(names, row, strict=True)) for row in rows]}


@pytest.mark.parametrize("kind", ["RTDetrImageProcessor", "DetrImageProcessor"])
def test_annotations_become_labels_of_the_resized_picture(kind):
    """From 20 × 30 to 60 × 45: three times as high, half as wide again."""
    processor = getattr(lab, kind)(size={"height": 60, "width": 45})
    (found,) = processor(picture(), annotations=in_turn(), return_tensors="pt")["labels"]
    assert found["image_id"].tolist() == [8]
    assert found["class_labels"].tolist() == [1, 3]
    assert found["iscrowd"].tolist() == [0, 0]
    assert found["area"].tolist() == [70 * 4.5, 50 * 4.5]
    assert found["orig_size"].tolist() == [20, 30]
    assert found["size"].tolist() == [60, 45]
    wanted = [[12 / 30, 8 / 20, 12 / 30, 8 / 20], [3 / 30, 15 / 20, 6 / 30, 10 / 20]]
    torch.testing.assert_close(found["boxes"], torch.tensor(wanted))
    (plain,) = processor(picture(), annotations=in_turn(), do_convert_annotations=False)["labels"]
    assert plain["boxes"].tolist() == [[9, 12, 27, 36], [0, 30, 9, 60]]


def test_on_a_canvas_boxes_are_fractions_of_the_canvas():
    """Pictures of 20 × 30 and 12 × 50 share a canvas of 20 × 50."""
    wide = Image.new("RGB", (50, 12))
    given = {"annotations": [in_turn(), in_turn()], "return_tensors": "pt", "do_resize": False}
    found = lab.DetrImageProcessor()([picture(), wide], **given)
    upper, lower = found["labels"]
    assert found["pixel_mask"].sum((1, 2)).tolist() == [20 * 30, 12 * 50]
    torch.testing.assert_close(upper["boxes"][0], torch.tensor([12 / 50, 8 / 20, 12 / 50, 8 / 20]))
    torch.testing.assert_close(lower["boxes"][0], torch.tensor([12 / 50, 8 / 20, 12 / 50, 8 / 20]))


def test_a_picture_may_have_a_largest_height_and_a_largest_width():
    for most, size in (((30, 33), (22, 33)), ((26, 60), (26, 39))):
        size_of = {"max_height": most[0], "max_width": most[1]}
        processor = lab.RTDetrImageProcessor(size=size_of)
        assert processor(picture(), return_tensors="pt").pixel_values.shape == (1, 3, *size)


def test_every_picture_of_a_batch_is_prepared():
    batch = np.stack([np.full((20, 30, 3), v, np.uint8) for v in (10, 20, 40)])
    found = lab.RTDetrImageProcessor(do_resize=False)(batch, return_tensors="pt").pixel_values
    torch.testing.assert_close(255 * found.mean((1, 2, 3)), torch.tensor([10.0, 20, 40]))


def test_colours_are_moved_by_their_means_and_divided_by_their_deviations():
    told = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.4, 0.2], "do_normalize": True}
    found = lab.RTDetrImageProcessor(do_resize=False, **told)(picture(), return_tensors="pt")
    wanted = (7 / 255 - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 0.4, 0.2])
    torch.testing.assert_close(found.pixel_values[0, :, 3, 4], wanted)


WRONG_NUMBERS = {
    "a bbox of three": (annotated(bbox=[1, 2, 3]), r"annotations\]\[0\]\[bbox"),
    "a bbox in words": (annotated(bbox="here"), r"\[bbox"),
    "a bbox that is not finite": (annotated(bbox=[1, 2, float("nan"), 4]), r"\[bbox"),
    "a category's name": (annotated(category_id="cat"), r"\[category_id\]: is 'cat'"),
    "no area": (annotated(area=None), r"\[area"),
    "an id in words": ({"image_id": "x", "annotations": []}, r"\[image_id"),
    "a number": (3, "is a int"),
    "a mask of another picture": (
        annotated(segmentation={"size": [5, 5], "counts": [25]}),
        "5×5, but the picture is 20×30",
    ),
}


@pytest.mark.parametrize("kind", ["RTDetrImageProcessor", "DetrImageProcessor"])
@pytest.mark.parametrize("case", WRONG_NUMBERS)
def test_annotations_with_wrong_numbers_are_refused_where_they_stand(case, kind):
    if "mask" in case:
        pytest.importorskip("faster_coco_eval", reason="no [eval] extra; runs where it is")
    given, says = WRONG_NUMBERS[case]
    with pytest.raises(DataError, match=says):
        getattr(lab, kind)()(picture(), annotations=given, return_segmentation_masks="mask" in case)


IMPOSSIBLE = {
    "rescale_factor": 0.0,
    "image_mean": [0.5, 0.5],
    "image_std": 0.0,
    "pad_size": {"h": 3},
}


@pytest.mark.parametrize("option", IMPOSSIBLE)
def test_numbers_no_picture_can_be_prepared_with_are_refused_by_name(option):
    with pytest.raises(ConfigError, match=option):
        lab.RTDetrImageProcessor(**{option: IMPOSSIBLE[option]})
    with pytest.raises(ConfigError, match=option):
        lab.DetrImageProcessor()(picture(), **{option: IMPOSSIBLE[option]})


def test_tensors_in_annotations_and_sizes_are_numbers():
    one, box = annotated()["annotations"][0], [1.0, 2.0, 3.0, 4.0]
    tensors = {"bbox": torch.tensor(box), "category_id": torch.tensor(1), "area": np.float32(12)}
    given = {"image_id": torch.tensor(1), "annotations": [one | tensors]}
    found = lab.RTDetrImageProcessor()(picture(), given, return_tensors="pt").labels[0]
    plain = lab.RTDetrImageProcessor()(picture(), annotated(), return_tensors="pt").labels[0]
    assert all(torch.equal(found[name], plain[name]) for name in plain)
    outputs = SimpleNamespace(logits=torch.zeros(2, 3, 4), pred_boxes=torch.ones(2, 3, 4) / 2)
    post_process = lab.RTDetrImageProcessor().post_process_object_detection
    listed = post_process(outputs, 0.0, [torch.tensor([30, 40]), torch.tensor([50, 60])])
    expected = post_process(outputs, 0.0, [(30, 40), (50, 60)])
    assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(listed, expected, strict=True))
    as_dictionary = post_process(vars(outputs), 0.0, [(30, 40), (50, 60)])
    assert torch.equal(as_dictionary[1]["boxes"], expected[1]["boxes"])


def test_options_may_be_given_in_their_documented_order():
    given = annotated(segmentation=[[1, 1, 5, 1, 5, 5]])
    pytest.importorskip("faster_coco_eval", reason="no [eval] extra; runs where it is")
    found = lab.DetrImageProcessor().preprocess(picture(), given, True, None, return_tensors="pt")
    assert found.labels[0]["masks"].any()


@pytest.mark.parametrize("kind", ["RTDetr", "RTDetrV2", "Detr"])
def test_the_model_inside_shares_its_parts(kind, images):
    config = getattr(lab, f"{kind}Config")(**(SMALL_DETR if kind == "Detr" else SMALL))
    made = getattr(lab, f"{kind}ForObjectDetection")(config).eval()
    assert type(made.model) is type(made.base_model) is getattr(lab, f"{kind}Model")
    assert made.model.base_model.training is False
    assert made.model.backbone is made.backbone is made.lab.backbone
    inner, outer = made.model(images), made(images)
    assert torch.equal(inner.last_hidden_state, outer.last_hidden_state)
    assert not hasattr(made.model, "model")


@pytest.mark.parametrize("sizes", [[(3, 4, 5)] * 2, "ab", [(0, 4)] * 2, [(-1, 4)] * 2, [3, 4]])
@pytest.mark.parametrize("what", ["object_detection", "instance_segmentation"])
def test_target_sizes_that_are_none_are_refused(sizes, what):
    outputs = SimpleNamespace(
        logits=torch.zeros(2, 3, 4),
        pred_boxes=torch.ones(2, 3, 4),
        pred_masks=torch.ones(2, 3, 5, 5),
    )
    with pytest.raises(ImageError, match="target_sizes"):
        getattr(lab.DetrImageProcessor(), f"post_process_{what}")(outputs, target_sizes=sizes)


def test_outputs_are_reached_by_name_key_and_place(model, images):
    output = model(images)
    assert output.logits is output["logits"] is output[0]
    assert output[:2] == output.to_tuple()[:2] == model_tuple(output)
    assert "loss" not in output
    assert isinstance(model(images, return_dict=False), tuple)


def model_tuple(output):
    return (output.logits, output.pred_boxes)


def test_without_auxiliary_losses_only_the_last_layer_is_judged(images):
    config = lab.RTDetrConfig(**{**SMALL, "auxiliary_loss": False})
    output = lab.RTDetrForObjectDetection(config)(images, labels=[label(), label((1, 2))])
    assert set(output.loss_dict) == {"loss_vfl", "loss_bbox", "loss_giou"}
    assert output.auxiliary_outputs is None


def test_looking_in_changes_no_answer(model, images):
    double = lab.RTDetrForObjectDetection.around(model.config, model.lab.double())
    plain = double(images.double())
    seen = double(images.double(), output_attentions=True, output_hidden_states=True)
    model.lab.float()
    torch.testing.assert_close(seen.logits, plain.logits, rtol=0, atol=1e-12)


def test_a_frozen_backbone_learns_nothing_until_it_thaws(model):
    model.freeze_backbone()
    assert not any(p.requires_grad for p in model.lab.backbone.parameters())
    assert any(p.requires_grad for p in model.parameters())
    model.unfreeze_backbone()
    assert all(p.requires_grad for p in model.lab.backbone.parameters())

"""A file written from a model finds what the model finds, in runtimes that know nothing of it.

Unhooked: while a graph with any size is traced, a height is a symbol and no `int`.
"""

import json
from functools import cache

import pytest
import torch
from small import SMALL_DFINE, shaken, small

from rtdetr_lab.boxes import iou
from rtdetr_lab.cli import main
from rtdetr_lab.deployment.bench.spread import spread
from rtdetr_lab.deployment.onnx_file import Ranked, export_onnx, export_pt2, facts_of, onnx_bytes
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.images.decode import decode
from rtdetr_lab.images.postprocess import ranked_table
from rtdetr_lab.images.preprocess import Preprocess
from rtdetr_lab.masks.query_masks import QueryMasks, with_masks
from rtdetr_lab.model import Metadata, by_sigmoid
from rtdetr_lab.rtdetr import rtdetr_r18
from rtdetr_lab.rtdetrv2 import discrete

pytest.importorskip("onnxscript", reason="torch's exporter needs it; runs with the extra [export]")
SIZE = (96, 64)


def nano_pictures(count):
    """Pictures of shapes that nano detects in, and their pixels as nano sees them."""
    from rtdetr_lab.data.shapes import ShapesConfig, draw

    scenes = [draw(ShapesConfig(), 7, i) for i in range(count)]
    return Preprocess((256, 256)).batch([scene.image for scene in scenes])


def in_onnxruntime(file):
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(*tensors):
        names = [given.name for given in session.get_inputs()]
        feed = {n: t.numpy() for n, t in zip(names, tensors, strict=True)}
        return [torch.from_numpy(found) for found in session.run(None, feed)]

    return run


def in_openvino(file):
    import openvino

    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(file, b""), "CPU", exact)

    def run(*tensors):
        found = compiled([t.numpy() for t in tensors])
        return [torch.from_numpy(found[i].copy()) for i in range(len(compiled.outputs))]

    return run


RUNTIMES = {"onnxruntime": in_onnxruntime, "openvino": in_openvino}


def same_detections(a, b, threshold=0.3, share=1.0):
    """Matched by box: the same labels, half a pixel, scores to a thousandth, for such a share."""
    (boxes, scores, labels), (others, others_scores, others_labels) = a, b
    kept = scores > threshold
    assert kept.any(), "nothing to compare"
    overlap = iou(boxes[kept], others) - 2 * (labels[kept][:, None] != others_labels)
    # Of boxes in one place the one with the nearer score.
    match = (overlap - 0.5 * (scores[kept][:, None] - others_scores).abs()).argmax(1)
    alike = labels[kept] == others_labels[match]
    alike &= (boxes[kept] - others[match]).abs().amax(1) <= 0.5
    alike &= (scores[kept] - others_scores[match]).abs() <= 1e-3
    assert alike.double().mean() >= share


@pytest.fixture(scope="module")
def nano_file():
    from rtdetr_lab.checkpoints.load import load_pretrained

    return onnx_bytes(load_pretrained("nano"), (256, 256), postprocessing=True)


@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
def test_nano_detects_the_same_in_batches_of_one_two_and_five(nano_file, runtime):
    from rtdetr_lab.checkpoints.load import load_pretrained
    from rtdetr_lab.images.postprocess import postprocess

    pytest.importorskip(runtime.__name__.removeprefix("in_"), reason="runs with [export]")
    model, images, run = load_pretrained("nano"), nano_pictures(5), runtime(nano_file)
    sizes = [(480, 640), (256, 256), (300, 200), (512, 512), (100, 100)]
    with torch.no_grad():
        found = postprocess(model(images), sizes, 0.3)
    for count in (1, 2, 5):
        boxes, scores, labels = run(images[:count], torch.tensor(sizes[:count]).float())
        for i in range(count):
            ours = (found[i].boxes_xyxy, found[i].scores, found[i].labels)
            same_detections(ours, (boxes[i], scores[i], labels[i]))


def test_a_file_says_its_classes_size_pixels_and_licence(nano_file):
    import onnx

    facts = {p.key: p.value for p in onnx.load_from_string(nano_file).metadata_props}
    renumbered = small().build()
    renumbered.metadata = Metadata(("cat", "dog", "eel"), (7, 3, 12))
    told = facts_of(renumbered, SIZE)
    assert json.loads(told["category_ids"]) == [7, 3, 12]
    assert json.loads(told["size"]) == list(SIZE)
    assert json.loads(facts["names"])[1:3] == ["ellipse", "ring"]
    assert json.loads(facts["category_ids"])[1:3] == [2, 3]
    assert json.loads(facts["size"]) == [256, 256]
    assert "float32 in [0, 1], stretched" in facts["preprocessing"]
    assert facts["licence"] == "Apache-2.0"


def photos_of(where, shared):
    """Five photos, whatever their sizes."""
    if where == "scikit-image":
        import skimage.data

        names = ("astronaut", "chelsea", "coffee", "rocket", "colorwheel")
        return [getattr(skimage.data, name)() for name in names]
    return sorted(shared("data/coco_ccby/images").rglob("*.jpg"))[:5]


@cache
def spread_r18(ranked):
    """The model and its file: bilinear, of one size and ranked, or discrete, of any and raw."""
    torch.manual_seed(0)
    model = spread((rtdetr_r18() if ranked else discrete(rtdetr_r18())).build())
    return model, onnx_bytes(model, (640, 640) if ranked else None, postprocessing=ranked)


def as_one(answer):
    """Row by row (boxes, scores, labels) of a batch of two raw tensors, in pixels of 640²."""
    rows = ranked_table(by_sigmoid, *answer, torch.full((len(answer[0]), 2), 640.0))
    return [(one[:, :4], one[:, 4], one[:, 5].long()) for one in rows]


@pytest.mark.full
@pytest.mark.parametrize("where", ["coco_ccby", "scikit-image"])
@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
@pytest.mark.parametrize("sampling", ["bilinear, one size, ranked", "discrete, any size, raw"])
def test_a_spread_r18_finds_the_same_in_photos(where, runtime, sampling, shared):
    """Random weights that have opinions, at the full size, in batches of one, two and five."""
    pytest.importorskip(runtime.__name__.removeprefix("in_"), reason="runs with [export]")
    ranked = sampling.endswith("ranked")
    images = Preprocess((640, 640)).batch([decode(one) for one in photos_of(where, shared)])
    model, file = spread_r18(ranked)
    run = runtime(file)
    with torch.no_grad():
        whole = [model(one[None]) for one in images]
        expected = [as_one((one.logits, one.boxes))[0] for one in whole]
    for count in (1, 2, 5):
        if ranked:
            sizes = torch.full((count, 2), 640.0)
            found = list(zip(*run(images[:count], sizes), strict=True))
        else:
            found = as_one(run(images[:count]))
        for ours, theirs in zip(expected[:count], found, strict=True):
            # A point that rounding puts on the other side of a cell's edge reads another cell.
            same_detections(ours, theirs, share=1.0 if ranked else 0.98)


@pytest.mark.parametrize("size", [SIZE, pytest.param(None, marks=pytest.mark.full)])
@pytest.mark.parametrize(
    "cfg",
    [
        with_masks(discrete(small()), QueryMasks(8)),
        pytest.param(SMALL_DFINE, marks=pytest.mark.full),
    ],
    ids=["discrete with masks", "dfine"],
)
def test_discrete_sampling_raw_answers_and_masks(size, cfg, tmp_path):
    pytest.importorskip("onnxruntime", reason="runs with the extra [export]")
    model = shaken(cfg.build()).eval()
    run = in_onnxruntime(export_onnx(model, tmp_path / "m.onnx", size).read_bytes())
    for height, width in [SIZE] if size else [SIZE, (128, 160)]:
        images = torch.rand(3, 3, height, width)
        with torch.no_grad():
            wanted = model(images)
        logits, boxes, *masks = run(images)
        assert (logits - wanted.logits).abs().max() <= 1e-4
        assert (boxes - wanted.boxes).abs().max() <= 1e-4
        assert len(masks) == model.draws_masks
        assert all((drawn - wanted.masks).abs().max() <= 1e-3 for drawn in masks)


@torch.no_grad()
def test_ranked_masks_are_those_of_the_queries_of_the_rows():
    model = shaken(with_masks(small(), QueryMasks(8)).build()).eval()
    images, sizes = torch.rand(2, 3, *SIZE), torch.tensor([[50.0, 70.0], [96.0, 64.0]])
    found, (*_, masks) = model(images), Ranked(model)(images, sizes)
    queries = by_sigmoid(found.logits)[2]
    for picture in range(2):
        assert torch.equal(masks[picture], found.masks[picture][queries[picture]])


@pytest.mark.full
@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
def test_a_bilinear_model_takes_any_size_that_32_divides(runtime):
    model = shaken(small().build()).eval()
    run = runtime(onnx_bytes(model, None))
    for batch, height, width in [(1, 96, 64), (2, 128, 160), (5, 64, 224)]:
        images = torch.rand(batch, 3, height, width)
        with torch.no_grad():
            wanted = model(images)
        logits, boxes = run(images)
        assert (logits - wanted.logits).abs().max() <= 1e-4
        assert (boxes - wanted.boxes).abs().max() <= 1e-4


def test_pt2_comes_back_for_any_batch(tmp_path):
    model = shaken(small().build()).double().eval()
    program = torch.export.load(export_pt2(model, tmp_path / "m.pt2", SIZE))
    for batch in (1, 4):
        images = torch.rand(batch, 3, *SIZE).double()
        with torch.no_grad():
            logits, boxes = program.module()(images)
            wanted = model(images)
        assert (logits - wanted.logits).abs().max() <= 1e-9
        assert (boxes - wanted.boxes).abs().max() <= 1e-9
    with pytest.raises(ConfigError, match="pt2"):
        export_pt2(model, tmp_path / "m.zip")


@pytest.mark.full
def test_the_command_writes_either_kind(tmp_path, capsys):
    assert main(["export", "nano", "--out", str(tmp_path / "nano.onnx")]) == 0
    assert main(["export", "nano", "--out", str(tmp_path / "nano.pt2")]) == 0
    assert (tmp_path / "nano.onnx").stat().st_size > 3e6


def test_a_kind_it_does_not_know_is_refused(tmp_path, capsys):
    assert main(["export", "nano", "--out", str(tmp_path / "nano.trt")]) == 1
    assert ".onnx or .pt2" in capsys.readouterr().err

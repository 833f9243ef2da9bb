"""An engine says what the detector says, for every switch, from any thread, at any time."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from small import rebuilt, shaken, small

from rtdetr_lab.deployment.backends import OnnxRuntime, OpenVINO, PyTorch
from rtdetr_lab.deployment.engine import Engine
from rtdetr_lab.deployment.pixels import stretch
from rtdetr_lab.deployment.stream import Aside
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import ConfigError, ImageError
from rtdetr_lab.images.postprocess import found_in, ranked_table
from rtdetr_lab.images.preprocess import Preprocess
from rtdetr_lab.kernels.onednn import PackedConv, can_pack
from rtdetr_lab.model import by_sigmoid, by_softmax

SIZE = (96, 64)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return shaken(small().build()).eval()


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    shapes = [(80, 60), (50, 90), (96, 64), (33, 47), (120, 30), (64, 64), (10, 200)]
    return [rng.integers(0, 256, (*s, 3), dtype=np.uint8) for s in shapes]


def rows(found):
    return torch.cat([found.boxes_xyxy, found.scores[:, None], found.labels[:, None]], 1)


def alike(a, b, tolerance=1e-3):
    return len(a) == len(b) and bool((rows(a) - rows(b)).abs().max() <= tolerance)


def test_it_finds_what_the_detector_finds_one_by_one_and_in_batches(model, frames):
    detector, engine = Detector(model, size=SIZE), Engine(model, SIZE, (1, 4), device="cpu")
    expected = detector(frames, threshold=0.0)
    assert all(alike(a, b) for a, b in zip(engine(frames, 0.0), expected, strict=True))
    assert alike(engine(frames[1], 0.0), expected[1])
    assert engine([]) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_any_length_goes_through_its_buckets(model, dtype):
    model = copy.deepcopy(model).to(dtype)
    engine = Engine(model, SIZE, (1, 3), dtype, "cpu")
    images = torch.rand(5, 3, *SIZE, dtype=dtype)
    with torch.no_grad():
        answer = model(images)
    for sizes in (None, [(40 + i, 90 - 7 * i) for i in range(5)]):
        size = torch.tensor(sizes or [SIZE] * 5).float()
        expected = ranked_table(by_sigmoid, answer.logits, answer.boxes, size)
        for count in (1, 2, 3, 5):
            got = engine.answer(images[:count], sizes and sizes[:count])
            assert got.shape == (count, 10, 7)
            off = (got - expected[:count]).abs().max()
            assert off <= (1e-9 if dtype == torch.float64 else 1e-2)
    with pytest.raises(ConfigError, match="the engine has"):
        engine.answer(torch.rand(1, 3, 32, 32))


def test_a_batch_runs_in_the_smallest_bucket_that_holds_it(model):
    engine, ran = Engine(model, SIZE, (1, 3, 8), device="cpu"), []
    bucket = engine.buckets[SIZE]
    run, bucket.run = bucket.run, lambda images: ran.append(len(images)) or run(images)
    for count in (1, 2, 3, 5, 9):
        engine.answer(torch.rand(count, 3, *SIZE))
    assert ran == [1, 3, 3, 8, 8, 1]


def test_bfloat16_moves_scores_and_not_coordinates(model, frames):
    exact = Engine(model, SIZE, 1, device="cpu")
    rounded = Engine(model, SIZE, 1, torch.bfloat16, "cpu")
    images = torch.rand(1, 3, *SIZE)
    a, b = exact.answer(images)[0], rounded.answer(images)[0]
    assert 0 < (a[:, 4] - b[:, 4]).abs().max() <= 0.03
    pixels = b[:, :4]
    assert (pixels.bfloat16().float() != pixels).any(), "boxes are finer than bfloat16"


def test_two_sizes_and_three_batches_through_one_engine(model, frames):
    engine = Engine(model, [(96, 64), (64, 96)], (1, 2, 4), device="cpu")
    for frame, found in zip(frames, engine(frames, 0.0), strict=True):
        size = engine.bucket_of(frame)
        assert size == ((64, 96) if frame.shape[1] > frame.shape[0] else (96, 64)) or (
            frame.shape[0] == frame.shape[1]
        )
        assert alike(found, Detector(model, size=size)(frame, 0.0))


def test_of_two_sizes_of_one_shape_the_nearer_is_taken(model):
    engine = Engine(model, [(64, 32), (128, 64)], device="cpu")
    sides = ((50, 25), (70, 35), (120, 60), (400, 200))
    chosen = [engine.bucket_of(np.zeros((*side, 3), np.uint8)) for side in sides]
    assert chosen == [(64, 32), (64, 32), (128, 64), (128, 64)]


def test_eight_threads_get_what_one_gets(model, frames):
    engine = Engine(model, SIZE, (1, 2), device="cpu")
    expected = [engine(frame, 0.0) for frame in frames]
    start = threading.Barrier(8)

    def ask(worker):
        start.wait()
        order = np.random.default_rng(worker).permutation(len(frames))
        return all(alike(engine(frames[i], 0.0), expected[i], 0.0) for i in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))


@pytest.mark.parametrize("calls", [300, pytest.param(2000, marks=pytest.mark.full)])
def test_memory_does_not_grow_with_calls(calls):
    engine = Engine(small_and_quick(), (32, 32), 1, device="cpu")
    image = torch.rand(1, 3, 32, 32)
    for _ in range(50):
        engine.answer(image)
    before = resident()
    for _ in range(calls):
        engine.answer(image)
    assert resident() - before <= 4e6


def small_and_quick():
    changes = {"encoder.aifi": None, "decoder.num_layers": 1, "selection.num_queries": 5}
    return shaken(small(changes).build()).eval()


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def test_a_photo_that_a_viewer_turns_is_seen_upright(model, frames, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(frames[1]).save(tmp_path / "a.png", exif=exif)
    found = Engine(model, SIZE, device="cpu")(tmp_path / "a.png", 0.0)
    assert found.size == (90, 50)
    assert alike(found, Detector(model, size=SIZE)(tmp_path / "a.png", 0.0))


@pytest.mark.parametrize("backend", [OnnxRuntime(), OpenVINO()], ids=repr)
def test_an_answer_stays_when_the_next_batch_comes(backend):
    """Its logits are the pixels, and its boxes the negated pixels."""
    reason = "runs with the extra [export]"
    for runtime in ("onnxruntime", "openvino"):
        pytest.importorskip(runtime, reason=reason)
    make = pytest.importorskip("onnx", reason=reason).helper
    names = ("images", "logits", "boxes")
    given, *answers = (make.make_tensor_value_info(n, 1, ["N", 3, 2, 4]) for n in names)
    nodes = [make.make_node("Abs", ["images"], ["logits"])]
    nodes += [make.make_node("Neg", ["images"], ["boxes"])]
    graph = make.make_graph(nodes, "twice", [given], answers)
    file = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=9)
    run = backend.load(file.SerializeToString())
    first, second = torch.rand(2, 1, 3, 2, 4)
    logits, boxes = run(first)
    assert torch.equal(run(second)[0], second)
    assert torch.equal(logits, first)
    assert torch.equal(boxes, -first)


def test_a_stream_is_in_order_and_names_what_it_cannot_read(model, frames, tmp_path):
    Image.fromarray(frames[0]).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    sources = [tmp_path / "a.png", frames[1], tmp_path / "b.png", *frames[2:], b"nothing"]
    engine = Engine(model, SIZE, (1, 2), device="cpu")
    found = list(engine.stream(iter(sources), threshold=0.0))
    assert isinstance(found[2], ImageError)
    assert "b.png" in str(found[2])
    assert str(found[-1]).startswith(f"pictures[{len(sources) - 1}]")
    assert found[0].source.endswith("a.png")
    readable = [f for f in found if not isinstance(f, ImageError)]
    expected = engine([frames[0], frames[1], *frames[2:]], 0.0)
    assert all(alike(a, b) for a, b in zip(readable, expected, strict=True))


def test_a_stream_reads_a_little_ahead_and_stops_with_its_reader(model, frames):
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield frames[0]

    engine = Engine(model, SIZE, 2, device="cpu")
    stream = engine.stream(endless(), ahead=2)
    next(stream)
    stream.close()
    assert 2 <= len(asked) <= 12
    assert not [t for t in threading.enumerate() if t.name.startswith("read-ahead")]


def test_the_next_frame_is_read_while_this_one_is_computed(model, frames):
    """Computing the first waits for the second to be read: without overlap, for ever."""
    read = [threading.Event() for _ in frames]

    def source():
        for event, frame in zip(read, frames, strict=True):
            event.set()
            yield frame

    engine = Engine(model, SIZE, 1, device="cpu")
    (bucket,) = engine.buckets.values()
    computed, compute = [], bucket.run

    def run(images):
        waited_for = min(len(computed) + 1, len(frames) - 1)
        computed.append(read[waited_for].wait(timeout=120))
        return compute(images)

    bucket.run = run
    assert len(list(engine.stream(source()))) == len(frames)
    assert computed == [True] * len(frames)


def test_what_is_made_on_another_stream_is_waited_for_before_it_is_used(monkeypatch):
    """The order of calls; what a GPU makes of it, a GPU has to say."""
    said = []

    class Stream:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            said.append(f"on {self.name}")

        def __exit__(self, *_):
            said.append(f"off {self.name}")

        def wait_stream(self, other):
            said.append(f"{self.name} waits for {other.name}")

    class Made(torch.Tensor):
        def record_stream(self, stream):
            said.append(f"kept for {stream.name}")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("side"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("main"))
    made = Aside(torch.device("cuda"))(
        lambda: said.append("made") or torch.ones(1).as_subclass(Made)
    )
    assert made == 1
    assert said == ["on side", "made", "off side", "main waits for side", "kept for main"]
    assert Aside(torch.device("cpu"))(lambda: torch.ones(1)) == 1


def test_an_error_of_the_source_itself_arrives(model, frames):
    def broken():
        yield frames[0]
        raise OSError("camera unplugged")

    stream = Engine(model, SIZE, 1, device="cpu").stream(broken())
    with pytest.raises(OSError, match="unplugged"):
        list(stream)


def test_the_model_given_may_change_afterwards(frames):
    own = shaken(small().build()).eval()
    engine = Engine(own, SIZE, 1, device="cpu")
    before = engine(frames[0], 0.0)
    with torch.no_grad():
        own.decoder.class_heads[-1].bias += 5
    assert alike(engine(frames[0], 0.0), before, 0.0)
    assert own.training is False
    assert next(own.parameters()).requires_grad


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"batch": 0}, "at least one"),
        ({"size": (0, 4)}, "height"),
        ({"backend": PyTorch(graphed=True)}, "CUDA graph"),
        ({"backend": OnnxRuntime(), "dtype": torch.bfloat16}, "cannot run in"),
        ({"backend": OpenVINO(), "dtype": torch.float64}, "cannot run in"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(model, bad, match):
    with pytest.raises(ConfigError, match=match):
        Engine(model, **{"device": "cpu", **bad})


def test_nan_is_named_and_not_an_empty_picture(frames):
    own = shaken(small().build()).eval()
    with torch.no_grad():
        own.decoder.class_heads[-1].bias.fill_(torch.nan)
    with pytest.raises(ImageError, match="NaN"):
        Engine(own, SIZE, 1, device="cpu")(frames[0])


@pytest.mark.parametrize("shape", [(7, 11), (96, 64), (480, 333), (31, 640), (64, 1)])
def test_two_products_stretch_a_picture_as_pillow_does(shape):
    rgb = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    pillow = Preprocess(SIZE)(rgb)
    exact = stretch(torch.from_numpy(rgb), SIZE, torch.float64)
    assert torch.equal((exact * 255).round(), (pillow * 255).round().double())
    single = stretch(torch.from_numpy(rgb), SIZE)
    off = (single - pillow).abs() * 255
    assert off.max() <= 1.01
    assert (off > 0.5).double().mean() <= 0.03


def every_pair(logits):
    """RT-DETR by hand: (score, label, query) of the best Q pairs."""
    scores = logits.sigmoid().tolist()
    pairs = [(s, c, q) for q, row in enumerate(scores) for c, s in enumerate(row)]
    return sorted(pairs, reverse=True)[: len(logits)]


def every_query(logits):
    """DETR by hand: the same of every query with its best class that is not the last."""
    scores = logits.softmax(-1).tolist()
    best = [(max(row[:-1]), row.index(max(row[:-1])), q) for q, row in enumerate(scores)]
    return sorted(best, reverse=True)


@pytest.mark.parametrize(("rank", "by_hand"), [(by_sigmoid, every_pair), (by_softmax, every_query)])
def test_the_table_holds_what_a_reader_would_rank_by_hand(rank, by_hand):
    sizes = torch.tensor([[30.0, 40.0], [5.0, 70.0]])
    logits, boxes = torch.randn(2, 6, 4).double(), torch.rand(2, 6, 4).double()
    found = found_in(ranked_table(rank, logits, boxes, sizes), 0.3)
    for one, own, places, (height, width) in zip(found, logits, boxes, sizes.tolist(), strict=True):
        wanted = [row for row in by_hand(own) if row[0] > 0.3]
        assert one.scores.tolist() == pytest.approx([s for s, _, _ in wanted])
        assert one.labels.tolist() == [c for _, c, _ in wanted]
        assert one.queries.tolist() == [q for _, _, q in wanted]
        for box, (_, _, q) in zip(one.boxes_xyxy.tolist(), wanted, strict=True):
            x, y, w, h = places[q].tolist()
            corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
            assert box == pytest.approx([corners[i] * (width, height)[i % 2] for i in range(4)])


@pytest.mark.skipif(
    not can_pack(torch.float32), reason="this torch has no oneDNN; runs where it has"
)
@pytest.mark.parametrize("size", [SIZE, (80, 48)], ids=["even maps", "odd maps"])
def test_packed_kernels_answer_as_the_layers_they_replace(size):
    exact = rebuilt(small())
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        wanted = exact(images.double())
        theirs = exact.float()(images)
    rows = Engine(exact, size, 2, device="cpu").answer(images)
    sizes = torch.tensor([size] * 2).float()
    table = ranked_table(by_sigmoid, wanted.logits, wanted.boxes, sizes)
    eager = ranked_table(by_sigmoid, theirs.logits, theirs.boxes, sizes)
    assert (rows - table).abs().max() <= 2 * (eager - table).abs().max() + 1e-4


def test_a_processor_without_bfloat16_runs_it_unpacked(model, frames, monkeypatch):
    """AVX2 alone: oneDNN refuses to lay such weights out, and torch computes all the same."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert not can_pack(torch.bfloat16)
    assert not can_pack(torch.float64)
    plain = Engine(model, SIZE, 1, torch.bfloat16, "cpu")
    assert not any(isinstance(m, PackedConv) for m in plain.buckets[SIZE].run.modules())
    exact = Engine(model, SIZE, 1, device="cpu")(frames[0], threshold=0.0)
    assert (plain(frames[0], threshold=0.0).scores - exact.scores).abs().max() < 0.1

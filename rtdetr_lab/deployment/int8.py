"""# INT8: eight bits up to the selection of queries, floating point from there on

    rtdetr-lab export r18 --out r18.onnx --int8 --calibrate photos/    # for onnxruntime
    rtdetr-lab export r18 --out r18.xml --int8 --calibrate photos/     # for OpenVINO
    engine = Engine(model, backend=OpenVINO(calibrate=pictures))

An integer of eight bits has 256 values. Calibration runs the model on pictures and notes the range
of every tensor; its 256 values then divide that range into equal steps.

Backbone, encoder, value projections and the scores of the tokens are nearly all of the work. Each
of their outputs is a sum of many terms, which averages the rounding, so they compute in eight bits.
Everything after the top-k stays in floating point. Boxes and sampling points are coordinates: one
step of 1/256 is 2.5 px in a picture of 640 px, and each layer starts from the box before it.

`docs/deploy.md` shows the sampling points of both. The two runtimes need files of their own:
onnxruntime's quantizer writes ONNX with pairs of `QuantizeLinear` and `DequantizeLinear`; NNCF (the
extra [int8], with its settings for transformers) changes OpenVINO's own graph.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.errors import import_extra
from rtdetr_lab.images.decode import read_photo
from rtdetr_lab.images.preprocess import Preprocess
from rtdetr_lab.model import DetectionModel
from rtdetr_lab.notation import Size
from rtdetr_lab.structures import LayerPrediction, Prediction

MOST = 300
"""Pictures of a calibration; more do not change the ranges."""

Step = tuple[str, str, Iterable[str], Iterable[str]]
"""Kind and name of a step of a graph, names of its inputs, names of its outputs."""


def checked(pictures: Sequence[Any]) -> Sequence[Any]:
    """Return at most `MOST` of the pictures. Raises `ConfigError` if there is none, or no list."""
    counted = hasattr(pictures, "__len__") and not isinstance(pictures, str | bytes)
    what, remedy = f"is a {type(pictures).__name__}", "give a list of pictures: paths or arrays"
    require(counted, "calibrate", what, remedy)
    remedy = "give pictures like those that the model will see; a hundred are enough"
    require(len(pictures), "calibrate", "holds no picture", remedy)
    return pictures[:: -(-len(pictures) // MOST)]


def onnx_int8(file: bytes, pictures: Sequence[Any], size: Size) -> bytes:
    """Return an ONNX file of ours with eight bits for onnxruntime, calibrated on paths or arrays.

    Raises `ConfigError` without pictures, and for a model that selects no queries.
    """
    onnx, tools = (import_extra(n, "export") for n in ("onnx", "onnxruntime.quantization"))
    model = onnx.load_from_string(file)
    steps = ((node.op_type, node.name, node.input, node.output) for node in model.graph.node)
    kept, given = after_selection(steps), map(_reader(size), checked(pictures))

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(given, None)

    with TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        unsigned = {"activation_type": tools.QuantType.QUInt8, "per_channel": True}  # x86's product
        tools.quantize_static(model, path, Reader(), nodes_to_exclude=kept, **unsigned)
        return path.read_bytes()


def openvino_int8(file: bytes, pictures: Sequence[Any], size: Size) -> Any:
    """Return OpenVINO's graph of an ONNX file of ours with eight bits: an `openvino.Model`.

    Raises as `onnx_int8`, and `MissingExtraError` without NNCF.
    """
    openvino, nncf = import_extra("openvino", "export"), import_extra("nncf", "int8")
    nncf.set_log_level(logging.ERROR)  # else a line for every step that keeps floating point
    model = openvino.Core().read_model(file, b"")
    kept = after_selection(_openvino_steps(model))
    given = checked(pictures)
    return nncf.quantize(
        model,
        nncf.Dataset(given, _reader(size)),
        subset_size=len(given),
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(names=kept, validate=False),
    )


def after_selection(steps: Iterable[Step]) -> list[str]:
    """Return the names of the top-k and of all steps that depend on it, given in running order."""
    names, reached = [], set[str]()
    for kind, name, inputs, outputs in steps:
        if kind == "TopK" or not reached.isdisjoint(inputs):
            names.append(name)
            reached.update(outputs)
    what, remedy = "selects no queries", "take an RT-DETR, RT-DETRv2 or D-FINE"
    require(names, "int8", what, remedy)
    return names


class Ran(DetectionModel):
    """Model whose logits and boxes a backend's function computes; all else is as in `like`."""

    def __init__(self, like: Any, run: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__(like.cfg)
        self.run, self.metadata = run, like.metadata
        self.rank, self.num_queries = like.rank, like.num_queries
        self.eval()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Prediction:
        last = LayerPrediction(*self.run(images))
        return Prediction(last.logits, last.boxes, (last,))


def _openvino_steps(model: Any) -> Iterator[Step]:
    for step in model.get_ordered_ops():
        if step.get_type_name() != "Result":
            sources = (one.get_source_output().get_node() for one in step.inputs())
            name = step.get_friendly_name()
            yield step.get_type_name(), name, [s.get_friendly_name() for s in sources], [name]


def _reader(size: Size) -> Callable[[Any], dict[str, np.ndarray]]:
    prepare = Preprocess(size)
    return lambda picture: {"images": prepare(read_photo(picture).rgb)[None].numpy()}

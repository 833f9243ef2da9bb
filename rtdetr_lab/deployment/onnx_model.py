"""# ONNX model: a file of `export_onnx`, run as a model

    model = load_onnx("r18.onnx")                              # onnxruntime, on the CPU
    found = Detector(model)("kitchen.jpg")

The metadata of the file says what `Detector` needs: names, ids, size, licence, the recommended
threshold, and how logits become scores. So `rtdetr-lab detect --model r18.onnx` needs nothing
beside the file.
"""

import json
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.config import require
from rtdetr_lab.errors import CheckpointError, ConfigError, converting, import_extra
from rtdetr_lab.model import DetectionModel, Metadata, by_sigmoid, by_softmax
from rtdetr_lab.structures import LayerPrediction, Prediction

RANKS = {"sigmoid": by_sigmoid, "softmax": by_softmax}
"""Words in the file → functions from class logits to scores."""
AGAIN = "write the file with `rtdetr-lab export`, without --postprocessing"


class OnnxModel(DetectionModel):
    """Detection model that an onnxruntime session computes, in single precision, on the CPU.

    Raises `CheckpointError` for a session whose file does not say what it holds.
    """

    def __init__(self, session: Any, where: str) -> None:
        facts = session.get_modelmeta().custom_metadata_map
        self.outputs = [output.name for output in session.get_outputs()]
        with converting((KeyError, ValueError), CheckpointError, where, NOT_OURS, AGAIN):
            keys = ("names", "category_ids", "size", "trained_size")
            names, ids, size, trained = (json.loads(facts[key]) for key in keys)
            rank, threshold = RANKS[facts["scores"]], json.loads(facts["threshold"])
            places = self.outputs.index("logits"), self.outputs.index("boxes")
        taken = [(one.name, one.type) for one in session.get_inputs()]
        what = f"takes {', '.join(f'{name} ({kind})' for name, kind in taken)}"
        plain = taken == [("images", "tensor(float)")]
        require(plain, where, what, "export it without switches, in float32", CheckpointError)
        _, num_queries, columns = session.get_outputs()[places[0]].shape
        super().__init__(SimpleNamespace(num_classes=columns - (rank is by_softmax)))
        self.session, self.num_queries, self.rank = session, num_queries, rank
        self.draws_masks = "masks" in self.outputs
        self.fixed = tuple(size) if size else None
        licence = None if facts["licence"] == "not stated" else facts["licence"]
        said = (tuple(names), tuple(ids), self.fixed or tuple(trained), licence)
        self.metadata = Metadata(*said, source=where, threshold=threshold)
        self.eval()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Prediction:
        size = tuple(images.shape[2:])
        what, remedy = f"{size} in a file of {self.fixed}", "leave it out, or export --dynamic"
        require(self.fixed in (None, size), "size", what, remedy)
        given = {"images": images.float().cpu().contiguous().numpy()}
        remedy = "give a size that 32 divides"
        with converting(Exception, ConfigError, "size", f"{size} cannot be computed: {{}}", remedy):
            found = self.session.run(None, given)
        answer = dict(zip(self.outputs, map(torch.from_numpy, found), strict=True))
        last = LayerPrediction(answer["logits"], answer["boxes"])
        return Prediction(last.logits, last.boxes, (last,), masks=answer.get("masks"))


NOT_OURS = "is no ONNX model that rtdetr-lab exported, or an older one ({})"


def load_onnx(path: str | Path, threads: int | None = None) -> OnnxModel:
    """Load an ONNX file. Raises `CheckpointError` for a file that is damaged or not ours."""
    onnxruntime = import_extra("onnxruntime", "export")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 4
    with converting(Exception, CheckpointError, path, "cannot be read: {}", "export it again"):
        file = Path(path).read_bytes()
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return OnnxModel(session, str(path))


def model_to_run(
    id_or_path: str | PathLike[str], revision: str | None = None, num_classes: int | None = None
) -> nn.Module:
    """Load a checkpoint, or an ONNX file, which can detect but not train."""
    if str(id_or_path).endswith(".onnx"):
        for name, value in (("revision", revision), ("num_classes", num_classes)):
            require(value is None, name, "is not for an ONNX file", "leave it out")
        return load_onnx(Path(id_or_path).expanduser())
    return load_pretrained(id_or_path, revision=revision, num_classes=num_classes)


def device_for(
    model: nn.Module | None, given: torch.device | str | None, where: str = "device"
) -> str:
    """Return the given device, else the GPU if there is one, and the CPU for an ONNX file.

    Raises `ConfigError` for another device than the CPU with an ONNX file; `where` is its name.
    """
    if isinstance(model, OnnxModel):
        what, remedy = f"is {given}, but an ONNX file runs on the CPU here", "leave it out"
        require(given is None or torch.device(given).type == "cpu", where, what, remedy)
        return "cpu"
    return str(given or ("cuda" if torch.cuda.is_available() else "cpu"))

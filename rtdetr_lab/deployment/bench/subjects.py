"""# Subjects: the models that we time

Our subjects are engines. The others run transformers' model with our random weights (saved in its
own folder layout): as it is, compiled, and exported to the two runtimes. Each entry is a function
that takes a `Case` and returns a function that runs one batch.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from rtdetr_lab.checkpoints.presets import preset_of
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.config import require
from rtdetr_lab.deployment.backends import Backend, OnnxRuntime, OpenVINO, PyTorch, Runtime
from rtdetr_lab.deployment.bench.timing import Subject
from rtdetr_lab.deployment.engine import Engine
from rtdetr_lab.deployment.onnx_file import Raw, written
from rtdetr_lab.errors import import_extra
from rtdetr_lab.notation import Size
from rtdetr_lab.rtdetr import RTDETRConfig


@dataclass(frozen=True)
class Case:
    """Preset with random weights, and a batch of one size."""

    preset: str = "r18"
    size: Size = (640, 640)
    batch: int = 1
    device: str = "cpu"

    def images(self) -> Tensor:
        """Make noise: the time of a detector does not depend on the content."""
        generator = torch.Generator().manual_seed(0)
        return torch.rand(self.batch, 3, *self.size, generator=generator).to(self.device)


Build = Callable[[Case], Subject]


@lru_cache(maxsize=1)
def model_of(preset: str) -> nn.Module:
    """Build our model of a preset, with random weights, in eval mode."""
    cfg = preset_of(preset, option="--model")
    what = f"{preset} is not an RT-DETR"
    require(isinstance(cfg, RTDETRConfig), "--model", what, "choose a preset that is")
    torch.manual_seed(0)
    built: nn.Module = cfg.build().eval()
    return built


def theirs(case: Case) -> nn.Module:
    """Load transformers' model with the same weights."""
    transformers = import_extra("transformers", "dev")
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model_of(case.preset), folder, layout="transformers")
        model = transformers.AutoModelForObjectDetection.from_pretrained(folder)
    return model.eval().to(case.device)  # type: ignore[no-any-return]


def ours(dtype: torch.dtype, backend: Backend) -> Build:
    """Return the builder of an engine of one size and one batch."""

    def build(case: Case) -> Subject:
        model = model_of(case.preset)
        engine = Engine(model, case.size, case.batch, dtype, case.device, backend=backend)
        images = case.images().to(dtype, memory_format=torch.channels_last)
        return lambda: engine.answer(images)

    return build


def eager(
    channels_last: bool = False,
    autocast: bool = False,
    compiled: bool = False,
    dtype: torch.dtype = torch.float32,
    mode: str | None = None,
) -> Build:
    """Return the builder of transformers in torch; `mode` is that of `torch.compile`."""

    def build(case: Case) -> Subject:
        model: Any = theirs(case)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        model = model.to(dtype=dtype, memory_format=layout)
        images = case.images().to(dtype).contiguous(memory_format=layout)
        call = torch.compile(model, mode=mode) if compiled else model

        def run() -> object:
            half = torch.autocast(case.device, torch.bfloat16, enabled=autocast)
            with torch.inference_mode(), half:
                return call(images)

        return run

    return build


def exported(backend: Runtime, dtype: torch.dtype) -> Build:
    """Return the builder of transformers through ONNX, in the same runtime as ours."""

    def build(case: Case) -> Subject:
        run, images = backend.load(onnx_of(case), dtype), case.images()
        return lambda: run(images)

    return build


@lru_cache(maxsize=1)
def onnx_of(case: Case) -> bytes:
    """Export their model with torch's exporter, for this batch and size."""
    return written(Raw(theirs(case), boxes="pred_boxes").eval(), (case.images(),))


BASE = "transformers eager"
FP32, BF16 = torch.float32, torch.bfloat16
OURS: dict[str, Build] = {"ours fp32": ours(FP32, PyTorch()), "ours bf16": ours(BF16, PyTorch())}
AGAINST: dict[str, dict[str, Build]] = {
    "transformers": {
        BASE: eager(),
        "transformers channels_last": eager(channels_last=True),
        "transformers autocast bf16, channels_last": eager(channels_last=True, autocast=True),
    },
    "compile": {
        "transformers compiled": eager(compiled=True),
        "ours compiled fp32": ours(FP32, PyTorch(compiled=True)),
    },
    "onnxruntime": {
        "transformers in onnxruntime": exported(OnnxRuntime(), FP32),
        "ours in onnxruntime": ours(FP32, OnnxRuntime()),
    },
    "openvino": {
        "transformers in OpenVINO fp32": exported(OpenVINO(), FP32),
        "transformers in OpenVINO bf16": exported(OpenVINO(), BF16),
        "ours in OpenVINO fp32": ours(FP32, OpenVINO()),
        "ours in OpenVINO bf16": ours(BF16, OpenVINO()),
    },
}
ON_CUDA: dict[str, Build] = {
    "ours fp16, graph": ours(torch.float16, PyTorch(graphed=True)),
    "ours bf16, compiled, graph": ours(BF16, PyTorch(compiled=True, graphed=True)),
}


def chosen(against: str, device: str) -> dict[str, Build]:
    """Look up subjects by the names of the command line, separated by commas.

    Raises `ConfigError` for an unknown name.
    """
    found = dict(OURS)
    for name in filter(None, against.split(",")):
        require(name in AGAINST, "against", f"has no {name!r}", f"use one of {', '.join(AGAINST)}")
        found |= AGAINST[name]
    return found | (ON_CUDA if device.startswith("cuda") else {})

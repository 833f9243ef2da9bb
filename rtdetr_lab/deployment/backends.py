r"""# Backends: what runs a deployed model

A backend is a value with a method `build()`. An `Engine` takes one:

| value | runs on | precision | switches |
|---|---|---|---|
| `PyTorch()` | CPU: packed oneDNN kernels; CUDA: Triton | any | `compiled`, `graphed`, `rewrites` |
| `OnnxRuntime()` | CPU | single | `calibrate`: eight bits; `rewrites` |
| `OpenVINO()` | CPU | single, bfloat16 | `calibrate`: eight bits; `rewrites` |

`build()` returns a function from a batch to class logits and boxes. It takes the batch sizes that
it was built for, and one picture size. onnxruntime and OpenVINO get the deployed model through
ONNX, so they also have less to compute than with an export of the training form.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rtdetr_lab.config import require
from rtdetr_lab.deployment.form import ALL_REWRITES, Rewrites, deploy
from rtdetr_lab.deployment.int8 import onnx_int8, openvino_int8
from rtdetr_lab.deployment.onnx_file import Raw, onnx_bytes
from rtdetr_lab.errors import import_extra
from rtdetr_lab.kernels.fused_sampler import fastest_for
from rtdetr_lab.kernels.onednn import can_pack, channels_last, pack
from rtdetr_lab.kernels.pages import keep_pages
from rtdetr_lab.notation import Size

Run = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Function from a batch of pictures to class logits and boxes."""


@dataclass(frozen=True)
class Plan:
    """Sizes, precision and device that an engine needs from a backend."""

    size: Size
    batches: Sequence[int]
    dtype: torch.dtype
    device: torch.device

    def example(self, batch: int | None = None) -> Tensor:
        """Make a batch of zeros with the shape, precision and layout of later batches."""
        shape = (batch or max(self.batches), 3, *self.size)
        images = torch.zeros(shape, dtype=self.dtype, device=self.device)
        return images.contiguous(memory_format=torch.channels_last)


@runtime_checkable
class Backend(Protocol):
    """Builds a function that runs a model as planned."""

    def build(self, model: nn.Module, plan: Plan) -> Run:
        """Build the function. Raises `ConfigError` for a plan that it cannot follow."""


def deployed(
    model: nn.Module, plan: Plan, packed: bool = True, rewrites: Rewrites = ALL_REWRITES
) -> nn.Module:
    """Return the deploy form in the plan's precision, with packed kernels where it has them."""
    form = deploy(model, fastest_for(plan.device), rewrites).to(plan.device)
    if packed and plan.device.type == "cpu" and can_pack(plan.dtype):
        return pack(form, plan.example(), plan.dtype, rewrites.read_first)
    return channels_last(form.to(plan.dtype))


@dataclass(frozen=True)
class PyTorch:
    """Torch itself.

    `compiled` passes the model to `torch.compile`: on the CPU this needs a C++ compiler, and the
    first call takes minutes. `graphed` replays the model as one CUDA graph per batch size.
    """

    compiled: bool = False
    graphed: bool = False
    rewrites: Rewrites = ALL_REWRITES

    def build(self, model: nn.Module, plan: Plan) -> Run:
        on_cpu = plan.device.type == "cpu"
        what = f"a CUDA graph cannot be recorded on {plan.device}"
        require(not (self.graphed and on_cpu), "graphed", what, "pass graphed=False")
        if on_cpu:
            keep_pages()
        answer: Any = Raw(deployed(model, plan, not self.compiled, self.rewrites))
        if self.compiled:
            answer = torch.compile(answer, fullgraph=True, dynamic=False, options=_options(on_cpu))
        return Graphed(answer, plan.example, plan.batches) if self.graphed else answer


@dataclass(frozen=True)
class Runtime:
    """A runtime on the CPU that reads ONNX. Needs the extra [export].

    With pictures (paths or arrays) to `calibrate`, it computes what comes before the selection of
    queries in eight bits (`int8.py`), and the rest in the precision of the plan.
    """

    threads: int | None = None
    calibrate: Sequence[Any] | None = field(default=None, compare=False)
    rewrites: Rewrites = ALL_REWRITES
    dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.float32,)
    int8: ClassVar[Callable[..., Any]] = staticmethod(onnx_int8)

    def build(self, model: nn.Module, plan: Plan) -> Run:
        name, at_home = type(self).__name__, plan.device.type == "cpu"
        require(at_home, "device", f"{name} runs on the CPU here", "pass device='cpu'")
        names = " or ".join(str(d).removeprefix("torch.") for d in self.dtypes)
        what = f"{name} cannot run in {plan.dtype}"
        require(plan.dtype in self.dtypes, "dtype", what, f"use {names}")
        file = onnx_bytes(model, plan.size, rewrites=self.rewrites)
        if self.calibrate is not None:
            file = self.int8(file, self.calibrate, plan.size)
        return self.load(file, plan.dtype)

    def load(self, file: Any, dtype: torch.dtype = torch.float32) -> Run:
        """Load an ONNX file, or what `int8` returns, that maps pictures to two tensors."""
        raise NotImplementedError


@dataclass(frozen=True)
class OnnxRuntime(Runtime):
    """onnxruntime, in single precision."""

    def load(self, file: Any, dtype: torch.dtype = torch.float32) -> Run:
        onnxruntime = import_extra("onnxruntime", "export")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or torch.get_num_threads()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

        def run(images: Tensor) -> tuple[Tensor, Tensor]:
            logits, boxes, *_ = session.run(None, {"images": images.contiguous().numpy()})
            return torch.from_numpy(logits), torch.from_numpy(boxes)

        return run


@dataclass(frozen=True)
class OpenVINO(Runtime):
    """OpenVINO; in bfloat16 it chooses where it rounds."""

    dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.float32, torch.bfloat16)
    int8: ClassVar[Callable[..., Any]] = staticmethod(openvino_int8)

    def load(self, file: Any, dtype: torch.dtype = torch.float32) -> Run:
        core = import_extra("openvino", "export").Core()
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads or torch.get_num_threads(),
        }
        graph = core.read_model(file, b"") if isinstance(file, bytes) else file
        compiled = core.compile_model(graph, "CPU", settings)
        request = compiled.create_infer_request()

        def run(images: Tensor) -> tuple[Tensor, Tensor]:
            found = request.infer([images.float().contiguous().numpy()], share_inputs=True)
            return torch.from_numpy(found[0].copy()), torch.from_numpy(found[1].copy())

        return run


WARM_UP = 3


class Graphed:
    """Model recorded as one sequence of kernels per batch size; the sequences share memory.

    A batch of one keeps a large GPU busy for a millisecond, but Python needs ten to start its
    kernels one by one. A CUDA graph is recorded once and replayed with a single call, always on the
    same memory: we copy pictures into its input and read the outputs from its output. A replay
    allocates nothing.
    """

    def __init__(
        self, run: Run, example: Callable[[int | None], Tensor], batches: Sequence[int]
    ) -> None:
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, Tensor]]] = {}
        pool = None
        for batch in sorted(batches, reverse=True):  # largest first: the others reuse its memory
            given = example(batch)
            self._warm_up(run, given)
            graph = torch.cuda.CUDAGraph()
            with torch.inference_mode(), torch.cuda.graph(graph, pool=pool):
                answer = run(given)
            pool = graph.pool()
            self._graphs[batch] = (graph, given, answer)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        graph, given, answer = self._graphs[len(images)]
        given.copy_(images, non_blocking=True)
        graph.replay()
        return answer

    @staticmethod
    def _warm_up(run: Run, given: Tensor) -> None:
        """Run on a separate stream, as recording demands: libraries load and caches fill."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(side):
            for _ in range(WARM_UP):
                run(given)
        torch.cuda.current_stream().wait_stream(side)


def _options(on_cpu: bool) -> dict[str, Any]:
    # Weights of a deployed model are constants: the compiler may lay them out for its kernels.
    return {"freezing": True} if on_cpu else {"max_autotune": False, "triton.cudagraphs": False}

"""# Export: write a model as a file that needs no Python"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_lab.commands.base import DONE, FAILED, ModelCommand, model_of, say
from rtdetr_lab.config import require

if TYPE_CHECKING:
    from rtdetr_lab.model import DetectionModel
    from rtdetr_lab.notation import Size

SUFFIXES = (".onnx", ".pt2", ".xml")


@dataclass(frozen=True, kw_only=True)
class Export(ModelCommand):
    """Write the model for inference as ONNX, as a torch.export archive, or in eight bits."""

    out: Path = Path("model.onnx")
    """The file: .onnx or .pt2; with --int8 .onnx (onnxruntime) or .xml (OpenVINO)."""
    size: str | None = None
    """One number, or HxW; default: the size that the model was trained for."""
    dynamic: bool = False
    """Accept any picture size that 32 divides, not only one size."""
    postprocessing: bool = False
    """ONNX only: return boxes in pixels, scores and labels."""

    taps: tuple[str, ...] = ()
    """ONNX only: also return these taps: names or patterns, as in `record` ('*' for all)."""

    int8: bool = False
    """Compute in eight bits what comes before the selection of queries; needs --calibrate."""
    calibrate: tuple[str, ...] = ()
    """With --int8: pictures like yours (files, globs, folders); at most 300 are used."""
    data: str | None = None
    """With --int8: compare AP before and after, by class, on the validation set of this data
    (`shapes`, a folder …); default: compare detections in the pictures of --calibrate."""
    limit: int | None = None
    """With --data: stop after this many pictures."""

    engine: bool = False
    """ONNX only: print the `trtexec` line that makes a TensorRT engine, and run it if it is there.
    """

    def run(self) -> int:
        from rtdetr_lab.deployment.onnx_file import export_onnx, export_pt2

        kind, suffixes = self.out.suffix, " or ".join(SUFFIXES)
        require(kind in SUFFIXES, "out", f"{self.out.name} has no known suffix", f"use {suffixes}")
        for name in ("postprocessing", "taps", "engine"):
            plain = (kind == ".onnx" and not self.int8) or not getattr(self, name)
            require(plain, name, "is only for ONNX in float32", "leave it out, or write .onnx")
        also = (self.calibrate, self.data, self.limit)
        fits = kind != ".pt2" if self.int8 else kind != ".xml" and not any(also)
        fits &= self.limit is None or self.data is not None
        what = f"goes with {' or '.join(SUFFIXES[::2])} and --calibrate, and these with it"
        require(fits, "int8", what, "rtdetr-lab export --int8 --calibrate photos/ --out m.onnx")
        alone = not (self.taps and (self.dynamic or self.postprocessing))
        remedy = "leave out --dynamic and --postprocessing"
        require(alone, "taps", "are exported for one size, without post-processing", remedy)
        model = model_of(self.name, self.size)
        size = model.metadata.fixed_size
        chosen = None if self.dynamic else size
        self.out.parent.mkdir(parents=True, exist_ok=True)
        if self.int8:
            self._int8(model, size, chosen)
        elif kind == ".pt2":
            export_pt2(model, self.out, chosen)
        elif self.taps:
            self._with_taps(model, size)
        else:
            export_onnx(model, self.out, chosen, postprocessing=self.postprocessing)
        files = {self.out, self.out.with_suffix(".bin")} if kind == ".xml" else {self.out}
        megabytes = sum(file.stat().st_size for file in files) / 1e6
        seen = "any size" if chosen is None else f"{size[0]} × {size[1]}"
        say(f"{self.name}, any batch, {seen}: {megabytes:.1f} MB → {self.out}")
        return self._engine(size) if self.engine else DONE

    def _engine(self, size: "Size") -> int:
        import shlex
        import shutil
        import subprocess

        line = trtexec_line(self.out, size, self.postprocessing)
        say(shlex.join(line))
        if shutil.which(line[0]) is None:
            say("trtexec, a part of TensorRT, is not on this machine: run the line where it is")
            return DONE
        return FAILED if subprocess.run(line, check=False).returncode else DONE

    def _int8(self, model: "DetectionModel", size: "Size", chosen: "Size | None") -> None:
        from rtdetr_lab.commands.evaluate import check_classes
        from rtdetr_lab.commands.pictures import gather
        from rtdetr_lab.commands.sets import stored_sets, validation_set
        from rtdetr_lab.deployment.backends import OnnxRuntime, OpenVINO
        from rtdetr_lab.deployment.int8 import Ran, checked
        from rtdetr_lab.deployment.onnx_file import onnx_bytes
        from rtdetr_lab.deployment.precision import drift_of, drift_table
        from rtdetr_lab.detector import Detector
        from rtdetr_lab.errors import import_extra
        from rtdetr_lab.evaluation.evaluate import evaluate

        data, pictures = None, checked(gather(self.calibrate))
        if self.data is not None:
            found = stored_sets(self.data, ["val"]).get("val", self.data)
            data = validation_set(found, model.metadata, self.limit)
            check_classes(model, data.names, self.name)
        backend = OpenVINO() if self.out.suffix == ".xml" else OnnxRuntime()
        made = backend.int8(onnx_bytes(model, chosen), pictures, size)
        if isinstance(made, bytes):
            self.out.write_bytes(made)
        else:
            import_extra("openvino", "export").save_model(made, self.out, compress_to_fp16=False)
        after = Ran(model, backend.load(made))
        if data is not None:
            for name, one in (("float32", model), ("int8", after)):
                say(f"{name}, {len(data)} pictures:\n{evaluate(one, data)}\n")
            return
        both = [Detector(one, threshold=0.0) for one in (model, after)]
        pairs = [(both[0](one), both[1](one)) for one in pictures]
        say(drift_table({"int8": drift_of(pairs, 0.5)}))

    def _with_taps(self, model: "DetectionModel", size: "Size") -> None:
        from rtdetr_lab.deployment.tapped import onnx_with_taps, taps_of

        file = onnx_with_taps(model, self.taps, size)
        self.out.write_bytes(file)
        say(f"outputs: logits, boxes, {', '.join(taps_of(file))}")


def trtexec_line(file: Path, size: "Size", with_sizes: bool = False, most: int = 8) -> list[str]:
    """Return the words of the command that makes a TensorRT engine for 1 to `most` pictures."""
    height, width = size

    def shapes(count: int) -> str:
        return f"images:{count}x3x{height}x{width}" + f",sizes:{count}x2" * with_sizes

    ranges = [f"--{k}Shapes={shapes(n)}" for k, n in (("min", 1), ("opt", 1), ("max", most))]
    made = file.with_suffix(".plan")
    return ["trtexec", f"--onnx={file}", f"--saveEngine={made}", "--fp16", *ranges]

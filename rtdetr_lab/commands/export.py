"""# Export: write a model as a file that needs no Python"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_lab.commands.base import DONE, FAILED, ModelCommand, model_of, say
from rtdetr_lab.config import require

if TYPE_CHECKING:
    from rtdetr_lab.model import DetectionModel
    from rtdetr_lab.notation import Size

SUFFIXES = (".onnx", ".pt2")


@dataclass(frozen=True, kw_only=True)
class Export(ModelCommand):
    """Write the model for inference as ONNX or as a torch.export archive."""

    out: Path = Path("model.onnx")
    """The file: .onnx or .pt2."""
    size: str | None = None
    """One number, or HxW; default: the size that the model was trained for."""
    dynamic: bool = False
    """Accept any picture size that 32 divides, not only one size."""
    postprocessing: bool = False
    """ONNX only: return boxes in pixels, scores and labels."""

    taps: tuple[str, ...] = ()
    """ONNX only: also return these taps: names or patterns, as in `record` ('*' for all)."""

    engine: bool = False
    """ONNX only: print the `trtexec` line that makes a TensorRT engine, and run it if it is there.
    """

    def run(self) -> int:
        from rtdetr_lab.deployment.onnx_file import export_onnx, export_pt2

        kind, suffixes = self.out.suffix, " or ".join(SUFFIXES)
        require(kind in SUFFIXES, "out", f"{self.out.name} has no known suffix", f"use {suffixes}")
        for name in ("postprocessing", "taps", "engine"):
            plain = kind == ".onnx" or not getattr(self, name)
            require(plain, name, "is only for ONNX", "leave it out, or write .onnx")
        alone = not (self.taps and (self.dynamic or self.postprocessing))
        remedy = "leave out --dynamic and --postprocessing"
        require(alone, "taps", "are exported for one size, without post-processing", remedy)
        model = model_of(self.name, self.size)
        size = model.metadata.fixed_size
        chosen = None if self.dynamic else size
        self.out.parent.mkdir(parents=True, exist_ok=True)
        if kind == ".pt2":
            export_pt2(model, self.out, chosen)
        elif self.taps:
            self._with_taps(model, size)
        else:
            export_onnx(model, self.out, chosen, postprocessing=self.postprocessing)
        megabytes = self.out.stat().st_size / 1e6
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

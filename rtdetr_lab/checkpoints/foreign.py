r"""# Foreign: files that are given as weights and are not weights

A file is recognised by its first bytes, or by the end of its name if the bytes tell nothing. The
error names the kind of file and says what to give instead. Nothing in the file is run or unpacked.
"""

import zipfile
from pathlib import Path

from rtdetr_lab.config import require
from rtdetr_lab.errors import CheckpointError

CHECKPOINT = "give the checkpoint it was made from: a folder, a .safetensors or a .pth"
AGAIN = "download it again"


Kind = tuple[str, str]
"""Name of a kind of file, and the remedy for an error message."""

OPENVINO = (
    "an OpenVINO file",
    f'{CHECKPOINT}; to run it: openvino.Core().compile_model("FILE.xml", "CPU")',
)
PROGRAM = ("a torch.export program", f"{CHECKPOINT}; to run it use torch.export.load")
TORCHSCRIPT = ("a TorchScript program", f"{CHECKPOINT}; to run it use torch.jit.load")
TENSORRT = ("a TensorRT engine, made for one GPU", f"{CHECKPOINT}; to run it use TensorRT")
ULTRALYTICS = (
    "a checkpoint of ultralytics, which runs their code when it is opened",
    "give a published model (r18 … r101, or a hub id), or train your own",
)
ARCHIVE = ("an archive", "unpack it, and give the file or folder inside")
PAGE = ("a web page, not weights", f"{AGAIN}, from the link of the file itself")
PICTURE = ("a picture", "give it as a picture, and a model as --model")
HDF5 = ("a Keras or HDF5 file", CHECKPOINT)
GGUF = ("a llama.cpp file", CHECKPOINT)
TENSORFLOW = ("a TensorFlow file", CHECKPOINT)
CORE_ML = ("a Core ML file", CHECKPOINT)
TEXT = ("text, not weights", "give the weights file, or its folder")
CONFIGURATION = ("a configuration, not weights", "give the weights")

ENDINGS: dict[str, Kind] = {
    ".onnx": (
        "an ONNX file, a model exported for a runtime",
        f"{CHECKPOINT}; to run an ONNX file: `rtdetr-lab detect --model`, or onnxruntime",
    ),
    ".xml": OPENVINO,
    ".pt2": PROGRAM,
    ".html": PAGE,
    ".gguf": GGUF,
    ".pdparams": ("a PaddlePaddle checkpoint", "give the .pth of the same model"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"), ARCHIVE),
    **dict.fromkeys((".json", ".txt"), TEXT),
    **dict.fromkeys((".jpg", ".png"), PICTURE),
    **dict.fromkeys((".h5", ".hdf5", ".keras"), HDF5),
    **dict.fromkeys((".engine", ".plan", ".trt"), TENSORRT),
    **dict.fromkeys((".tflite", ".pb"), TENSORFLOW),
    **dict.fromkeys((".mlmodel", ".mlpackage"), CORE_ML),
    **dict.fromkeys((".yaml", ".yml", ".toml"), CONFIGURATION),
}

STARTS: dict[bytes, Kind] = {
    **dict.fromkeys((b"<!doctype", b"<html", b"<head", b"<?xml"), PAGE),
    b"version https://": ("a git-lfs pointer", "run `git lfs pull` in its folder"),
    b"{": TEXT,
    **dict.fromkeys((b"\xff\xd8\xff", b"\x89png"), PICTURE),
    b"\x89hdf": HDF5,
    b"gguf": GGUF,
    **dict.fromkeys((b"ftrt", b"ptrt"), TENSORRT),
    **dict.fromkeys((b"\x1f\x8b", b"7z\xbc\xaf", b"rar!"), ARCHIVE),
}
"""First bytes, in lower case → kind."""


def check_kind(path: Path) -> None:
    """Raise `CheckpointError` for a file of a kind that has no weights we can read."""
    with open(path, "rb") as file:
        start = file.read(64)
    require(start, path, "is empty: a save or a download was cut short", AGAIN, CheckpointError)
    if path.name.endswith(".index.json"):
        return
    kind = _inside(path) if start.startswith(b"PK") else _of_bytes(path, start)
    if kind is not None:
        name, remedy = kind
        raise CheckpointError(str(path), f"is {name}", remedy)


def is_safetensors(path: Path) -> bool:
    """Return whether a file begins like safetensors: a length, then JSON. Its name is ignored."""
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def _of_bytes(path: Path, start: bytes) -> Kind | None:
    if path.suffix == ".bin" and path.with_suffix(".xml").is_file():
        return OPENVINO
    if is_safetensors(path):
        return None
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    begun = (kind for beginning, kind in STARTS.items() if text.startswith(beginning))
    return _of_suffix(path) or next(begun, None)


def _inside(path: Path) -> Kind | None:
    """Return the kind of a zip by its contents; torch's own format is a zip, too."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            pickle = next((name for name in names if name.endswith("/data.pkl")), None)
            words = archive.read(pickle) if pickle else b""
    except (OSError, RuntimeError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return None  # damaged: read_pickle reports where
    if pickle is None:
        exported = any(name.endswith("archive_format") for name in names)
        return PROGRAM if exported or path.suffix == ".pt2" else _of_suffix(path) or ARCHIVE
    if b"ultralytics" in words:
        return ULTRALYTICS
    return TORCHSCRIPT if any("/code/" in name for name in names) else None


def _of_suffix(path: Path) -> Kind | None:
    return ENDINGS.get(path.suffix.lower())

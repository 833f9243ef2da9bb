"""A file that is no weights file is named for what it is, with what to give instead."""

import io
import json
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rtdetr_lab.checkpoints.files import read_weights
from rtdetr_lab.checkpoints.foreign import check_kind
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import CheckpointError

PAGE = b"\xef\xbb\xbf\n  <!DOCTYPE html>\n<html><head><title>404</title>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 172\n"
OURS = b"\x08\x08\x12\x07pytorch" + bytes(64)


def zipped(**entries):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in entries.items():
            archive.writestr(name.replace("__", "/"), text)
    return content.getvalue()


CASES = [
    ("m.onnx", OURS, "is an ONNX file", "detect --model"),
    ("m.engine", b"ftrt" + bytes(60), "is a TensorRT engine", "checkpoint it was made from"),
    ("m.plan", bytes(64), "is a TensorRT engine", "TensorRT"),
    (
        "m.xml",
        b'<?xml version="1.0"?><net name="m">',
        "is an OpenVINO file",
        'openvino.Core().compile_model("FILE.xml", "CPU")',
    ),
    (
        "m.pt",
        zipped(m__data="", **{"m__data.pkl": b"cultralytics.nn.tasks\n"}),
        "ultralytics",
        "r18",
    ),
    ("m.pt", zipped(**{"m__data.pkl": b"", "m__code__m.py": ""}), "TorchScript", "torch.jit.load"),
    ("m.pt2", zipped(m__archive_format="pt2"), "torch.export program", "torch.export.load"),
    ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(9), "is a Keras or HDF5 file", "checkpoint it was made"),
    ("m.keras", zipped(config="{}"), "is a Keras or HDF5 file", "checkpoint it was made"),
    ("m.zip", zipped(**{"m.pth": "x"}), "is an archive", "unpack it"),
    ("m.pth", zipped(**{"readme.txt": "x"}), "is an archive", "unpack it"),
    ("m.tar.gz", b"\x1f\x8b" + bytes(9), "is an archive", "unpack it"),
    ("m.safetensors", PAGE, "is a web page", "download it again"),
    ("m.pth", PAGE, "is a web page", "download it again"),
    ("m.safetensors", POINTER, "is a git-lfs pointer", "git lfs pull"),
    ("m.safetensors", b'{"error": "Repository not found"}', "is text", "weights file"),
    ("m.pth", b"\xff\xd8\xff\xe0" + bytes(9), "is a picture", "as --model"),
    ("m.bin", b"GGUF" + bytes(9), "is a llama.cpp file", "checkpoint it was made from"),
    ("m.pdparams", b"\x80\x02}", "PaddlePaddle", ".pth of the same model"),
    ("rtdetr-l.yaml", b"nc: 80\n", "is a configuration", "give the weights"),
    ("m.ckpt", b"", "is empty", "download it again"),
]


@pytest.mark.parametrize(("name", "content", "what", "remedy"), CASES)
def test_it_says_what_it_is_and_what_to_do(tmp_path, name, content, what, remedy):
    path = tmp_path / name
    path.write_bytes(content)
    # A detector runs ONNX files: `unhooked/test_onnx_model.py` has its errors.
    for read in (load_pretrained, Detector.from_pretrained)[: 1 + (path.suffix != ".onnx")]:
        with pytest.raises(CheckpointError) as refused:
            read(path)
        assert what in refused.value.what
        assert remedy in refused.value.remedy
        assert refused.value.where == str(path)


def test_the_weights_of_openvino_are_known_by_the_file_beside(tmp_path):
    (tmp_path / "m.bin").write_bytes(bytes(100))
    (tmp_path / "m.xml").write_text("<net/>")
    with pytest.raises(CheckpointError, match="is an OpenVINO file"):
        load_pretrained(tmp_path / "m.bin")


def test_our_own_export_is_named(tmp_path):
    pytest.importorskip("onnx")
    from rtdetr_lab.deployment.onnx_file import written

    path = tmp_path / "model.onnx"
    path.write_bytes(written(nn.Linear(2, 3), (torch.zeros(1, 2),), ("x",), ("y",)))
    with pytest.raises(CheckpointError, match="is an ONNX file"):
        load_pretrained(path)


def test_whatever_a_safetensors_file_begins_with_it_is_read(tmp_path):
    """Its first bytes are the length of its header: they may be any, also `<`, `{` or `P`."""
    for length in range(256):
        path = tmp_path / f"{length}.safetensors"
        save_file({"a": torch.ones(2)}, path, {"note": "x" * length})
        check_kind(path)
    first = {path.read_bytes()[0] for path in tmp_path.iterdir()}
    assert len(first) >= 30
    assert ord("<") in first or ord("x") in first
    assert read_weights(path).tensors["a"].sum() == 2


def test_what_torch_saves_is_read_whatever_it_is_called(tmp_path):
    weights = nn.Linear(2, 3).state_dict()
    for name, new in (("m.pth", True), ("m.ckpt", True), ("m.bin", False), ("m", True)):
        path = tmp_path / name
        torch.save({"state_dict": weights}, path, _use_new_zipfile_serialization=new)
        assert torch.equal(read_weights(path).tensors["weight"], weights["weight"])


def test_an_index_of_shards_is_no_text(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "one.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    assert set(read_weights(index).tensors) == {"a"}

"""Files are read without trust and written without leaving halves."""

import hashlib
import io
import json
import os
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from rtdetr_lab.checkpoints.files import (
    DIGEST,
    digest,
    read_weights,
    write_weights,
)
from rtdetr_lab.errors import CheckpointError


@pytest.fixture
def tensors():
    return {"a.weight": torch.randn(3, 4), "a.bias": torch.randn(3), "n": torch.tensor(7)}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_what_is_written_is_what_is_read(tmp_path, tensors):
    path = tmp_path / "m.safetensors"
    sha256 = write_weights(path, tensors, {"note": "hello"})
    found = read_weights(path)
    assert same(found.tensors, tensors)
    assert found.header["note"] == "hello"
    assert found.sha256 == sha256 == digest(tensors)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.bool])
def test_every_kind_of_number_has_a_digest(dtype):
    ones = {"a": torch.ones(3, dtype=dtype)}
    assert digest(ones) != digest({"a": torch.zeros(3, dtype=dtype)})


@given(st.permutations(["a", "b", "c"]))
def test_the_digest_does_not_depend_on_the_order(order):
    values = {"a": torch.ones(1), "b": torch.ones(2), "c": torch.zeros(1)}
    assert digest({n: values[n] for n in order}) == digest(values)


def test_the_digest_depends_on_name_shape_type_and_value():
    variants = [
        {"a": torch.zeros(4)},
        {"b": torch.zeros(4)},
        {"a": torch.zeros(2, 2)},
        {"a": torch.zeros(4, dtype=torch.int32)},
        {"a": torch.tensor([0.0, 0.0, 0.0, 1e-40])},
    ]
    assert len({digest(v) for v in variants}) == len(variants)


def test_views_and_shared_tensors_can_be_written(tmp_path):
    base = torch.randn(4, 4)
    tensors = {"t": base.t(), "row": base[1], "again": base}
    write_weights(tmp_path / "m.safetensors", tensors, {})
    assert same(read_weights(tmp_path / "m.safetensors").tensors, tensors)


def test_one_flipped_bit_is_noticed(tmp_path, tensors):
    path = tmp_path / "m.safetensors"
    write_weights(path, tensors, {})
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="digest differs"):
        read_weights(path)


@pytest.mark.parametrize("keep", [0, 4, 40, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, tensors, keep):
    for name in ("m.safetensors", "m.pth"):
        path = tmp_path / name
        if name.endswith("pth"):
            torch.save(tensors, path)
        else:
            write_weights(path, tensors, {})
        data = path.read_bytes()
        path.write_bytes(data[: keep if keep >= 1 else int(keep * len(data))])
        with pytest.raises(CheckpointError, match=name):
            read_weights(path)


@pytest.mark.parametrize("name", ["m.safetensors", "m.pth", "m.bin"])
@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"\x80\x04N.", os.urandom(500)])
def test_a_foreign_file_is_named(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=name):
        read_weights(path)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("i_was_here",)


def test_a_pickle_that_wants_to_run_code_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"a": torch.ones(1)}, "extra": Evil()}, "evil.pth")
    with pytest.raises(CheckpointError, match="more than tensors"):
        read_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "i_was_here").exists()


@pytest.mark.parametrize(
    "nest",
    [
        lambda t: t,
        lambda t: {"model": t, "epoch": 3},
        lambda t: {"state_dict": t},
        lambda t: {"ema": {"module": t, "updates": 5}, "model": {"a.weight": torch.zeros(1)}},
        lambda t: {"ema": t},
        lambda t: {"model": {f"module.{n}": v for n, v in t.items()}},
    ],
)
def test_weights_are_found_where_training_scripts_put_them(tmp_path, tensors, nest):
    torch.save(nest(tensors), tmp_path / "m.pth")
    assert same(read_weights(tmp_path / "m.pth").tensors, tensors)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([torch.ones(1)], "holds list"),
        ({}, "not tensors by name"),
        ({"a": torch.ones(1), "epoch": 3}, r"\[epoch\]: is int"),
    ],
)
def test_a_pickle_without_a_state_dict_is_refused(tmp_path, content, says):
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=says):
        read_weights(tmp_path / "m.pth")


def test_a_sharded_file_is_put_together(tmp_path, tensors):
    index = {"weight_map": {}}
    for i, (name, tensor) in enumerate(tensors.items()):
        save_file({name: tensor}, tmp_path / f"part{i}.safetensors")
        index["weight_map"][name] = f"part{i}.safetensors"
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    assert same(read_weights(path).tensors, tensors)
    path.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(CheckpointError, match="secret"):
        read_weights(path)


@pytest.mark.parametrize(
    "listed", [None, [], {}, "a.safetensors", 3, {"a": None}, {"a": "x", "b": ["y"]}, {"a": {}}]
)
def test_an_index_that_maps_no_names_to_files_is_refused(tmp_path, listed):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(CheckpointError, match="does not give a file name for every tensor"):
        read_weights(path)


def test_a_header_of_endless_keys_is_refused_before_it_is_parsed(tmp_path):
    entry = ':{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(f'"{i}"{entry}' for i in range(260_000)) + "}").encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="1,040,000 keys"):
        read_weights(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: does not exist"):
        read_weights(tmp_path / "nowhere.pth")


def test_a_digest_from_elsewhere_is_computed_not_believed(tmp_path):
    tensors = {"a": torch.ones(2)}
    save_file(tensors, tmp_path / "m.safetensors", {DIGEST: hashlib.sha256(b"x").hexdigest()})
    with pytest.raises(CheckpointError, match="digest"):
        read_weights(tmp_path / "m.safetensors")


def test_a_zip_that_is_no_checkpoint_is_refused(tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("hello.txt", "hello")
    (tmp_path / "m.pth").write_bytes(data.getvalue())
    with pytest.raises(CheckpointError, match=r"m\.pth"):
        read_weights(tmp_path / "m.pth")


def test_an_entry_of_a_pth_that_claims_to_be_a_folder_is_named(tmp_path):
    """torch's reader would give whatever lies in memory for it."""
    import zipfile

    path = tmp_path / "w.pth"
    torch.save({"a": torch.arange(1000.0)}, path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
        number = next(i for i, e in enumerate(archive.infolist()) if e.filename.endswith("data/0"))
    at = start
    for _ in range(number):
        at = data.index(b"PK\x01\x02", at + 4)
    data[at + 38] |= 0x10  # external attributes: a folder
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="data/0"):
        read_weights(path)

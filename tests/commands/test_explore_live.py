"""`explore --live` writes a folder; without its runtime it says what to do and writes nothing."""

import pytest

from rtdetr_lab.cli import main
from rtdetr_lab.deployment import web_runtime


def test_without_a_runtime_it_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(web_runtime.NPM, "http://127.0.0.1:9")
    out = tmp_path / "page"
    assert main(["explore", "--live", "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "cannot be downloaded" in said
    assert "npm pack onnxruntime-web@1.30.0" in said
    other = tmp_path / "other.tgz"
    other.write_bytes(b"something else")
    assert main(["explore", "--live", "--out", str(out), "--runtime", str(other)]) == 1
    assert "is not onnxruntime-web 1.30.0" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.full
def test_it_writes_a_folder_for_the_model_and_picture_of_a_reader(tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxscript", reason="runs with the extra [export]")
    monkeypatch.setattr(web_runtime, "web_runtime", lambda _: {"ort.mjs": b"x", "ort.wasm": b"y"})
    out = tmp_path / "deep" / "page.html"
    assert main(["explore", "--live", "--queries", "5", "--out", str(out)]) == 0
    assert "python -m http.server" in capsys.readouterr().out
    assert (tmp_path / "deep" / "page" / "model.bin").stat().st_size > 4e6

"""The browser's runtime comes from one known archive, once, and from nowhere else."""

import pytest

from rtdetr_lab.deployment import web_runtime
from rtdetr_lab.errors import HubError


def test_what_is_in_the_cache_is_not_downloaded_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(web_runtime.NPM, "http://127.0.0.1:9/nobody")
    with pytest.raises(HubError, match=r"127.0.0.1:9/nobody/onnxruntime-web/.*--runtime"):
        web_runtime.web_runtime()
    kept = tmp_path / "rtdetr_lab" / f"onnxruntime-web-{web_runtime.VERSION}"
    web_runtime._keep(kept, {"ort.mjs": b"script", "ort.wasm": b"code"})
    assert web_runtime.web_runtime() == {"ort.mjs": b"script", "ort.wasm": b"code"}
    assert sorted(p.name for p in kept.iterdir()) == ["ort.mjs", "ort.wasm"]


def test_another_archive_is_refused_before_it_is_read(tmp_path, monkeypatch):
    other = tmp_path / "onnxruntime-web-1.29.0.tgz"
    other.write_bytes(b"some other archive")
    with pytest.raises(HubError, match="its sha512 differs; npm pack onnxruntime-web@"):
        web_runtime.web_runtime(other)
    with pytest.raises(HubError, match=r"absent\.tgz: cannot be read"):
        web_runtime.web_runtime(tmp_path / "absent.tgz")

r"""# Web runtime: what a browser needs to run an ONNX file

    runtime = web_runtime()                                      # downloaded once, then cached
    runtime = web_runtime("onnxruntime-web-1.30.0.tgz")          # from the file of `npm pack`

The runtime is onnxruntime-web (MIT), in its build for the CPU: one script and one WebAssembly file.
The npm registry has it as one archive of 33 MB. We check the archive's sha512 before we read it and
keep these two files in `~/.cache/rtdetr_lab` (or below `XDG_CACHE_HOME`). The registry is the one
that `npm_config_registry` names, as for npm.
"""

import base64
import hashlib
import io
import os
import tarfile
from pathlib import Path
from urllib.request import Request, urlopen

from rtdetr_lab.errors import HubError, converting
from rtdetr_lab.writing import cache_folder, write_bytes

VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Digest of the archive, in base64 as npm gives it (`npm view onnxruntime-web@1.30.0 dist`)."""

ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"
FILES = {"ort.mjs": "ort.wasm.bundle.min.mjs", "ort.wasm": "ort-wasm-simd-threaded.wasm"}
"""The two files: our name, and the name in the archive's folder `package/dist`."""

NPM = "npm_config_registry"
"""Variable of npm's that names the registry."""

SECONDS = 120
"""Seconds without an answer after which a download counts as failed."""


def web_runtime(archive: str | Path | None = None) -> dict[str, bytes]:
    """Return the contents of the files in `FILES`, from an archive, the cache or the registry.

    Raises `HubError` if the archive cannot be read or downloaded, or is another one.
    """
    if archive is not None:
        return _unpacked(_read(Path(archive)), str(archive))
    folder = cache_folder() / f"onnxruntime-web-{VERSION}"
    if not all((folder / name).is_file() for name in FILES):
        _keep(folder, _unpacked(_downloaded(), ARCHIVE))
    return {name: (folder / name).read_bytes() for name in FILES}


def _read(path: Path) -> bytes:
    remedy = f"give the file that this wrote: {_pack()}"
    with converting(OSError, HubError, path, "cannot be read ({})", remedy):
        return path.read_bytes()


def _pack() -> str:
    return f"npm pack onnxruntime-web@{VERSION}"


def _downloaded() -> bytes:
    registry = os.environ.get(NPM) or "https://registry.npmjs.org"
    address = f"{registry.rstrip('/')}/onnxruntime-web/-/{ARCHIVE}"
    remedy = f"type {_pack()} where there is a network, and give its file with --runtime"
    kinds, what = (OSError, ValueError), "cannot be downloaded ({})"
    ours = converting(kinds, HubError, address, what, remedy)
    with ours, urlopen(Request(address), timeout=SECONDS) as answer:
        return answer.read()


def _unpacked(archive: bytes, where: str) -> dict[str, bytes]:
    digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if digest != SHA512:
        raise HubError(where, f"is not onnxruntime-web {VERSION}: its sha512 differs", _pack())
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = {name: tar.extractfile(f"package/dist/{file}") for name, file in FILES.items()}
        return {name: member.read() for name, member in members.items() if member}


def _keep(folder: Path, files: dict[str, bytes]) -> None:
    """Write every file as a whole: a reader never finds half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_bytes(folder / name, content, error=HubError)

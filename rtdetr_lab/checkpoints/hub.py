r"""# The hub: files by repository, revision and name

`huggingface_hub` downloads and caches. Its cache, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` and
`HF_HUB_OFFLINE` work as in its documentation. A revision may be a branch, a tag or a commit. Only a
commit always gives the same bytes; a cached commit is read without any request.

This file turns the client's errors into one type, which says what is missing and what to do.
Without a network the client tries for some 20 seconds before it uses its cache; with
`HF_HUB_OFFLINE=1` it uses the cache at once. The client tries again, with pauses, if a hub is busy
(429) or does not respond. We try again if a download breaks off. An incomplete file never gets its
name in the cache.

A short name may be pinned (`PINS`). Then it always means one commit, and tensors with another
digest are refused.
"""

import json
import logging
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetr_lab.checkpoints.files import shards_of
from rtdetr_lab.checkpoints.presets import DFINE_WORDS
from rtdetr_lab.config import require
from rtdetr_lab.errors import HubError, first_line

log = logging.getLogger("rtdetr_lab")

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""Names of weights files, best first."""

ALIASES = {
    **{size: f"PekingU/rtdetr_{size}vd" for size in ("r18", "r34", "r50", "r101")},
    **{f"v2_{size}": f"PekingU/rtdetr_v2_{size}vd" for size in ("r18", "r34", "r50", "r101")},
    **{f"dfine_{s[0]}": f"ustc-community/dfine-{s}-coco" for s in DFINE_WORDS},
    **{f"detr_r{n}": f"facebook/detr-resnet-{n}" for n in (50, 101)},
    **{f"detr_r{n}_dc5": f"facebook/detr-resnet-{n}-dc5" for n in (50, 101)},
    **{f"detr_r{n}_panoptic": f"facebook/detr-resnet-{n}-panoptic" for n in (50, 101)},
    "detr_r50_dc5_panoptic": "facebook/detr-resnet-50-dc5-panoptic",
    **{f"{size}_o365": f"PekingU/rtdetr_{size}vd_coco_o365" for size in ("r18", "r50", "r101")},
}
"""Short names of the published checkpoints. `_o365`: pre-trained on Objects365, then COCO.
DETR's are the authors' weights, under timm's names."""


@dataclass(frozen=True)
class Pin:
    """Verified commit and digest of a published checkpoint; `verify NAME` prints them."""

    revision: str
    sha256: str

    def __post_init__(self) -> None:
        for name, digits in (("revision", 40), ("sha256", 64)):
            fits = re.fullmatch(f"[0-9a-f]{{{digits}}}", getattr(self, name))
            what, remedy = f"is not {digits} hex digits", "copy it from `rtdetr-lab verify`"
            require(fits, f"Pin.{name}", what, remedy)


PINS: dict[str, Pin] = {}
"""Short name → verified commit and digest. Other names mean the tip of the branch."""

ATTEMPTS = 3


@dataclass(frozen=True)
class Snapshot:
    """Files of one repository at one commit, in the local cache."""

    folder: Path
    revision: str


def fetch(repo: str, revision: str | None = None, **how: Any) -> Snapshot:
    """Fetch config, weights and the files that describe them, from the hub or the cache.

    `how` goes to the hub's client: `cache_dir`, `token`, `local_files_only`. Raises `HubError` if
    the repository, the revision, the config or the weights do not exist, or if the hub cannot be
    reached and the cache does not have them.
    """
    folder = download(repo, "config.json", revision, **how).parent
    # The commit of the first file: all files are of one state, even if the branch moves now.
    commit = folder.name if re.fullmatch("[0-9a-f]{40}", folder.name) else revision
    _weights(repo, commit, how)
    for optional in ("preprocessor_config.json", "README.md"):
        _download_if_there(repo, optional, commit, how)
    return Snapshot(folder, commit or "main")


def origin(name: str, revision: str | None, sha256: str | None) -> list[str]:
    """Return lines that identify the weights, and their entry for `PINS` if they are not pinned."""
    lines = [f"revision {revision}"] if revision is not None else []
    lines.append(f"sha256 {sha256}")
    if name not in ALIASES:
        return lines
    if (pin := PINS.get(name)) is None:
        line = f'"{name}": Pin("{revision}", "{sha256}")'
        return [*lines, f"not pinned: {name} is not verified yet; for PINS: {line}"]
    same = pin.revision == revision
    return [*lines, "pinned: verified before" if same else f"pinned to revision {pin.revision}"]


def licence_in(folder: Path) -> str | None:
    """Return the licence in the front matter of a folder's model card."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    front = re.match(r"\s*---\n(.*?)\n---", card.read_text(encoding="utf8", errors="replace"), re.S)
    found = re.search(r"^license:[ \t]*(\S.*)", front[1], re.M) if front else None
    return (_scalar(found[1]) or None) if found else None


def _scalar(text: str) -> str:
    """Return the words of a value of YAML in one line, without quotes and comment."""
    if text.startswith('"'):
        with suppress(ValueError):
            return str(json.JSONDecoder().raw_decode(text)[0])
    if quoted := re.match(r"'((?:[^']|'')*)'", text):
        return quoted[1].replace("''", "'")
    return re.split(r"(?:^|\s)#", text)[0].strip()


def _weights(repo: str, revision: str | None, how: dict[str, Any]) -> None:
    unreachable: HubError | None = None
    for name in WEIGHTS:
        try:
            path = download(repo, name, revision, **how)
        except HubError as error:
            if not _is_absent(error.__cause__):
                raise
            if isinstance(error.__cause__, _errors().LocalEntryNotFoundError):
                unreachable = unreachable or error
            continue
        if name.endswith(".index.json"):
            for shard in shards_of(path):
                download(repo, shard, revision, **how)
        return
    if unreachable is not None:
        raise unreachable
    what = f"has none of {', '.join(WEIGHTS)}"
    raise HubError(place(repo, None, revision), what, "choose a repository with weights")


def _download_if_there(repo: str, name: str, revision: str | None, how: dict[str, Any]) -> None:
    from huggingface_hub import try_to_load_from_cache

    try:
        download(repo, name, revision, **how)
    except HubError as error:
        if not _is_absent(error.__cause__):
            raise
        # None: the cache does not say whether the repository has this file.
        known = try_to_load_from_cache(repo, name, how.get("cache_dir"), revision=revision)
        if name == "preprocessor_config.json" and known is None:
            log.warning("%s: neither in the cache nor reachable; using 640 × 640", error.where)


def _is_absent(error: BaseException | None) -> bool:
    """Return whether the hub has no such file, or cannot be reached and the cache has none."""
    e = _errors()
    refused = isinstance(getattr(error, "__cause__", None), e.HfHubHTTPError)
    return isinstance(error, e.EntryNotFoundError) and not refused


def download(
    repo: str, name: str, revision: str | None, attempts: int = ATTEMPTS, **how: Any
) -> Path:
    """Return one file from the cache or the hub; `how` goes to the hub's client.

    Raises `HubError`.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, name, revision=revision, **how))
    except Exception as error:  # the client raises what its transport raises: see `explained`
        if attempts == 1 or not _may_pass(error):
            raise HubError(place(repo, name, revision), *explained(error)) from error
    time.sleep(2.0 ** (ATTEMPTS - attempts))
    return download(repo, name, revision, attempts - 1, **how)


def _may_pass(error: Exception) -> bool:
    """Return whether another attempt may succeed: the transfer broke off, or the hub failed."""
    if isinstance(error, _errors().HfHubHTTPError):
        return error.response.status_code >= 500
    came_short = type(error) is OSError and error.errno is None
    return came_short or type(error).__module__.startswith("httpx")


def _errors() -> Any:
    from huggingface_hub import errors

    return errors


def explained(error: BaseException) -> tuple[str, str]:
    """Describe an error of the hub and what to do, the most specific kind first."""
    e = _errors()
    cause = error.__cause__
    if isinstance(error, e.LocalEntryNotFoundError) and isinstance(cause, e.HfHubHTTPError):
        error = cause  # the hub did respond, but without a file
    first = first_line(error)[:160]
    if isinstance(error, e.LocalEntryNotFoundError | e.OfflineModeIsEnabled):
        return (
            "is not in the cache, and the hub cannot be reached",
            "go online once, unset HF_HUB_OFFLINE, or give a local folder",
        )
    if isinstance(error, e.GatedRepoError):
        return "needs its licence to be accepted", "accept it on its page, then set HF_TOKEN"
    if isinstance(error, e.RevisionNotFoundError):
        return "has no such revision", "give a branch, a tag or a full commit"
    if isinstance(error, e.RepositoryNotFoundError | e.HFValidationError):
        remedy = "check the spelling; for a private repository set HF_TOKEN"
        return f"is not a repository that the hub shows us ({first})", remedy
    if isinstance(error, e.EntryNotFoundError):
        return "has no such file", "choose another revision or repository"
    if isinstance(error, e.HfHubHTTPError):
        return _answered(error.response.status_code)
    if isinstance(error, OSError) and error.errno is not None:
        remedy = "free some space, or set HF_HOME to a folder that can be written"
        return f"cannot be written to the cache ({first})", remedy
    return f"could not be downloaded ({first})", "try again, or give a local folder"


def _answered(status: int) -> tuple[str, str]:
    if status in (401, 403):
        return f"is refused by the hub ({status})", "check HF_TOKEN: it may be wrong or expired"
    if status == 429:
        remedy = "wait some minutes and try again; set HF_TOKEN for a higher limit"
        return "was requested too often (429)", remedy
    return f"could not be downloaded: the hub returns {status}", "try again, or give a local folder"


def place(repo: str, name: str | None, revision: str | None) -> str:
    return f"{repo}@{revision or 'main'}" + (f"/{name}" if name else "")

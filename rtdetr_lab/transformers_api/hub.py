r"""# Hub: the files of `from_pretrained`, and `push_to_hub`

`revision`, `cache_dir`, `token` and `local_files_only` have the meaning of huggingface_hub. A
folder on disk is used directly. `load_pretrained` reads the weights from the resulting folder.

`push_to_hub` uploads the files of `save_pretrained`. It keeps an existing model card, because it
may be written by hand. `save_pretrained(folder, push_to_hub=True)` does both; without a `repo_id`
the repository gets the name of the folder.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from rtdetr_lab.checkpoints.files import read_json
from rtdetr_lab.checkpoints.hub import download, fetch, first_line, place
from rtdetr_lab.checkpoints.names import model_of
from rtdetr_lab.config import require
from rtdetr_lab.errors import CheckpointError, HubError
from rtdetr_lab.writing import write_text

FILE = "preprocessor_config.json"


def file_of(
    name: str | os.PathLike[str], file: str, revision: str | None = None, **how: Any
) -> Path:
    """Find one file of a folder or hub id.

    `how` goes to the hub's client: `cache_dir`, `token`, `local_files_only`. Raises
    `CheckpointError` or `HubError`.
    """
    named = model_of(name)
    if named.repo:
        return download(named.repo, file, named.revision(revision), **how)
    if named.path is None:
        what = "is the model inside this package, which is a single file"
        raise CheckpointError(os.fspath(name), what, "load it with rtdetr_lab.load_pretrained")
    for home in (named.path, named.path / "model"):  # `model` is the folder of a training run
        if (home / file).is_file():
            return home / file
    raise CheckpointError(str(named.path), f"has no {file}", "give a folder that has it")


def folder_of(name: str | os.PathLike[str], revision: str | None = None, **how: Any) -> Path:
    """Find the folder with config and weights; from the hub, all files of one commit."""
    named = model_of(name)
    if not named.repo:
        return file_of(name, "config.json").parent
    return fetch(named.repo, named.revision(revision), **how).folder


PUSHED = ("repo_id", "private", "token", "commit_message", "revision")
"""Options of `save_pretrained` that need `push_to_hub=True`."""


def pushed(saved: Any, folder: str | os.PathLike[str], wanted: bool, told: dict[str, Any]) -> None:
    """Push for `save_pretrained(folder, push_to_hub=True, …)`, if `wanted`.

    Raises `ConfigError` for options that would have no effect.
    """
    at = f"{type(saved).__name__}.save_pretrained"
    unknown = ", ".join(sorted(set(told) - set(PUSHED)))
    require(not unknown, at, f"has no option {unknown}", f"use some of {', '.join(PUSHED)}")
    what = f"is not set, and without it {', '.join(told)} would do nothing"
    require(wanted or not told, f"{at}(push_to_hub)", what, "set push_to_hub=True")
    if wanted:
        rest = dict(told)
        name = rest.pop("repo_id", None) or Path(folder).expanduser().resolve().name
        saved.push_to_hub(name, **rest)


class Pushable:
    """Base of everything that can be saved into a repository of the hub."""

    called: ClassVar[str]
    kept: ClassVar[tuple[str, ...]] = ("README.md",)
    """Files that are not overwritten if the repository has them."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str | None = None,
        revision: str | None = None,
    ) -> str:
        """Save into a repository of the hub; return the commit's address. Raises `HubError`."""
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        with TemporaryDirectory() as folder:
            self.write_upload(repo_id, Path(folder))
            try:
                repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
                if revision is not None:
                    api.create_branch(repo, branch=revision, exist_ok=True)
                there = [n for n in self.kept if api.file_exists(repo, n, revision=revision)]
                done = api.upload_folder(
                    repo_id=repo,
                    folder_path=folder,
                    commit_message=commit_message or f"Upload {self.called}",
                    revision=revision,
                    ignore_patterns=there,
                )
            except Exception as error:  # the client may raise errors of its transport, too
                what = f"could not be pushed ({first_line(error)})"
                remedy = "give a token with write access, or log in with `hf auth login`"
                raise HubError(place(repo_id, None, revision), what, remedy) from error
        return str(done.commit_url)

    def write_upload(self, repo_id: str, folder: Path) -> None:
        """Write the files to upload into a folder."""
        raise NotImplementedError


class OneFile(Pushable):
    """Base of classes that are stored in one small file."""

    filename: ClassVar[str]

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any], **changes: Any) -> Any:
        """Make an object from the file's content."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        **changes: Any,
    ) -> Any:
        """Read the file of a hub id or folder, and apply `changes`."""
        how = {"cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
        return cls.from_dict(read_json(file_of(name, cls.filename, revision, **how)), **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the file's content."""
        raise NotImplementedError

    def to_json_string(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def save_pretrained(
        self, folder: str | os.PathLike[str], push_to_hub: bool = False, **told: Any
    ) -> None:
        """Write the file into a folder, and push it if requested."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_text(Path(folder) / self.filename, self.to_json_string())
        pushed(self, folder, push_to_hub, told)

    def write_upload(self, repo_id: str, folder: Path) -> None:
        """Write the file into a folder."""
        self.save_pretrained(folder)

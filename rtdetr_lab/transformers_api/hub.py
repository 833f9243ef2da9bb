r"""# Hub: the files of `from_pretrained`, and `push_to_hub`

`revision`, `cache_dir`, `token` and `local_files_only` have the meaning of huggingface_hub. A
folder on disk is used directly. `load_pretrained` reads the weights from the resulting folder.

`push_to_hub` uploads the files of `save_pretrained`. It keeps an existing model card, because it
may be written by hand. `save_pretrained(folder, push_to_hub=True)` does both; without a `repo_id`
the repository gets the name of the folder.
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from inspect import Signature, signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from rtdetr_lab.checkpoints.files import read_json
from rtdetr_lab.checkpoints.hub import download, fetch, place
from rtdetr_lab.checkpoints.names import model_of
from rtdetr_lab.config import require
from rtdetr_lab.errors import CheckpointError, HubError, first_line
from rtdetr_lab.writing import write_text

log = logging.getLogger("rtdetr_lab")

FILE = "preprocessor_config.json"


FINDING = ("revision", "cache_dir", "token", "local_files_only", "force_download", "subfolder")
"""Arguments of `from_pretrained` that tell where the files are."""

UNREAD = ("trust_remote_code", "low_cpu_mem_usage", "resume_download", "weights_only", "use_fast")
"""Arguments of `from_pretrained` that change nothing here: we run no code from the hub, build every
model once, read no pickled objects, and always resize with Pillow."""


def taken(told: dict[str, Any]) -> dict[str, Any]:
    """Take the arguments in `FINDING` and `UNREAD` out of `told`; return the former."""
    found = {key: told.pop(key) for key in (*FINDING, *UNREAD) if key in told}
    return {key: found[key] for key in FINDING if found.get(key) is not None}


def file_of(
    name: str | os.PathLike[str],
    file: str,
    revision: str | None = None,
    subfolder: str = "",
    **how: Any,
) -> Path:
    """Find one file of a folder or hub id.

    `how` goes to the hub's client: `cache_dir`, `token`, `local_files_only`, `force_download`.
    Raises `CheckpointError` or `HubError`.
    """
    named, inside = model_of(name), Path(subfolder) / file
    if named.repo:
        return download(named.repo, inside.as_posix(), named.revision(revision), **how)
    if named.path is None:
        what = "is the model inside this package, which is a single file"
        raise CheckpointError(os.fspath(name), what, "load it with rtdetr_lab.load_pretrained")
    for home in (named.path, named.path / "model"):  # `model` is the folder of a training run
        if (home / inside).is_file():
            return home / inside
    raise CheckpointError(str(named.path), f"has no {inside}", "give a folder that has it")


def folder_of(name: str | os.PathLike[str], **where: Any) -> Path:
    """Find the folder with config and weights; from the hub, all files of one commit."""
    named = model_of(name)
    if named.repo and not where.get("subfolder"):
        revision = named.revision(where.pop("revision", None))
        return fetch(named.repo, revision, **where).folder
    if named.repo:
        file_of(name, "model.safetensors", **where)
    return file_of(name, "config.json", **where).parent


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


class Lenient(type):
    """Class of a dataclass that keeps unknown keywords in its field `extra`.

    transformers keeps them as attributes, so code that is written for it may give any. A warning
    names them: a misspelled parameter would have no effect.
    """

    def __call__(cls: Any, *args: Any, **told: Any) -> Any:
        aliases = getattr(cls, "aliases", {})
        told = {aliases.get(name, name): value for name, value in told.items()}
        told.pop("model_type", None)  # the class has its own
        known = {*(one.name for one in fields(cls)), *signature(cls.__init__).parameters}
        extra = {name: told.pop(name) for name in set(told) - known}
        if extra:
            names = ", ".join(sorted(extra))
            log.warning("%s keeps %s, but nothing reads it", cls.__name__, names)
            told["extra"] = {**(told.get("extra") or {}), **extra}
        return super().__call__(*args, **told)

    @property
    def __signature__(cls: Any) -> Signature:
        """Parameters of `__init__`, for `help` and editors."""
        whole = signature(cls.__init__)
        return whole.replace(parameters=list(whole.parameters.values())[1:])


@dataclass(kw_only=True)
class OneFile(Pushable, metaclass=Lenient):
    """Base of classes that are stored in one small file; `extra` has keys that nothing reads."""

    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    filename: ClassVar[str]

    def __getattr__(self, name: str) -> Any:
        extra = self.__dict__.get("extra", {})
        if name not in extra:
            raise AttributeError(f"{type(self).__name__} has no {name}")
        return extra[name]

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any], **changes: Any) -> Any:
        """Make an object from the file's content."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **told: Any
    ) -> Any:
        """Read the file of a hub id or folder (`FINDING` tells where), and apply other changes."""
        path = file_of(pretrained_model_name_or_path, cls.filename, **taken(told))
        return cls.from_dict(read_json(path), **told)

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> Any:
        """Read such a file under any name."""
        return cls.from_dict(read_json(Path(path)))

    def to_dict(self) -> dict[str, Any]:
        """Return the file's content."""
        raise NotImplementedError

    def to_json_string(self) -> str:
        """Return `to_dict` as JSON text."""

        def word(value: Any) -> str:  # of a dtype
            return str(value).removeprefix("torch.")

        return json.dumps(self.to_dict(), indent=2, sort_keys=True, default=word) + "\n"

    def to_json_file(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json_string` into a file."""
        write_text(Path(path), self.to_json_string())

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **told: Any
    ) -> list[str]:
        """Write the file into a folder, and push it if requested; return its path in a list."""
        path = Path(save_directory) / self.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        self.to_json_file(path)
        pushed(self, save_directory, push_to_hub, told)
        return [str(path)]

    def write_upload(self, repo_id: str, folder: Path) -> None:
        """Write the file into a folder."""
        self.save_pretrained(folder)

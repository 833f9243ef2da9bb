"""Malice: files that want to run something, or to read and write where they have no business.

Every case plants a file that would be created if code ran (`tripwire`), and checks it stayed away.
"""

import io
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from small import shaken, small
from tally import Wrong, refusal

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.convert import convert
from rtdetr_lab.detections import Classes, Detections
from rtdetr_lab.errors import LabError
from rtdetr_lab.images.decode import read_photo
from rtdetr_lab.images.postprocess import Found

WORDS = ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\x1b[2J\x1b[31mred", "a\nb")
WORDS += ("'; DROP TABLE", "{{7*7}}", "$(touch x)", "`id`", "%s%n", "\u202egnp.exe", "../../etc")


class Runs:
    """Pickled, it calls `os.system` when somebody unpickles it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def calling(command: str) -> bytes:
    """A pickle written by hand, opcode by opcode: fetch `os.system`, call it with the command."""
    return f"cos\nsystem\n(S{command!r}\ntR.".encode()


def evil_pickle(rng: random.Random, folder: Path, tripwire: Path) -> str:
    """A `.pth` whose unpickling runs a command, hidden in one of several places."""
    bad, good = Runs(f"touch {tripwire}"), torch.zeros(2)
    content = rng.choice(
        (bad, {"model": bad}, {"a": good, "b": bad}, {"ema": {"module": {"a": bad}}}, [good, bad])
    )
    path = folder / rng.choice(("w.pth", "w.pt", "w.bin"))
    kind = rng.randrange(3)
    if kind == 0:
        path.write_bytes(calling(f"touch {tripwire}"))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == 1)
    return _refused(lambda: load_pretrained(path), path.name)


def evil_zip(rng: random.Random, folder: Path, tripwire: Path) -> str:
    """A zip with entries that climb out of it."""
    path, file = folder / "w.pth", io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("../" * rng.randint(1, 4) + tripwire.name, str(tripwire), "archive/data.pkl"):
            archive.writestr(name, calling(f"touch {tripwire}"))
    path.write_bytes(file.getvalue())
    return _refused(lambda: load_pretrained(path), path.name)


def evil_config(rng: random.Random, folder: Path, tripwire: Path) -> str:
    """A config.json that names code: transformers' `auto_map`, a class path, a function."""
    (folder / "evil.py").write_text(f"open({str(tripwire)!r}, 'w')\nclass Model: pass\n")
    place = folder / "model"
    save_pretrained(shaken(small().build()), place)
    tree = json.loads((place / "config.json").read_text("utf8"))
    outside = rng.choice(("os.system", "evil.Model", "builtins.exec", "subprocess.Popen"))
    kind = rng.randrange(4)
    if kind == 0:
        tree = {"model_type": "rt_detr", "auto_map": {"AutoModel": "evil.Model"}}
    elif kind == 1:
        tree["model"]["class"] = tree["model"]["kind"] = tree["model"]["type"] = outside
    elif kind == 2:
        _replace_class_paths(tree["model"], outside)
    else:
        tree["model"]["backbone"] = {"class": outside, "args": [f"touch {tripwire}"]}
    (place / "config.json").write_text(json.dumps(tree), encoding="utf8")
    return _refused(lambda: load_pretrained(place), str(folder), any_place=True)


def _replace_class_paths(tree: object, path: str) -> None:
    for key, value in list(tree.items()) if isinstance(tree, dict) else []:
        if (isinstance(value, str) and "rtdetr_lab" in value) or (
            isinstance(value, str) and key.startswith(("class", "$", "@", "_"))
        ):
            tree[key] = path
        else:
            _replace_class_paths(value, path)


def evil_index(rng: random.Random, folder: Path, tripwire: Path) -> str:
    """A list of shards that points out of the folder."""
    outside = rng.choice(("../secret.safetensors", str(folder / "secret.safetensors"), "a/../../s"))
    place = folder / "model"
    place.mkdir()
    index = place / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": outside}}), encoding="utf8")
    return _refused(lambda: load_pretrained(index), str(folder), any_place=True)


def evil_file_name(rng: random.Random, folder: Path, tripwire: Path) -> str:
    """Annotations whose pictures lie elsewhere: absolute, climbing, UNC, impossible."""
    secret = folder / "secret.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(secret)
    data = folder / "data"
    (data / "images").mkdir(parents=True)
    names = [str(secret), "../secret.png", "images/../../secret.png", "\\\\server\\share\\a.png"]
    names += ["C:\\secret.png", "file://" + str(secret), "//server/share/a.png", "\x00", "a" * 5000]
    tree = {"images": [{"id": 1, "file_name": rng.choice(names), "height": 4, "width": 4}]}
    tree |= {"annotations": [], "categories": [{"id": 1, "name": rng.choice(WORDS)}]}
    (data / "train.json").write_text(json.dumps(tree), encoding="utf8")
    return _refused(lambda: CocoDataset.from_folder(data)[0], "", any_place=True)


def evil_yolo(rng: random.Random, folder: Path, tripwire: Path) -> str:
    """A data.yaml that builds objects, or whose splits lie elsewhere."""
    data = folder / "data"
    (data / "images").mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "secret.png")
    command = f"!!python/object/apply:os.system ['touch {tripwire}']"
    texts = (
        f"names: {command}\ntrain: images\n",
        f"names: [a]\ntrain: {command}\n",
        "names: [a]\ntrain: ..\n",
        f"names: [a]\ntrain: {folder}\n",
        "names: [a]\npath: ../..\ntrain: ../../\n",
    )
    (data / "data.yaml").write_text(rng.choice(texts), encoding="utf8")
    return _refused(lambda: convert(data, folder / "out"), "", any_place=True)


def evil_words(rng: random.Random, folder: Path, tripwire: Path) -> str:
    """Class and file names with markup and terminal codes, printed and saved."""
    word = rng.choice(WORDS)
    found = Found(
        torch.tensor([[1.0, 1, 9, 9]]), torch.tensor([0.9]), torch.tensor([0]), torch.tensor([0])
    )
    photo = replace(read_photo(np.zeros((12, 12, 3), np.uint8)), source=word)
    shown = Detections.of(found, photo, Classes((word,)))
    text = repr(shown)
    if any(ord(c) < 32 and c != "\n" for c in text) or text.count("\n") > 1:
        raise Wrong(f"{word!r} reaches the terminal as it is: {text!r}")
    html = getattr(shown, "_repr_html_", lambda: "")() or ""
    if "<script" in html or "<img src=x" in html:
        raise Wrong(f"{word!r} reaches a notebook as markup")
    return "unharmful"


def evil_link(rng: random.Random, folder: Path, tripwire: Path) -> str:
    """Links where a save will write: what they lead to, there or not yet there, is left alone."""
    secret, place = folder / "secret", folder / "model"
    secret.write_text("untouched", encoding="utf8")
    place.mkdir()
    name = rng.choice(("model.safetensors", "config.json"))
    (place / name).symlink_to(rng.choice((secret, tripwire)))
    layout = rng.choice(("lab", "transformers"))
    model = shaken(small({"encoder.ccff.num_blocks": 3}).build())
    load_pretrained(save_pretrained(model, place, layout))
    if secret.read_text(encoding="utf8") != "untouched" or (place / name).is_symlink():
        raise Wrong(f"{name} was written through a link")
    return "unharmful"


def _refused(act: Callable[[], object], name: str, any_place: bool = False) -> str:
    try:
        act()
    except LabError as error:
        return refusal(error, "" if any_place else name)
    raise Wrong("it was accepted")


KINDS = (evil_pickle, evil_zip, evil_config, evil_index, evil_file_name, evil_yolo, evil_words)
KINDS += (evil_link,)


def case(rng: random.Random, folder: Path) -> str:
    """One of them; whatever it wants to touch must stay untouched."""
    place, tripwire = folder / "case", folder / "tripwire"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    kind = rng.choice(KINDS)
    try:
        outcome = kind(rng, place, tripwire)
    except Wrong as error:
        raise Wrong(f"{kind.__name__}: {error}") from error
    if tripwire.exists() or (folder.parent / tripwire.name).exists():
        tripwire.unlink(missing_ok=True)
        raise Wrong(f"{kind.__name__}: something ran")
    return f"{kind.__name__}: {outcome}"

"""Mutated weights and configurations: refused by name, or provably what was saved."""

import copy
import json
import random
import shutil
from functools import cache
from pathlib import Path

import mutate
import torch
from small import pictures, shaken, small
from tally import Wrong, refusal

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.errors import LabError


@cache
def model() -> torch.nn.Module:
    """A whole RT-DETR of a few kilobytes that transformers' layout can express, too."""
    torch.manual_seed(0)
    return shaken(small({"encoder.ccff.num_blocks": 3}).build()).eval()


@cache
def saved(folder: Path, layout: str) -> dict[str, bytes]:
    """The files of an intact save, by name."""
    if layout == "pth":
        path = folder / "intact.pth"
        torch.save({"ema": {"module": model().state_dict()}}, path)
        return {"w.pth": path.read_bytes()}
    place = folder / f"intact-{layout}"
    save_pretrained(model(), place, layout)
    return {p.name: p.read_bytes() for p in sorted(place.iterdir()) if p.suffix != ".md"}


def _written(folder: Path, files: dict[str, bytes]) -> Path:
    place = folder / "case"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name, data in files.items():
        (place / name).write_bytes(data)
    return place


def _judged(place: Path, what: str, **how: object) -> str:
    """Load it: refused with the place in the message, or the weights that were saved."""
    try:
        loaded = load_pretrained(place, **how)
    except LabError as error:
        if what == "intact":
            raise Wrong(f"an intact file is refused: {error}") from error
        return refusal(error, str(place) if place.is_dir() else place.name)
    intact = model().state_dict()
    own = loaded.state_dict()
    for name, tensor in own.items():
        if name in intact and not torch.equal(tensor, intact[name]):
            raise Wrong(f"{what}: {name} was loaded with other values")
    # A live norm counts its batches, a frozen one does not; no answer depends on the counter.
    if missing := {n for n in set(own) ^ set(intact) if not n.endswith("num_batches_tracked")}:
        raise Wrong(f"{what}: other tensors: {sorted(missing)[:3]}")
    return _finite(loaded, what)


def _finite(loaded: torch.nn.Module, what: str) -> str:
    try:
        with torch.no_grad():
            answer = loaded(pictures(1, 64, 64))
    except LabError:
        return "refused when used"  # more queries than tokens, say: depends on the picture
    if not (torch.isfinite(answer.boxes).all() and torch.isfinite(answer.logits).all()):
        raise Wrong(f"{what}: the model's answer is not finite")
    return "equal"


def _damaged(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Damaged, but for one in thirty: what is whole must be read."""
    return ("intact", data) if rng.random() < 1 / 30 else mutate.damaged(data, rng)


def safetensors(rng: random.Random, folder: Path) -> str:
    """A damaged weights file, alone or in a folder, in our layout or transformers'."""
    layout = rng.choice(("lab", "lab", "transformers"))
    files = dict(saved(folder, layout))
    what, files["model.safetensors"] = _damaged(files["model.safetensors"], rng)
    place = _written(folder, files)
    alone = layout == "lab" and rng.random() < 0.5
    if alone:
        (place / "config.json").unlink()
    return _judged(place / "model.safetensors" if alone else place, what)


def foreign(rng: random.Random, folder: Path) -> str:
    """A damaged file of somebody else's, without a digest: safetensors has no checksum, so other
    values of the right shape cannot be noticed. All else must be, and what answers is finite."""
    files = dict(saved(folder, "transformers"))
    raw = files["model.safetensors"]
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header["__metadata__"] = {"format": "pt"}
    text = json.dumps(header).encode()
    intact = len(text).to_bytes(8, "little") + text + raw[8 + size :]
    what, files["model.safetensors"] = mutate.damaged(intact, rng)
    place = _written(folder, files)
    try:
        loaded = load_pretrained(place)
    except LabError as error:
        return refusal(error, str(place))
    own, saved_ones = loaded.state_dict(), model().state_dict()
    same = all(torch.equal(tensor, saved_ones[name]) for name, tensor in own.items())
    return _finite(loaded, what) if same else "other values, finite: " + _finite(loaded, what)


def pth(rng: random.Random, folder: Path) -> str:
    """A damaged file of the authors' kind."""
    what, data = _damaged(saved(folder, "pth")["w.pth"], rng)
    return _judged(_written(folder, {"w.pth": data}) / "w.pth", what, config=model().cfg)


def config(rng: random.Random, folder: Path) -> str:
    """A damaged config.json beside intact weights."""
    layout = rng.choice(("lab", "transformers"))
    files = dict(saved(folder, layout))
    if rng.random() < 0.4:
        what, files["config.json"] = mutate.damaged(files["config.json"], rng)
    else:
        tree = copy.deepcopy(json.loads(files["config.json"]))
        what = mutate.damaged_tree(tree, rng)
        files["config.json"] = json.dumps(tree).encode()
    return _judged(_written(folder, files), what)


def bits(rng: random.Random, folder: Path) -> str:
    """One bit turned in a checkpoint of ours. It must be noticed; "equal" is not enough here,
    unless the file says, to the last character, the same."""
    files = dict(saved(folder, "lab"))
    name = rng.choices(sorted(files), [len(files[n]) for n in sorted(files)])[0]
    if rng.random() < 0.3:
        name = "config.json"
    data, at = bytearray(files[name]), rng.randrange(len(files[name]))
    data[at] ^= 1 << rng.randrange(8)
    files[name] = bytes(data)
    place = _written(folder, files)
    outcome = _judged(place, f"bit in {name} at {at}")
    if outcome == "equal" and not _says_the_same(place, folder):
        raise Wrong(f"a bit of {name} at {at} was not noticed")
    return outcome


def _says_the_same(place: Path, folder: Path) -> bool:
    """White space, or another way to escape a character: what is read is identical."""
    intact = folder / "intact-lab"
    trees = [json.loads((p / "config.json").read_text("utf8")) for p in (place, intact)]
    headers = []
    for p in (place, intact):
        raw = (p / "model.safetensors").read_bytes()
        size = int.from_bytes(raw[:8], "little")
        headers.append(json.loads(raw[8 : 8 + size]))
    return trees[0] == trees[1] and headers[0] == headers[1]

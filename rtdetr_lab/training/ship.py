r"""# Ship: from a finished run to a checkpoint inside the package

    rtdetr-lab train --preset nano --data shapes --out runs/nano --pictures 52000 --amp
    python -m rtdetr_lab.training.ship runs/nano

`ship runs/nano_seg nano-seg` makes the other checkpoint.
`ship` rounds the averaged weights to half precision and evaluates *the rounded weights* on the
first 500 validation pictures of its world. So the numbers in the record are those of the file that
people load. The record, such as `assets/nano.json`, holds the command that was typed, the recipe,
the number of pictures, the result, the licence, and the sha256 of the file, which `load_pretrained`
checks.
"""

import hashlib
import json
import os
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from rtdetr_lab.checkpoints.metadata import Metadata
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.checkpoints.source import ASSETS
from rtdetr_lab.config_json import from_json
from rtdetr_lab.data.shapes import DEFAULT, VAL, ShapesConfig, ShapesDataset
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.evaluation.evaluate import evaluate
from rtdetr_lab.model import declared
from rtdetr_lab.training.metrics import Record
from rtdetr_lab.training.state import load_last
from rtdetr_lab.writing import write_text

LICENCE = "Apache-2.0"
NUM_VALIDATION = 500


@dataclass(frozen=True)
class Shipped:
    """A checkpoint of this package: what it is, and the world that it knows."""

    what: str
    source: str = "rtdetr_lab, shapes world"
    world: ShapesConfig = DEFAULT


SHIPPED = {
    "nano": Shipped("rtdetr_nano, trained from scratch on the shapes world"),
    "nano-seg": Shipped("nano with a mask head; only the head was trained, on the shapes world"),
}


def validation(
    size: int, count: int = NUM_VALIDATION, masks: bool = False, name: str = "nano"
) -> ShapesDataset:
    """Return the pictures for the record's numbers: the checkpoint's world at the model's size."""
    return ShapesDataset(replace(SHIPPED[name].world, size=size), VAL, count, masks)


def ship(run: str | Path, name: str = "nano", size: int = 256, assets: Path = ASSETS) -> Path:
    """Write `name.safetensors` and `name.json` into `assets` from the run folder; return the
    record's path.

    Raises `TrainingError` for a folder without a run.
    """
    run = Path(run)
    state, _ = load_last(run)
    if state is None:
        raise TrainingError(str(run), "holds no run", "train a model first: rtdetr-lab train")
    model = _rounded(state)
    data = validation(size, masks=declared(model).draws_masks, name=name)
    source = SHIPPED[name].source
    known = Metadata(data.names, data.category_ids, (size, size), LICENCE, source)
    scores = evaluate(model.float(), data)
    assets.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=assets) as folder:
        save_pretrained(model.half(), folder, metadata=known)
        os.replace(Path(folder) / "model.safetensors", assets / f"{name}.safetensors")
    digest = hashlib.sha256((assets / f"{name}.safetensors").read_bytes()).hexdigest()
    record = _record(run, state, size, name) | {"metrics": dict(scores), "sha256": digest}
    target = assets / f"{name}.json"
    write_text(target, json.dumps(record, indent=2) + "\n", TrainingError)
    return target


def _rounded(state: dict[str, Any]) -> nn.Module:
    model = from_json(state["cfg"]).build()
    model.load_state_dict(state["ema"])
    return model.half().eval()


def _record(run: Path, state: dict[str, Any], size: int, name: str) -> dict[str, Any]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf8").splitlines()
    history: list[Record] = [json.loads(line) for line in lines]
    recipe = json.loads(state["config"])
    began = json.loads((run / "run.json").read_text(encoding="utf8"))["sessions"][0]
    world = asdict(validation(size, name=name).config)
    return {
        "what": SHIPPED[name].what,
        "command": shlex.join(["rtdetr-lab", *began["command"][1:]]),
        "licence": LICENCE,
        "date": began["date"][:10],
        "torch": began["torch"],
        "seed": recipe["seed"],
        "pictures_seen": state["step"] * recipe["batch_size"],
        "hours": round(max(line["seconds"] for line in history) / 3600, 2),
        "recipe": recipe,
        "model": json.loads(state["cfg"]),
        "validation": {"seed": VAL, "count": NUM_VALIDATION, "world": world},
        "curves": _curves(history),
    }


def _curves(history: list[Record], points: int = 40) -> dict[str, list[int | float]]:
    """Thin out pictures seen and loss, so that the file stays readable."""
    lines = [line for line in history if "loss" in line]
    lines = lines[:: max(1, len(lines) // points)]
    return {
        "pictures": [int(line["pictures"]) for line in lines],
        "loss": [round(line["loss"], 3) for line in lines],
    }


if __name__ == "__main__":
    print(ship(sys.argv[1], sys.argv[2] if sys.argv[2:] else "nano"))

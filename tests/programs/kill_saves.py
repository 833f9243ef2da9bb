"""Kill a process that saves a model over another, again and again; what lies there must be one.

    python tests/programs/kill_saves.py --count 200 --seed 1

Two models that differ in every number and in their class names are saved in turn into one folder.
Of every four moments three are drawn uniformly over the time of six saves, one over the points
inside a save (`kill_tools.py`); a byte of shared memory says whether a save was under way. After
the kill the weights file and the folder must each load, and be the one model or the other, whole;
and a further save must succeed.
"""

import logging
import mmap
import random
import shutil
import sys
import time
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))  # wherever this is started from

import torch
from kill_tools import asked, killed_after, killed_at_point, points_of, told
from safetensors.torch import save
from small import shaken, small

from rtdetr_lab import writing
from rtdetr_lab.checkpoints import files
from rtdetr_lab.checkpoints.files import digest, read_weights
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.metadata import Metadata
from rtdetr_lab.checkpoints.save import save_pretrained

LAYOUTS = ("lab", "transformers")


def two_models():
    """The same shapes; nothing else is alike."""
    found = []
    for names in (("cat", "dog"), ("nut", "bolt")):
        model = small({"encoder.ccff.num_blocks": 3}, num_classes=2).build()
        model.metadata = Metadata(names, (0, 1))
        found.append(shaken(model).eval())
    return found


def save_in_turn(models, folder, layout, saving, times=None):
    """The second first, for the first lies there."""
    for number in count() if times is None else range(times):
        saving[0] = 1
        save_pretrained(models[(number + 1) % 2], folder, layout)
        saving[0] = 0


def install(points):
    """Into the module that writes checkpoints; half a file is half of its bytes."""

    def save_file(tensors, path, header):
        with points.open(path, "wb") as file:
            file.write(save(tensors, header))

    writing.os, writing.open, files.save_file = points.os(), points.open, save_file


def which(tensors, models):
    """The number of the model these tensors are of, to the last bit; None if of neither."""
    found = digest(tensors)
    return next((i for i, m in enumerate(models) if digest(m.state_dict()) == found), None)


def judged(folder, models):
    """What is wrong with what lies there; empty if nothing is."""
    try:
        whole = load_pretrained(folder)
        in_file = load_pretrained(folder / "model.safetensors", config=models[0].cfg)
        read_weights(folder / "model.safetensors")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    found = which(whole.state_dict(), models)
    if found is None or found != which(in_file.state_dict(), models):
        return "the weights are of neither model"
    if whole.metadata.names != models[found].metadata.names:
        return "class names of one model, weights of the other"
    config = folder / "config.json"  # as a program reads it that knows nothing of our header
    others = models[1 - found].metadata.names
    if config.exists() and any(f'"{name}"' in config.read_text() for name in others):
        return "config.json is of one model, the weights of the other"
    return ""


def one_kill(folder, number, draw, seconds, models, saving):
    """Whether what lies there is a model, whether the kill struck, and whether inside a save."""
    layout = LAYOUTS[number // 4 % 2]
    save_pretrained(models[0], folder, layout)
    saving[0] = 0
    work = lambda: save_in_turn(models, folder, layout, saving)  # noqa: E731
    if number % 4 == 3:
        one = points_of(install, lambda: save_in_turn(models, folder, layout, saving, 1))
        save_pretrained(models[0], folder, layout)
        point = draw.randrange(one)
        struck, where = killed_at_point(install, work, point), f"point {point} of {one}"
    else:
        moment = draw.uniform(0, seconds)
        struck, where = killed_after(work, moment), f"after {1000 * moment:.1f} ms"
    inside, halves = saving[0] == 1, len([*folder.glob(".*")])
    wrong = judged(folder, models)
    save_pretrained(models[1], folder, layout)
    wrong = wrong or judged(folder, models)
    said = f"killed {where}, {'inside' if inside else 'between'} saves, {halves} half files"
    print(f"{number + 1:4} {layout:12} {said}; {wrong or 'whole'}", flush=True)
    shutil.rmtree(folder)
    return not wrong, struck, inside


def time_of_a_save(models, folder):
    """Seconds, of the quickest of five."""
    saving, took = bytearray(1), []
    for _ in range(5):
        began = time.monotonic()
        save_in_turn(models, folder, "lab", saving, 1)
        took.append(time.monotonic() - began)
    return min(took)


def main():
    given, begun = asked(__doc__, count=20), time.monotonic()
    torch.set_num_threads(1)  # a fork has only the thread that forked
    torch.manual_seed(given.seed)
    logging.getLogger("rtdetr_lab").setLevel(
        logging.ERROR
    )  # "a save was cut short", again and again
    draw, models, saving = random.Random(given.seed), two_models(), mmap.mmap(-1, 1)
    outcomes = []
    with TemporaryDirectory() as place:
        seconds = 6 * time_of_a_save(models, Path(place) / "warm")
        for number in range(given.first, given.first + given.count):
            folder = Path(place) / f"save{number}"
            outcomes.append(one_kill(folder, number, draw, seconds, models, saving))
    return told(given, begun, outcomes)


if __name__ == "__main__":
    sys.exit(main())

"""Surroundings that fail: a full disk, a folder nobody may write, no /dev/shm, a killed worker, ^C.

    python tests/programs/campaign/surroundings.py --out FILE

Each once, in a fork of this process, for training, a study, `detect` and a save. What must hold: a
typed error (on the command line one line that says what and where), an end in time, everything that
was there before untouched, and a next start that goes on. A full disk is a small tmpfs where one
may be mounted; elsewhere a limit on the size of files, and the row says so.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # wherever this is started from
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from ablation_toy import study
from children import bytes_of, disk, in_a_fork, typed, untouched, without_shared_memory
from PIL import Image
from small import shaken, small
from tally import Wrong
from training_toy import Toy, ToyData

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.metadata import Metadata
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.cli import main as command_line
from rtdetr_lab.errors import CheckpointError, TrainingError
from rtdetr_lab.training import TrainConfig, train
from rtdetr_lab.training.state import load_state

CONFIG = TrainConfig(num_pictures=48, batch_size=4, lr=1e-2, save_every=4, eval_every=3)

# --- what is done there -------------------------------------------------------------------------


def score(model: torch.nn.Module) -> dict[str, float]:
    return {"AP": float(model.head.weight.mean())}


def toy(folder: Path, data: object = None, config: TrainConfig = CONFIG, **how: object) -> object:
    data = ToyData() if data is None else data
    return train(Toy(), data, folder, config, score, device="cpu", progress=False, **how)


def same_as_untouched(run: object, folder: Path) -> None:
    whole = toy(folder / "whole").model.state_dict()
    if not all(torch.equal(t, whole[n]) for n, t in run.model.state_dict().items()):
        raise Wrong("the run that went on has other weights than one nobody touched")


def a_model(folder: Path) -> Path:
    torch.manual_seed(3)
    known = Metadata(tuple("abcde"), (0, 1, 2, 3, 4), (64, 64))
    return save_pretrained(shaken(small().build()).eval(), folder / "model", metadata=known)


def photos(folder: Path, number: int) -> Path:
    draw = random.Random(0)
    (folder / "photos").mkdir(exist_ok=True)
    for i in range(number):
        pixels = np.frombuffer(draw.randbytes(48 * 64 * 3), np.uint8).reshape(48, 64, 3)
        Image.fromarray(pixels).save(folder / "photos" / f"{i:03}.png")
    return folder / "photos"


def detect(folder: Path, number: int, out: Path) -> Callable[[], int]:
    words = ["detect", photos(folder, number), "--model", a_model(folder), "--out", out]
    words += ["--device", "cpu", "--threshold", "0.0"]
    return lambda: command_line(list(map(str, words)))


# --- the disk is full ---------------------------------------------------------------------------


def full_disk_training(folder: Path) -> tuple[str, str]:
    with disk(folder, "1m") as place:
        toy(place.folder / "run", stop_after=2)
        first, before = place.fill(6_000), bytes_of(place.folder)

        def quota() -> None:  # as with a quota, the disk says there is room
            first()
            shutil.disk_usage = lambda _: type("usage", (), {"free": 10**9})

        work = typed(lambda: toy(place.folder / "run"), TrainingError)
        said = in_a_fork(work, folder / "log", quota).in_one_line("cannot be written", "make room")
        untouched(before, place.folder, ("filler", "run.json", "metrics.jsonl"))
        if load_state(place.folder / "run" / "last.pt")["step"] != 2:
            raise Wrong("the last save is another")
        place.empty()
        same_as_untouched(toy(place.folder / "run"), folder)
    return place.how, said


def full_disk_training_command(folder: Path) -> tuple[str, str]:
    with disk(folder, "1m") as place:
        first = place.fill(500_000)
        words = ["train", "--size", "64", "--pictures", "8", "--batch-size", "4", "--device", "cpu"]
        words += ["--out", str(place.folder / "run")]
        end = in_a_fork(lambda: command_line(words), folder / "log", first)
    return place.how, end.in_one_line(str(place.folder))


def full_disk_study(folder: Path) -> tuple[str, str]:
    with disk(folder) as place:
        study(place.folder, [], seeds=(0,)).run()
        journal = place.folder / "toy" / "journal.jsonl"
        first, before = place.fill(100), journal.read_bytes()
        work = typed(lambda: study(place.folder, []).run(), TrainingError)
        said = in_a_fork(work, folder / "log", first).in_one_line("cannot be written")
        place.empty()
        table = study(place.folder, []).run().csv
        rows = [line for line in before.splitlines() if b'"row"' in line]
        if not rows or any(row not in journal.read_bytes() for row in rows):
            raise Wrong("rows of the journal were lost")
        if table != study(folder / "whole", []).run().csv:
            raise Wrong("another table than that of a study nobody touched")
    return place.how, said


def full_disk_detect(folder: Path) -> tuple[str, str]:
    with disk(folder, "1m") as place:
        work = detect(folder, 4, place.folder / "out")
        if (end := in_a_fork(work, folder / "log")).code:
            raise Wrong(f"{end.lines[-3:]}")
        results = place.folder / "out" / "detections.json"
        first, before = place.fill(0), results.read_bytes()
        end = in_a_fork(work, folder / "log", first)
        said = end.in_one_line(str(place.folder), "cannot be written", "make room")
        if results.read_bytes() != before:
            raise Wrong("the results of the run before were lost")
    return place.how, said


def full_disk_save(folder: Path) -> tuple[str, str]:
    with disk(folder, "1m") as place:
        old = load_pretrained(save_pretrained(shaken(small().build()), place.folder / "model"))
        first, before = place.fill(20_000), bytes_of(place.folder)
        work = typed(
            lambda: save_pretrained(shaken(small().build()), place.folder / "model"),
            CheckpointError,
        )
        said = in_a_fork(work, folder / "log", first).in_one_line("cannot be written")
        untouched(before, place.folder)
        if len(list((place.folder / "model").iterdir())) != 2:
            raise Wrong("a half file was left on a full disk")
        now = load_pretrained(place.folder / "model").state_dict()
        if not all(torch.equal(now[n], t) for n, t in old.state_dict().items()):
            raise Wrong("the model that was there is another")
    return place.how, said


# --- nobody may write ---------------------------------------------------------------------------


def read_only(folder: Path) -> tuple[str, str]:
    with disk(folder) as place:
        toy(place.folder / "run", stop_after=2)
        study(place.folder, [], seeds=(0,)).run()
        model = a_model(place.folder)
        works = {
            "training": typed(lambda: toy(place.folder / "run"), TrainingError),
            "study": typed(lambda: study(place.folder, []).run(), TrainingError),
            "save": typed(lambda: save_pretrained(load_pretrained(model), model), CheckpointError),
            "detect": detect(folder, 2, place.folder / "out"),
        }
        before = bytes_of(place.folder)
        place.writable(False)
        said = [in_a_fork(w, folder / "log").in_one_line(str(place.folder)) for w in works.values()]
        load_pretrained(model)  # reading needs no permission to write
        untouched(before, place.folder, ())
        place.writable(True)
        same_as_untouched(toy(place.folder / "run"), folder)
    return place.how, "; ".join(said)


# --- processes ----------------------------------------------------------------------------------


def no_shared_memory(folder: Path) -> tuple[str, str]:
    config = replace(CONFIG, num_workers=2)
    work = typed(lambda: toy(folder / "run", config=config), TrainingError)
    end = in_a_fork(work, folder / "log", without_shared_memory)
    if any("PermissionError" in line for line in end.lines):
        return "not run: no new mounts for this user", ""
    said = end.in_one_line("/dev/shm", "num_workers=0")
    same_as_untouched(toy(folder / "run"), folder)
    return "/dev/shm of a process mounted read-only", said


class Deadly(ToyData):
    """Kills whoever loads picture 7, as long as a flag lies there."""

    flag: Path

    def __getitem__(self, index: int) -> object:
        if index == 7 and self.flag.exists() and torch.utils.data.get_worker_info():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def killed_worker(folder: Path) -> tuple[str, str]:
    config = replace(CONFIG, num_workers=1, save_every=1)
    Deadly.flag = folder / "flag"
    Deadly.flag.touch()
    work = typed(lambda: toy(folder / "run", Deadly(), config), TrainingError)
    said = in_a_fork(work, folder / "log").in_one_line("worker", "has died", "fewer")
    Deadly.flag.unlink()
    same_as_untouched(toy(folder / "run", Deadly(), config), folder)
    return "SIGKILL in the worker", said


# --- ^C -----------------------------------------------------------------------------------------


def interrupted_training(folder: Path) -> tuple[str, str]:
    words = ["train", "--size", "96", "--pictures", "40000", "--batch-size", "2", "--device", "cpu"]
    words += ["--out", str(folder / "run"), "--save-every", "1"]
    begun = (folder / "run" / "previous.pt").exists
    end = in_a_fork(lambda: command_line(words), folder / "log", interrupt=begun)
    step = load_state(folder / "run" / "last.pt")["step"]
    if end.code != 0 or f"step {step}, paused" not in "\n".join(end.lines):
        raise Wrong(f"{end.code}: {end.lines[-3:]}")
    again = in_a_fork(lambda: command_line([*words, "--stop-after", "0s"]), folder / "log")
    if f"step {step + 1}, paused" not in "\n".join(again.lines):
        raise Wrong(f"did not go on: {again.lines[-3:]}")
    return "SIGINT", f"step {step}, paused; the next start went on with step {step + 1}"


def interrupted_study(folder: Path) -> tuple[str, str]:
    journal = folder / "toy" / "journal.jsonl"
    one_done = lambda: journal.exists() and b'"row"' in journal.read_bytes()  # noqa: E731

    def work() -> int:
        study(folder, [], seeds=(0, 1, 2)).run()
        return 0

    end = in_a_fork(work, folder / "log", interrupt=one_done)
    if end.code != 130:
        raise Wrong(f"exit code {end.code}: {end.lines[-3:]}")
    before = journal.read_bytes()
    table = study(folder, [], seeds=(0, 1, 2)).run().csv
    if not journal.read_bytes().startswith(before):
        raise Wrong("the journal was rewritten")
    if table != study(folder / "whole", [], seeds=(0, 1, 2)).run().csv:
        raise Wrong("another table than that of a study nobody touched")
    rows = before.count(b'"kind": "row"')
    return "SIGINT", f"{rows} rows stood; the next start did the rest"


def interrupted_detect(folder: Path) -> tuple[str, str]:
    out = folder / "out"
    some = lambda: out.is_dir() and len(list(out.glob("*_detected.jpg"))) > 3  # noqa: E731
    end = in_a_fork(detect(folder, 400, out), folder / "log", interrupt=some)
    said = end.in_one_line("interrupted")
    rows = json.loads((out / "detections.json").read_text("utf8"))["images"]
    drawn = len(list(out.glob("*_detected.jpg")))
    if end.code != 130 or not 3 <= drawn - 1 <= len(rows) <= drawn < 400:
        raise Wrong(f"exit code {end.code}, {drawn} pictures, {len(rows)} rows")
    return "SIGINT", f"{said}; the {len(rows)} pictures done so far are in detections.json"


CASES = {
    "disk full, training": full_disk_training,
    "disk full, `rtdetr-lab train`": full_disk_training_command,
    "disk full, study": full_disk_study,
    "disk full, `rtdetr-lab detect`": full_disk_detect,
    "disk full, save": full_disk_save,
    "read-only folder: training, study, save, detect": read_only,
    "no /dev/shm, two workers": no_shared_memory,
    "loader worker killed": killed_worker,
    "Ctrl-C, `rtdetr-lab train`": interrupted_training,
    "Ctrl-C, study": interrupted_study,
    "Ctrl-C, `rtdetr-lab detect`": interrupted_detect,
}


def judged(what: str) -> dict[str, object]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        try:
            how, said = CASES[what](Path(place))
            wrong = ""
        except Exception as error:
            how, said, wrong = "", "", f"{type(error).__name__}: {error}"
        said = said.replace(place, "…")
    took = round(time.monotonic() - began, 1)
    return {"what": what, "how": how, "said": said, "wrong": wrong, "seconds": took}


def main() -> int:
    """Each once; 1 if one went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=CASES, nargs="*")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for what in asked.only or CASES:
        rows.append(judged(what))
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(rows, ensure_ascii=False, indent=2), encoding="utf8")
    return any(row["wrong"] for row in rows)


if __name__ == "__main__":
    sys.exit(main())

"""Kill a save at every one of its points; what lies there must be one model.

    python tests/programs/kill_each_step.py lab transformers foreign

A save in either layout goes over one of either layout, and over one that transformers wrote, which
no header of ours describes (foreign). The points are those of `kill_tools.py`: half of a file, and
before and after every flush to the disk and every rename. What lies there must be the old model or
the new one. In the place of a foreign one there may also be an error that says what is missing. At
no point a `config.json` of one model lies beside the weights of the other.
"""

import json
import logging
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))  # wherever this is started from

import torch
from kill_saves import LAYOUTS, install, judged, two_models
from kill_tools import killed_at_point, points_of
from safetensors.torch import load_file, save_file

from rtdetr_lab.checkpoints.save import save_pretrained

REFUSED = "has no config.json"


def put(model, folder, layout):
    """Save a model as whoever wrote this layout would have."""
    shutil.rmtree(folder, ignore_errors=True)
    save_pretrained(model, folder, "lab" if layout == "lab" else "transformers")
    if layout == "foreign":
        weights = folder / "model.safetensors"
        save_file(load_file(weights), weights, {"format": "pt"})


def steps(models, folder, before, after):
    """(what is wrong, whether it was refused) after a kill at each of the points."""
    work = lambda: save_pretrained(models[1], folder, after)  # noqa: E731
    put(models[0], folder, before)
    for point in range(points_of(install, work)):
        put(models[0], folder, before)
        assert killed_at_point(install, work, point)
        wrong = judged(folder, models)
        refused = before == "foreign" and REFUSED in wrong
        work()
        yield ("" if refused else wrong) or judged(folder, models), refused


def main():
    torch.set_num_threads(1)  # a fork has only the thread that forked
    logging.getLogger("rtdetr_lab").setLevel(logging.ERROR)
    models, seen = two_models(), {}
    with TemporaryDirectory() as place:
        for before in sys.argv[1:]:
            for after in LAYOUTS:
                found = list(steps(models, Path(place) / "model", before, after))
                wrong = [f"point {n}: {words}" for n, (words, _) in enumerate(found) if words]
                refused = sum(one for _, one in found)
                seen[f"{after} over {before}"] = [len(found), refused, wrong]
    print(json.dumps(seen))
    return int(any(wrong for _, _, wrong in seen.values()))


if __name__ == "__main__":
    sys.exit(main())

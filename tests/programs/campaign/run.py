"""Run one campaign in one process.

python tests/programs/campaign/run.py NAME COUNT [--seed S] [--out FILE]
"""

import argparse
import json
import sys
import tempfile
import warnings
from functools import partial
from importlib import import_module
from pathlib import Path

CAMPAIGNS = {
    "pictures": "pictures.case",
    "coco": "annotations.coco",
    "voc": "annotations.voc",
    "yolo": "annotations.yolo",
    "safetensors": "weights.safetensors",
    "foreign": "weights.foreign",
    "pth": "weights.pth",
    "config": "weights.config",
    "bits": "weights.bits",
    "hostile": "hostile.case",
}


def main() -> int:
    """Run it; 1 if a single case went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CAMPAIGNS)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    warnings.simplefilter("ignore")
    import torch
    from tally import run

    torch.set_num_threads(1)
    module, _, function = CAMPAIGNS[asked.name].partition(".")
    with tempfile.TemporaryDirectory() as folder:
        case = partial(getattr(import_module(module), function), folder=Path(folder))
        tally = run(asked.name, case, asked.count, asked.seed)
    text = json.dumps(tally.to_dict(), indent=2)
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(text, encoding="utf8")
    print(text)
    return bool(tally.wrong)


if __name__ == "__main__":
    sys.exit(main())

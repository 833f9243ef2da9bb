"""# The other half: what the second process of `apart.py` does"""

import json
import sys
from pathlib import Path

import numpy as np

from rtdetr_lab.evaluation.library import accumulated_of
from rtdetr_lab.evaluation.table import Table


def main(name: str) -> None:
    """Read the folder, compute every group of classes, write one file for each."""
    folder = Path(name)
    given = json.loads((folder / "given.json").read_text(encoding="utf8"))
    with np.load(folder / "table.npz", allow_pickle=False) as arrays:
        table = Table(**arrays)
    for place, categories in enumerate(given["groups"]):
        precision, recall = accumulated_of(given["ground_truth"], table, categories)
        np.savez(folder / f"{place}.npz", precision=precision, recall=recall)


if __name__ == "__main__":
    main(sys.argv[1])

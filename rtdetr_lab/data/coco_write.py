"""# Writing COCO: into a new folder, whole or not at all"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rtdetr_lab.errors import DataError
from rtdetr_lab.writing import write_text


def new_folder(folder: str | Path) -> Path:
    """Make a folder for a data set; raises `DataError` where there already is something."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(str(folder), "exists and is not empty", "give a new folder")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    return folder


def write_annotations(
    path: Path,
    names: Sequence[str],
    images: Sequence[dict[str, Any]],
    annotations: Sequence[dict[str, Any]],
) -> Path:
    """COCO's JSON; category ids are labels + 1, as COCO counts."""
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    write_text(path, json.dumps(tree, ensure_ascii=False))
    return path

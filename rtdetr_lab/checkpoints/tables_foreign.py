r"""# Tables of detectors on a backbone of transformers (`transformers_backbone.py`)

The tensors of such a backbone keep their names. No file is recognised by these tables, because the
names of a backbone can be any: the configuration tells.
"""

from dataclasses import replace

from rtdetr_lab.checkpoints.tables import TRANSFORMERS, Table
from rtdetr_lab.checkpoints.tables_detr import DETR, DETR_MASKS


def _foreign(table: Table, prefix: str) -> Table:
    rest = tuple(row for row in table.rows if not row[0].startswith("backbone."))
    rows = (("backbone.theirs.<p>", f"{prefix}.<p>"), *rest)
    return replace(table, title=f"{table.title} (other backbones)", rows=rows, probes=())


FOREIGN = _foreign(TRANSFORMERS, "model.backbone.model")
DETR_FOREIGN = _foreign(DETR, "model.backbone.conv_encoder.model")
DETR_MASKS_FOREIGN = _foreign(DETR_MASKS, "detr.model.backbone.conv_encoder.model")
FOREIGN_TABLES = (FOREIGN, DETR_FOREIGN, DETR_MASKS_FOREIGN)

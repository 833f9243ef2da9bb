r"""# transformers' configuration of a D-FINE, and ours

Its fields are RT-DETR's and the ones below. `depth_mult` gives the number of blocks in the neck:
$\mathrm{round}(3 \cdot \text{depth})$. `decoder_n_points` is one number, or one per level.

`activation_function` acts on a part of the neck only, in transformers; the rest is always SiLU. So
only `silu` is possible there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rtdetr_lab.checkpoints.transformers_fields import RTDetrFields, at, only
from rtdetr_lab.checkpoints.transformers_table import whole_numbers
from rtdetr_lab.config import require


@dataclass(kw_only=True)
class DFineFields(RTDetrFields):
    """Fields of D-FINE."""

    activation_function: str = only("silu")
    decoder_n_points: int | Sequence[int] = 4  # type: ignore[assignment]
    eval_idx: int = only(-1)
    layer_scale: float = only(1.0)
    max_num_bins: int = at(32, "decoder.num_bins")
    reg_scale: float = at(4.0, "decoder.scale")
    up: float = at(0.5, "decoder.reach")
    depth_mult: float = 1.0
    weight_loss_fgl: float = at(0.15, "criterion.fgl_weight")
    weight_loss_ddf: float = at(1.5, "criterion.ddf_weight")
    top_prob_values: int = at(4, "decoder.top_bins")
    lqe_hidden_dim: int = at(64, "decoder.quality_dim")
    lqe_layers: int = only(2)
    decoder_offset_scale: float = only(0.5)
    decoder_method: str = at("default", "decoder.sampler")


def dfine_values(tree: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return our path → our value, for what is more than one field."""
    depth = tree.get("depth_mult", DFineFields.depth_mult)
    good = type(depth) in (int, float) and 0 <= depth < 100
    require(good, f"{where}[depth_mult]", f"is {depth!r}", "give a number from 0")
    points, at = tree.get("decoder_n_points", DFineFields.decoder_n_points), "decoder_n_points"
    several = points if isinstance(points, list | tuple) else [points]
    numbers = whole_numbers(several, f"{where}[{at}]")
    return {
        "encoder.ccff.num_blocks": round(3 * depth),
        "decoder.num_points": numbers if several is points else numbers[0],
    }


def spelled_dfine(cfg: Any) -> dict[str, Any]:
    """Return their keys for what is more than one field."""
    points = cfg.decoder.num_points
    return {
        "depth_mult": cfg.encoder.ccff.num_blocks / 3,
        "decoder_n_points": points if isinstance(points, int) else list(points),
    }

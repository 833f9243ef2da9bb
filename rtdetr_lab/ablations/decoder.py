r"""# Decoder: how deep, how many queries, and which loss trains a box?

- **Paper**     RT-DETR §5.4, Table 5 (R50, 72 epochs; AP by trained layers and running layers)
- **Studies**   `rtdetr-lab ablate decoder-depth`, `look-forward-twice`, `queries`

| run \ trained | 4    | 5    | 6    | 7    |
|---------------|------|------|------|------|
| 7             |      |      |      | 52.6 |
| 6             |      |      | 53.1 | 52.6 |
| 5             |      | 52.9 | 53.0 | 52.5 |
| 4             | 52.7 | 52.7 | 52.7 | 52.1 |
| 3             | 52.4 | 52.3 | 52.4 | 51.5 |
| 2             | 51.6 | 51.3 | 51.3 | 50.6 |
| 1             | 49.6 | 48.8 | 49.1 | 48.3 |

We can run fewer layers than we trained, without new training. `EveryDepth` evaluates one trained
model at every depth, and each depth becomes a row of the table.
"""

from dataclasses import dataclass, replace
from typing import Any

from rtdetr_lab.ablations.variant import Put, Variant, variant
from rtdetr_lab.decoder import Decoder, look_forward_once
from rtdetr_lab.rtdetr import RTDETRConfig


@dataclass(frozen=True)
class EveryDepth:
    """Evaluate one trained model after each of its decoder layers."""

    def __call__(self, model: Any) -> dict[str, Any]:
        """Return name → model. The whole model is "", the others `run 1`, `run 2`, …"""
        if not isinstance(getattr(model, "decoder", None), Decoder):
            return {"": model}
        depth = model.decoder.num_running
        return {"": model} | {f"run {j}": model.trim(j) for j in range(1, depth)}


def depths(cfg: RTDETRConfig) -> tuple[Variant, ...]:
    """Vary the number of layers from two fewer than the base to one more: 4, 5, 6, 7 for r50."""
    base = cfg.decoder
    reason = (
        "Each layer refines the boxes of the layer before, with a falling gain. Every layer has "
        "its own loss, so running fewer layers costs little."
    )
    counts = range(max(1, base.num_layers - 2), base.num_layers + 2)
    trained = {k: replace(base, num_layers=k, inference_layers=None) for k in counts}
    return tuple(Variant(f"train {k}", Put("decoder", d), reason) for k, d in trained.items())


def once(cfg: RTDETRConfig) -> RTDETRConfig:
    """Without the loss of the next layer, the early box heads get half the gradient and learn more
    slowly (DINO §3.5)."""
    return replace(cfg, decoder=replace(cfg.decoder, box_gradient=look_forward_once))


def twice(cfg: RTDETRConfig) -> RTDETRConfig:
    """The loss of a box reaches its own step and the step before."""
    return cfg


LOOKING_FORWARD = (variant(once, "look forward once"), variant(twice, "look forward twice"))


def queries(cfg: RTDETRConfig) -> tuple[Variant, ...]:
    """Use a sixth, a third, two thirds and all of the base's queries: 50, 100, 200, 300."""
    full = cfg.selection.num_queries
    reason = (
        "With fewer queries than a crowded picture needs, recall falls. More queries than that "
        "only cost time."
    )
    counts = [max(1, round(full * part / 6)) for part in (1, 2, 4, 6)]
    at = "selection.num_queries"
    return tuple(Variant(f"{n} queries", Put(at, n), reason) for n in counts)

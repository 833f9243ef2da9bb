r"""# Hybrid encoder: AIFI on the coarsest map, CCFF across all

- **Paper**     RT-DETR §4.2, Fig. 4, Eq. 1
- **Notebook**  `notebooks/08_hybrid_encoder.ipynb`
- **Elsewhere** authors' and transformers' `HybridEncoder` (transformers keeps `project` outside, as
  `encoder_input_proj`)

A transformer encoder over several scales does two things at once, and pays for both: cells of one
scale look at each other, and scales look at each other. The paper takes them apart. Within a scale:
attention, and only where it pays (`aifi.py`). Across scales: convolutions (`ccff.py`).

$$ Q = K = V = \mathrm{flat}(S_5), \quad F_5 = \mathrm{reshape}(\mathrm{AIFI}(Q,K,V)), \quad
   O = \mathrm{CCFF}(\{S_3, S_4, F_5\}) $$

First every map is projected to one width D, because AIFI adds and CCFF concatenates.

| stage     | in                | out              | at 640², r50               |
|-----------|-------------------|------------------|----------------------------|
| `project` | `B C_l H_l W_l`   | `B D H_l W_l`    | 512, 1024, 2048 → 256      |
| `aifi`    | the coarsest map  | the same shape   | 20 × 20                    |
| `ccff`    | all maps          | the same shapes  | 80², 40², 20²              |

What the decoder reads is one more projection away (`MemoryProjection`): to the decoder's width,
which differs from the encoder's in r101, and to more levels if the decoder wants them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.aifi import AIFIConfig
from rtdetr_lab.ccff import CCFFConfig
from rtdetr_lab.config import require, require_at_least
from rtdetr_lab.layers import ConvNormAct


@dataclass(frozen=True)
class HybridEncoderConfig:
    """Width D of the encoder and its two halves. `aifi=None` is the paper's variant without."""

    dim: int = 256
    aifi: AIFIConfig | None = field(default_factory=AIFIConfig)
    ccff: CCFFConfig = field(default_factory=CCFFConfig)

    def __post_init__(self) -> None:
        require_at_least(1, "encoder", dim=self.dim)

    def build(self, channels: Sequence[int]) -> "HybridEncoder":
        """`channels` are those of the backbone's maps, from fine to coarse."""
        return HybridEncoder(self, channels)


class HybridEncoder(nn.Module):
    """Maps of a backbone in, as many maps of width D out (Eq. 08.1)."""

    def __init__(self, cfg: HybridEncoderConfig, channels: Sequence[int]) -> None:
        super().__init__()
        self.cfg = cfg
        self.channels = (cfg.dim,) * len(channels)
        self.project = nn.ModuleList(ConvNormAct(c, cfg.dim, 1) for c in channels)
        self.aifi = nn.Identity() if cfg.aifi is None else cfg.aifi.build(cfg.dim)
        self.ccff = cfg.ccff.build(cfg.dim, len(channels))

    def forward(self, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B D _ _"]]:
        projected = [project(m) for project, m in zip(self.project, maps, strict=True)]
        return self.ccff([*projected[:-1], self.aifi(projected[-1])])


class MemoryProjection(nn.ModuleList):
    """Encoder maps to the decoder's width; levels beyond the encoder's come by stride 2."""

    def __init__(self, channels: tuple[int, ...], dim: int, num_levels: int) -> None:
        what = f"{num_levels} levels, but the encoder makes {len(channels)} maps"
        remedy = "raise decoder.num_levels, or let the backbone output fewer maps"
        require(num_levels >= len(channels), "decoder.num_levels", what, remedy)
        super().__init__(ConvNormAct(c, dim, 1) for c in channels)
        for extra in range(num_levels - len(channels)):
            self.append(ConvNormAct(channels[-1] if extra == 0 else dim, dim, 3, stride=2))

    def forward(self, maps: list[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B D _ _"]]:
        levels = [project(m) for project, m in zip(self, maps, strict=False)]
        coarsest = maps[-1]
        for project in list(self)[len(maps) :]:
            coarsest = project(coarsest)
            levels.append(coarsest)
        return levels

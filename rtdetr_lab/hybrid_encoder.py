r"""# Hybrid encoder: AIFI on the coarsest map, CCFF across all

- **Paper**     RT-DETR §4.2, Fig. 4, Eq. 1
- **Notebook**  `notebooks/08_hybrid_encoder.ipynb`
- **Elsewhere** authors' and transformers' `HybridEncoder` (transformers keeps `project` outside, as
  `encoder_input_proj`)

A transformer encoder over several scales does two jobs at once, and both are expensive: cells of
one scale attend to each other, and cells of different scales attend to each other. Part of this
work is redundant (§4.2): the backbone computes the coarse maps from the fine ones, so the coarse
maps already contain what matters in the fine maps. The paper separates the two jobs. Within a scale
it uses attention, and only on S5 (`aifi.py`). Across scales it uses convolutions (`ccff.py`).

$$ F_5 = \mathrm{AIFI}(S_5), \qquad O = \mathrm{CCFF}(\{S_3, S_4, F_5\}) \tag{08.1} $$

The paper's Eq. 1 writes AIFI with Q = K = V = flat(S5). It leaves out the positions that the
authors' code adds to Q and K; ours are in Eq. 06.1 (`aifi.py`).

First every map is projected to D channels: AIFI and all blocks of CCFF are built for this one
width.

| stage     | in                | out              | at 640², r50               |
|-----------|-------------------|------------------|----------------------------|
| `project` | `B C_l H_l W_l`   | `B D H_l W_l`    | 512, 1024, 2048 → 256      |
| `aifi`    | the coarsest map  | the same shape   | 20 × 20                    |
| `ccff`    | all maps          | the same shapes  | 80², 40², 20²              |

The decoder reads these maps through one more projection (`MemoryProjection`). It changes the number
of channels to the decoder's, which differs from the encoder's in r101. It also adds coarser levels
if the decoder is configured for more.
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
    """Width D of the encoder, and its two parts. `aifi=None` leaves AIFI out: the paper's Table 3
    has no row for CCFF alone."""

    dim: int = 256
    aifi: AIFIConfig | None = field(default_factory=AIFIConfig)
    ccff: CCFFConfig = field(default_factory=CCFFConfig)

    def __post_init__(self) -> None:
        require_at_least(1, "encoder", dim=self.dim)

    def build(self, channels: Sequence[int]) -> "HybridEncoder":
        """`channels` are those of the backbone's maps, from fine to coarse."""
        return HybridEncoder(self, channels)


class HybridEncoder(nn.Module):
    """Turn the maps of a backbone into as many fused maps of width D (Eq. 08.1)."""

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
    """Project encoder maps to the decoder's width; make extra levels with stride 2."""

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

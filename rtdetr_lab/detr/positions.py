r"""# Positions: how DETR tells one cell from another

- **Paper**     DETR §A.4; Vaswani et al. 2017, §3.5; with padding: the authors' code only
- **Notebook**  `notebooks/02_detr.ipynb`
- **Elsewhere** authors' `PositionEmbeddingSine`, `PositionEmbeddingLearned`; transformers'
  `DetrSinePositionEmbedding`, `DetrLearnedPositionEmbedding`

Attention does not see where a token lies. An embedding of the position, added to the queries and
keys of *every* layer, tells it. In DETR a position is a fraction of the picture, not a number of
cells. We count the rows in each column, without padding, and divide by their number:

$$ y_r = s \cdot \frac{\#\{\text{cells above and here}\}}{\#\{\text{cells of the column}\}},
   \qquad P = \bigl[\sin(y\, \omega_k), \cos(y\, \omega_k)\bigr]_k \oplus
   \bigl[\sin(x\, \omega_k), \cos(x\, \omega_k)\bigr]_k, \qquad \omega_k = \tau^{-4k/D}
   \tag{02.2} $$

with $s = 2\pi$ and the temperature $\tau$ = 10000. So a small picture on a large canvas has the
positions of a full picture, not those of a corner. Sine and cosine alternate channel by channel,
and the row's half comes first. `layers.sine_2d` has another order; trained weights depend on it.

`LearnedPositions` are two tables of vectors, one per column and one per row, **the column's half
first**. They have at most `max_cells` rows and columns, and ignore padding.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rtdetr_lab.config import require_divisible
from rtdetr_lab.errors import ImageError

EPS = 1e-6
"""Added to the number of cells of a row: one that is all padding has none."""


@dataclass(frozen=True)
class SinePositions:
    """Sine and cosine of fractions of the picture; no parameters."""

    temperature: float = 10000.0
    scale: float = 2 * math.pi

    def build(self, dim: int) -> "SinePositionEmbedding":
        return SinePositionEmbedding(self, dim)


@dataclass(frozen=True)
class LearnedPositions:
    """Learn a vector for every row and one for every column."""

    max_cells: int = 50

    def build(self, dim: int) -> "LearnedPositionEmbedding":
        return LearnedPositionEmbedding(self, dim)


class SinePositionEmbedding(nn.Module):
    """Compute the positions of all cells from the padding mask (Eq. 02.2)."""

    def __init__(self, cfg: SinePositions, dim: int) -> None:
        super().__init__()
        require_divisible("dim", dim, 4)
        self.cfg = cfg
        self.dim = dim

    def forward(
        self, padding: Bool[Tensor, "B H W"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B N D"]:
        cells = (~padding).to(torch.promote_types(dtype, torch.float32))
        rows, columns = cells.cumsum(1), cells.cumsum(2)
        rows = self.cfg.scale * rows / (rows[:, -1:] + EPS)
        columns = self.cfg.scale * columns / (columns[:, :, -1:] + EPS)
        both = torch.cat([self._waves(rows), self._waves(columns)], dim=-1)
        return both.flatten(1, 2).to(dtype)

    def _waves(self, angle: Float[Tensor, "B H W"]) -> Float[Tensor, "B H W d"]:
        step = torch.arange(self.dim // 4, dtype=angle.dtype, device=angle.device)
        angles = angle.unsqueeze(-1) / self.cfg.temperature ** (step / (self.dim // 4))
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


class LearnedPositionEmbedding(nn.Module):
    """Look up learned positions; raise `ImageError` for a map larger than the tables."""

    def __init__(self, cfg: LearnedPositions, dim: int) -> None:
        super().__init__()
        require_divisible("dim", dim, 2)
        self.columns = nn.Parameter(torch.rand(cfg.max_cells, dim // 2))
        self.rows = nn.Parameter(torch.rand(cfg.max_cells, dim // 2))

    def forward(
        self, padding: Bool[Tensor, "B H W"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B N D"]:
        batch, height, width = padding.shape
        if max(height, width) > len(self.rows):
            what = f"a map of {height}×{width} cells, positions were learned for {len(self.rows)}"
            raise ImageError("images", what, "make the pictures smaller, or use SinePositions()")
        columns = self.columns[:width].expand(height, -1, -1)
        rows = self.rows[:height].unsqueeze(1).expand(-1, width, -1)
        both = torch.cat([columns, rows], dim=-1).flatten(0, 1)
        return both.to(dtype).expand(batch, -1, -1)

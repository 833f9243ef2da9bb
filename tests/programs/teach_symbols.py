"""Teach nano's backbone to read single symbols, before it looks for sheets that carry them.

python tests/programs/teach_symbols.py OUT [--crops 180000]

A detector that learns 28 symbols from scenes sees few of them per picture, and stays at chance for
tens of thousands of pictures (`docs/results/no-gain.md`). A crop of 48 pixels shows one symbol, and
a core reads 600 of them a second. So the backbone first classifies crops: maximum and mean of each
of its maps, and one linear layer, which is thrown away. OUT is a model folder: nano with the new
backbone. Then

    rtdetr-lab train --model OUT --data printed --batch-size 8 --lr 7e-4 --pictures 40000 --amp
"""

import argparse
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import rtdetr_lab as lab
from rtdetr_lab.data.photographs import photograph
from rtdetr_lab.data.shapes_paint import Canvas, Colour, Rng, colour, log_uniform
from rtdetr_lab.data.sheets import ANY, BLACK, FONTS, SYMBOLS, typeface

SIDE, BATCH, TOP_RATE = 48, 96, 2e-3


@cache
def upright(font: str, symbol: str) -> tuple[Image.Image, int]:
    """A symbol, white on black, with room to turn; and its height or width, whichever is larger."""
    mask = typeface(font, 56).getmask(symbol)
    drawn = Image.frombytes("L", mask.size, bytes(mask)).crop(mask.getbbox())
    side = math.ceil(math.hypot(*drawn.size)) + 2
    square = Image.new("L", (side, side))
    square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    return square, max(drawn.size)


def crop(rng: Rng) -> tuple[Canvas, int]:
    """A symbol of 9 to 36 pixels on paper, sometimes beside the edge of the sheet; its number."""
    label = int(rng.integers(len(SYMBOLS)))
    square, height = upright(FONTS[int(rng.integers(len(FONTS)))], SYMBOLS[label])
    pixels = log_uniform(rng, 9, 36)
    turn = float(rng.normal(0, 6) + 90 * rng.integers(4))
    if rng.random() < 0.7:
        turn = rng.uniform(0, 360)
    wide = max(4, round(square.width * pixels / height))
    high, smooth = max(4, round(wide * rng.uniform(0.8, 1))), Image.Resampling.BILINEAR
    seen = square.rotate(turn, smooth).resize((wide, high), smooth)
    paper, ink = _colours(rng)
    canvas = np.repeat(paper, SIDE * SIDE).reshape(3, SIDE, SIDE)
    if rng.random() < 0.3:
        canvas = np.float32(0.7) * canvas + np.float32(0.3) * photograph(rng, (SIDE, SIDE))
    if rng.random() < 0.4:
        _show_behind(rng, canvas)
    _print(rng, canvas, np.asarray(seen, np.float32) / 255, ink)
    grain = rng.standard_normal((1, SIDE, SIDE), dtype=np.float32) * rng.uniform(0, 0.05)
    return np.clip(canvas * rng.uniform(0.6, 1.1) + grain, 0, 1).astype(np.float32), label


def _colours(rng: Rng) -> tuple[Colour, Colour]:
    """Paper, and an ink that is lighter or darker, if one of eight is."""
    paper = colour(rng, *(((0.0, 0.3), (0.5, 1.0)) if rng.random() < 0.7 else ANY))
    for _ in range(8):
        ink = colour(rng, *(ANY if rng.random() < 0.5 else BLACK))
        if abs(ink.mean() - paper.mean()) > 0.25:
            break
    return paper, ink


def _show_behind(rng: Rng, canvas: Canvas) -> None:
    """Let the sheet end near one border of the crop, or near two that meet."""
    behind = np.broadcast_to(colour(rng, *ANY)[:, None, None], canvas.shape)
    if rng.random() < 0.6:
        behind = photograph(rng, (SIDE, SIDE))
    room, down, right = int(rng.integers(2, 12)), *rng.integers(2, size=2)
    rows = slice(SIDE - room, SIDE) if down else slice(0, room)
    columns = slice(SIDE - room, SIDE) if right else slice(0, room)
    which = int(rng.integers(4))
    if which != 1:
        canvas[:, rows] = behind[:, rows]
    if which != 2:
        canvas[:, :, columns] = behind[:, :, columns]


def _print(rng: Rng, canvas: Canvas, coverage: np.ndarray, ink: Colour) -> None:
    """Print near the middle; what does not fit is cut off."""
    y, x = (int(rng.integers(-3, 4)) + (SIDE - side) // 2 for side in coverage.shape)
    top, left = max(0, y), max(0, x)
    bottom, right = (min(SIDE, n + side) for n, side in zip((y, x), coverage.shape, strict=True))
    view = canvas[:, top:bottom, left:right]
    view += coverage[top - y : bottom - y, left - x : right - x] * (ink[:, None, None] - view)


def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Crops and their numbers, for ever."""
    rng = np.random.default_rng(seed)
    while True:
        crops, labels = zip(*(crop(rng) for _ in range(BATCH)), strict=True)
        yield torch.from_numpy(np.stack(crops)), torch.tensor(labels)


class Reader(nn.Module):
    """A backbone, and one linear layer on the maximum and the mean of each of its maps."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        with torch.no_grad():
            widths = [m.shape[1] for m in backbone(torch.zeros(1, 3, SIDE, SIDE))]
        self.head = nn.Linear(2 * sum(widths), len(SYMBOLS))

    def forward(self, crops: Tensor) -> Tensor:
        """Return one score per symbol: `B 3 48 48` → `B 28`."""
        maps = [m.float() for m in self.backbone(crops)]
        pooled = [m.amax((2, 3)) for m in maps] + [m.mean((2, 3)) for m in maps]
        return self.head(torch.cat(pooled, 1))


def teach(reader: Reader, steps: int) -> None:
    """AdamW with a short warm-up and a cosine, in bfloat16."""
    optimizer = torch.optim.AdamW(reader.parameters(), lr=TOP_RATE, weight_decay=1e-4)
    right = 0
    for step, (crops, labels) in zip(range(1, steps + 1), batches(seed=0), strict=False):
        rate = TOP_RATE * min(1, step / 100) * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate + 1e-5
        with torch.autocast("cpu", torch.bfloat16):
            scores = reader(crops.to(memory_format=torch.channels_last))
        optimizer.zero_grad()
        nn.functional.cross_entropy(scores, labels).backward()
        optimizer.step()
        right += int((scores.argmax(1) == labels).sum())
        if step % 100 == 0:
            print(f"{step * BATCH:,} crops: {right / (100 * BATCH):.3f} of the last are read")
            right = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--crops", type=int, default=180_000)
    asked = parser.parse_args()
    torch.manual_seed(0)
    model = lab.load_pretrained("nano")
    reader = Reader(model.backbone).to(memory_format=torch.channels_last).train()
    teach(reader, -(-asked.crops // BATCH))
    reader.eval()
    with torch.no_grad():
        seen = [reader(x).argmax(1) == y for _, (x, y) in zip(range(10), batches(1), strict=False)]
    print(f"{torch.cat(seen).float().mean():.3f} of {10 * BATCH} unseen crops are read")
    print(lab.save_pretrained(model.eval(), asked.out))


if __name__ == "__main__":
    main()

"""# Split: a validation set out of a data set that has none

    parts = divide(annotations, places, {"train": 0.85, "val": 0.15}, seed=0)
    parts["val"].pictures

A model must be evaluated on pictures that it has not seen in training. A random part of the
pictures is not good enough:

- A rare class may be missing on one side. So we divide the objects of *every class* in the asked
  shares, the rarest class first (iterative stratification, Sechidis et al. 2011).
- Photos of one burst, and copies of one file, show the same. If one of them is in each part, AP
  measures memory. So near duplicates stay together: pictures whose difference hashes agree in
  nine of ten bits.

The hash of a picture says for 16 × 16 places whether it becomes brighter to the right. It hardly
changes with size, compression and exposure. In three sets of photographs, unrelated pairs differ
in at least 12 % of the bits (median 49 %), and copies in 1 to 7 %.

The same pictures, shares and seed give the same parts on every machine.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Bool
from PIL import Image

from rtdetr_lab.config import require
from rtdetr_lab.data.annotated import Annotations, Picture, Progress
from rtdetr_lab.data.places import Places
from rtdetr_lab.errors import DataError, ImageError
from rtdetr_lab.images.decode import DEFAULT_LIMITS, Limits, decode

SIDE = 16
"""Places of the hash in a row, and rows."""

ALIKE = 0.1
"""Two pictures are near duplicates if at most this part of the bits of their hashes differs."""

Hash = Bool[np.ndarray, "bits"]
Hashes = Bool[np.ndarray, "N bits"]


def divide(
    found: Annotations,
    places: Places,
    shares: Mapping[str, float],
    seed: int = 0,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress = iter,
) -> dict[str, Annotations]:
    """Divide pictures into parts that have the same classes and no near duplicates in common.

    `shares` are the parts of the whole, by name; they add up to 1. A class with fewer groups of
    pictures than parts stays in the first part. All findings stay there too. Raises `ConfigError`
    for shares, and `DataError` if a part would be empty.
    """
    sound = all(share > 0 for share in shares.values()) and abs(sum(shares.values()) - 1) < 1e-9
    listed = ", ".join(f"{name} {share:g}" for name, share in shares.items())
    require(sound, "shares", f"are {listed}", "give parts above 0 that add up to 1")
    groups = groups_of([_hash_of(p, places, limits) for p in progress(found.pictures)])
    side = _sides([[found.pictures[i] for i in group] for group in groups], shares, seed)
    name_of = {i: name for group, name in zip(groups, side, strict=True) for i in group}
    parts = {}
    for number, name in enumerate(shares):
        pictures = tuple(p for i, p in enumerate(found.pictures) if name_of[i] == name)
        if not pictures:
            what = f"has {len(found.pictures)} pictures in {len(groups)} groups of near duplicates"
            raise DataError(str(found.path), f"{what}: none is left for {name}", "add pictures")
        parts[name] = replace(found, pictures=pictures, findings=() if number else found.findings)
    return parts


def difference_hash(rgb: np.ndarray) -> Hash:
    """Return 256 bits: whether a picture becomes brighter to the right, at 16 × 16 places."""
    grey = Image.fromarray(rgb).convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.int16)
    return (values[:, 1:] > values[:, :-1]).ravel()


def groups_of(hashes: list[Hash | None]) -> list[list[int]]:
    """Return the indices of near duplicates together, in the order of their first picture.

    None stands for a picture without a hash: it is alone.
    """
    known = [i for i, bits in enumerate(hashes) if bits is not None]
    first = list(range(len(hashes)))  # the first picture of each one's group
    rows: Hashes = np.array([hashes[i] for i in known], dtype=bool).reshape(len(known), -1)
    for later, mine in enumerate(rows):
        near = np.nonzero((rows[:later] ^ mine).mean(1) <= ALIKE)[0]
        heads = {first[known[i]] for i in near} | {known[later]}
        if len(heads) > 1:
            first = [min(heads) if head in heads else head for head in first]
    together: dict[int, list[int]] = {}
    for i, head in enumerate(first):
        together.setdefault(head, []).append(i)
    return list(together.values())


def _hash_of(picture: Picture, places: Places, limits: Limits) -> Hash | None:
    """Return the hash of a picture, or None if it cannot be read: training names it then."""
    path = places.find(picture)
    try:
        return difference_hash(decode(path, limits))
    except ImageError:
        return None


def _sides(groups: list[list[Picture]], shares: Mapping[str, float], seed: int) -> list[str]:
    """Return the name of the part of every group, rarest class first.

    A group goes where its class is missing most, and then where pictures are missing most. Groups
    without objects come last.
    """
    counts = [Counter(a.label for picture in group for a in picture.objects) for group in groups]
    total = sum(counts, Counter[int]())
    missing: dict[str, dict[int | None, float]] = {
        name: {k: n * s for k, n in total.items()} for name, s in shares.items()
    }
    room = {name: share * sum(map(len, groups)) for name, share in shares.items()}
    order = np.random.default_rng(seed).permutation(len(groups)).tolist()
    side: dict[int, str] = {}
    for label in (*sorted(total, key=lambda label: (total[label], label)), None):
        having = [i for i in order if label is None or counts[i][label]]
        enough = label is None or len(having) >= len(shares)
        parts = list(shares) if enough else list(shares)[:1]
        for i in (i for i in having if i not in side):
            name = max(parts, key=lambda name: (missing[name].get(label, 0.0), room[name]))
            side[i] = name
            room[name] -= len(groups[i])
            for other, count in counts[i].items():
                missing[name][other] -= count
    return [side[i] for i in range(len(groups))]

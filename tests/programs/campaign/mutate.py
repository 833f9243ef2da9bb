"""Damage: what happens to files on disks, in transfers, and in the hands of people and programs.

Every mutator is `(bytes, random.Random) -> bytes`; the seed alone decides, so that a case that
fails is found again by its number.
"""

import random


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    """One to eight bits turned."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        at = rng.randrange(len(out))
        out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """A download that ended early."""
    return data[: rng.randrange(len(data))]


def spoil_header(data: bytes, rng: random.Random) -> bytes:
    """Random bytes among the first 64."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        out[rng.randrange(min(64, len(out)))] = rng.randrange(256)
    return bytes(out)


def zero_run(data: bytes, rng: random.Random) -> bytes:
    """A block that was never written."""
    at = rng.randrange(len(data))
    length = min(rng.randint(1, 4096), len(data) - at)
    return data[:at] + bytes(length) + data[at + length :]


def insert(data: bytes, rng: random.Random) -> bytes:
    """Bytes that do not belong there."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randint(1, 32)) + data[at:]


def cut_out(data: bytes, rng: random.Random) -> bytes:
    """A piece missing in the middle."""
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randint(1, 64) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """A piece written twice."""
    at = rng.randrange(len(data))
    length = rng.randint(1, 512)
    return data[: at + length] + data[at : at + length] + data[at + length :]


def extreme_numbers(data: bytes, rng: random.Random) -> bytes:
    """Sizes and offsets at their limits: four bytes become 0, 2³¹ or 2³² - 1."""
    out, at = bytearray(data), rng.randrange(max(1, min(200, len(data) - 4)))
    out[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff"))
    return bytes(out)


def append(data: bytes, rng: random.Random) -> bytes:
    """Something after the end."""
    return data + rng.randbytes(rng.randint(1, 64))


MUTATORS = (flip_bits, truncate, spoil_header, zero_run, insert, cut_out, repeat)
MUTATORS += (extreme_numbers, append)


def damaged(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """One kind of damage, or two; and what it was."""
    names = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        if not data:
            break
        mutator = rng.choice(MUTATORS)
        names.append(mutator.__name__)
        data = mutator(data, rng)
    return "+".join(names), data


# --- values for trees (JSON) --------------------------------------------------------------------

ODD_VALUES = (None, True, False, 0, -1, 1.5, 2**63, -(2**70), 1e308, float("nan"), float("inf"))
ODD_VALUES += ("", "0", "../../x", "\x1b[31m", "<b>", [], {}, [[]], [1], {"id": 1}, [None] * 5)


def places(tree: object, path: tuple = ()) -> list[tuple]:
    """The path of every value in a tree."""
    found = [path] if path else []
    if isinstance(tree, dict):
        for key, value in tree.items():
            found += places(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree[:40]):
            found += places(value, (*path, index))
    return found


def damaged_tree(tree: object, rng: random.Random) -> str:
    """Change one to three values of a tree in place; returns what was done."""
    done = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        options = places(tree)
        if not options:
            break
        *to, last = rng.choice(options)
        parent = tree
        for key in to:
            parent = parent[key]
        kind = rng.choice(("set", "set", "delete", "twice", "rename"))
        done.append(f"{kind} {[*to, last]}")
        if kind == "delete":
            del parent[last]
        elif kind == "twice" and isinstance(parent, list):
            parent.append(parent[last])
        elif kind == "rename" and isinstance(parent, dict):
            parent[f"{last}_"] = parent.pop(last)
        else:
            parent[last] = rng.choice(ODD_VALUES)
    return ", ".join(done)

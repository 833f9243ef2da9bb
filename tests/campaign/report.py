"""`make campaign`: run everything, and write docs/results/reliability.md from what was counted.

Counts are kept in build/campaign/NAME.json; a campaign that lies there is not run again. With
`--write` nothing is run: the page is written from what is there.
"""

import argparse
import json
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "campaign"
PAGE = ROOT / "docs" / "results" / "reliability.md"
HERE = "tests/campaign"

DAMAGE = {
    "pictures": (10_000, "pictures: every format and mode, turned, several frames; bombs"),
    "coco": (6_000, "COCO annotations, as bytes and as trees"),
    "voc": (2_000, "VOC annotations"),
    "yolo": (2_000, "YOLO annotations and data.yaml"),
    "safetensors": (10_000, "our `.safetensors`, alone and in folders, both layouts"),
    "pth": (3_000, "`.pth` of the authors' kind"),
    "config": (2_000, "config.json, ours and transformers'"),
    "foreign": (1_000, "a third party's `.safetensors`, which has no checksum"),
    "bits": (2_000, "one bit turned in a checkpoint of ours"),
    "hostile": (350, "pickles, `auto_map`, climbing and absolute paths, markup, escapes"),
}

HEAD = """# Reliability: damaged, hostile and interrupted

What we measured of "no silent wrong answer". Every row is a program in `tests/campaign/`, run by
`make campaign`; a light cut of each is part of `make test`. A case is *refused* with a typed error
that names the file, or *read*, and then held against what it must be. Anything else (another
exception, other weights, more than 2 s of processor time, 500 MB more memory, a file touched
outside) counts as *wrong*.

{machine}

| what is damaged | cases | refused | read or equal | wrong | slowest | command |
|---|---|---|---|---|---|---|
"""


def commands(python: str) -> dict[str, list[str]]:
    """Every campaign and how it is run."""
    found = {
        name: [python, f"{HERE}/run.py", name, str(count), "--out", str(BUILD / f"{name}.json")]
        for name, (count, _) in DAMAGE.items()
    }
    found["bugs"] = [python, f"{HERE}/bugs.py", "--out", str(BUILD / "bugs.json")]
    found["kills"] = [python, "tests/kill_runs.py", "--count", "200", "--seed", "1"]
    return found


def run_missing() -> int:
    BUILD.mkdir(parents=True, exist_ok=True)
    worst = 0
    for name, command in commands(sys.executable).items():
        path = BUILD / f"{name}.json"
        if path.exists():
            continue
        print(" ".join(command[1:]), flush=True)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        worst = max(worst, done.returncode)
        if name == "kills":
            path.write_text(done.stdout.splitlines()[-1], encoding="utf8")
        if not path.exists():
            raise SystemExit(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
    return worst


def read(name: str) -> dict | list:
    return json.loads((BUILD / f"{name}.json").read_text(encoding="utf8"))


def row(name: str) -> str:
    tally = read(name)
    refused = sum(n for how, n in tally["outcomes"].items() if "refused" in how)
    wrong = len(tally["wrong"])
    other = tally["count"] - refused - tally["outcomes"].get("WRONG", 0)
    command = f"`python {HERE}/run.py {name} {tally['count']}`"
    cells = [DAMAGE[name][1], f"{tally['count']:,}", f"{refused:,}", f"{other:,}", f"{wrong}"]
    return "| " + " | ".join([*cells, f"{tally['slowest_s']:.2f} s", command]) + " |"


def page() -> str:
    import torch

    machine = f"{date.today()}, {platform.machine()}, torch {torch.__version__}; seed 0."
    text = HEAD.format(machine=machine) + "\n".join(map(row, DAMAGE)) + "\n"
    foreign = read("foreign")
    silent = sum(n for how, n in foreign["outcomes"].items() if how.startswith("other values"))
    text += f"""
Of the third party's files, {silent} of {foreign["count"]:,} were read with other values: the format
has no checksum, so a changed number of the right type is a number like any other. All of them
answered with finite numbers. Files that we write hold a digest, and files from the hub are checked
by its client when they are fetched.

## Kills

"""
    kills = read("kills")
    text += f"""`python tests/kill_runs.py --count 200 --seed 1`: {kills["kills"]} runs killed by
SIGKILL, {kills["inside"]} of them inside a save; {kills["struck"]} kills met a run still going.
{kills["same"]} of {kills["kills"]} went on and ended with the very bits of a run nobody touched.

## Bugs planted in the chapters

"""
    bugs = read("bugs")
    caught = [b for b in bugs if b["caught_by"]]
    text += """`python tests/campaign/bugs.py` writes one plausible bug at a time into a copy of
the package (`mutants.py` lists them) and runs its tests: """
    text += f"{len(caught)} of {len(bugs)} were caught, "
    places = [sum(b["caught_by"] == p for b in bugs) for p in ("chapter", "package", "oracle")]
    text += f"{places[0]} by the chapter's own\ntests, {places[1]} by those of the whole model, "
    text += f"{places[2]} only by the comparison with transformers.\n"
    survivors = [f"- `{b['module']}`: {b['bug']}" for b in bugs if not b["caught_by"]]
    text += "\nNot caught:\n\n" + "\n".join(survivors) + "\n" if survivors else ""
    return text


def main() -> int:
    """Run what is missing, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    worst = 0 if parser.parse_args().write else run_missing()
    PAGE.write_text(page(), encoding="utf8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return worst


if __name__ == "__main__":
    sys.exit(main())

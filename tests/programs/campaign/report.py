"""`make campaign`: run everything, and write docs/results/reliability.md from what was counted.

Counts are kept in build/campaign/NAME.json; a campaign that lies there is not run again. With
`--write` nothing is run. `--only` runs some of them, by name. A section whose counts are not there
stays on the page as it is, with its own date.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[3]
BUILD = ROOT / "build" / "campaign"
PAGE = ROOT / "docs" / "results" / "reliability.md"
CURVES = ROOT / "docs" / "img" / "long_runs.svg"
HERE = "tests/programs/campaign"
HUB = "tests/checkpoints/test_hub.py"
EQUIPMENT = f"{HERE}/mutants_equipment.py"

DAMAGE = {
    "pictures": (10_000, "pictures: every format and mode, rotated, several frames; bombs"),
    "coco": (6_000, "COCO annotations, as bytes and as trees"),
    "voc": (2_000, "VOC annotations"),
    "yolo": (2_000, "YOLO annotations and data.yaml"),
    "safetensors": (10_000, "our `.safetensors`, alone and in folders, both layouts"),
    "pth": (3_000, "`.pth` of the authors' kind"),
    "config": (2_000, "config.json, ours and transformers'"),
    "foreign": (1_000, "a third party's `.safetensors`, which has no checksum"),
    "bits": (2_000, "one flipped bit in a checkpoint of ours"),
    "hostile": (350, "pickles, `auto_map`, climbing and absolute paths, links, markup, escapes"),
}

KILLS = {
    "runs": (200, "training runs", "ended with the bits of a run without a kill"),
    "studies": (100, "ablation studies", "kept every finished row and gave the same table"),
    "saves": (200, "saves over another model", "left the old model or the new one, complete"),
}

EACH_STEP = ("tests/programs/kill_each_step.py", "lab", "transformers", "foreign")

SEED = 1
"""Of the kills; damage has 0."""

HEAD = """# Reliability: damaged, hostile and interrupted

This page shows how we measured "no silent wrong answer". Every row is a program in `tests/`. `make
campaign` runs them all, and `make test` runs a small part of each. Under every title stand the day,
the processor and the version of torch.
"""

HOW = """
A case is *refused* if a typed error names the file. A case is *read* if the file loads; the result
is then compared with what it must be. Any other outcome is *wrong*: another exception, other
weights, 30 s or more of processor time, 500 MB more memory, or a file touched outside its folder.
The seed is 0.

| what is damaged | cases | refused | read or equal | wrong | slowest | command |
|---|---|---|---|---|---|---|
"""


# --- running ------------------------------------------------------------------------------------


def commands(python: str) -> dict[str, list[str]]:
    """Every campaign and how it is run."""
    out = {name: ["--out", str(BUILD / f"{name}.json")] for name in NAMES}
    found = {
        name: [python, f"{HERE}/run.py", name, str(count), *out[name]]
        for name, (count, _) in DAMAGE.items()
    }
    for name, (count, _, _) in KILLS.items():
        words = ["--count", str(count), "--seed", str(SEED), *out[name]]
        found[name] = [python, f"tests/programs/kill_{name}.py", *words]
    found["steps"] = [python, *EACH_STEP]
    found["surroundings"] = [python, f"{HERE}/surroundings.py", *out["surroundings"]]
    found["endurance"] = [python, "tests/programs/endurance_runs.py", *out["endurance"]]
    found["long"] = [python, "tests/programs/long_runs.py", *out["long"]]
    xml = str(BUILD / "hub.xml")
    found["hub"] = [python, "-m", "pytest", "-q", HUB, "--junit-xml", xml]
    found["bugs"] = [python, f"{HERE}/bugs.py", "--jobs", "2", *out["bugs"]]
    found["equipment"] = [*found["bugs"][:-2], "--list", EQUIPMENT, *out["equipment"]]
    return found


NAMES = (*DAMAGE, *KILLS, "steps", "surroundings", "endurance", "long", "hub", "bugs", "equipment")


def run_missing(only: list[str]) -> int:
    """Run what has not been run, or what is named; the worst exit code."""
    BUILD.mkdir(parents=True, exist_ok=True)
    worst = 0
    for name, command in commands(sys.executable).items():
        path = BUILD / f"{name}.json"
        # A list of bugs goes on from where it is.
        kept = path.exists() and name not in ("bugs", "equipment")
        if name not in only if only else kept:
            continue
        print(" ".join(command[1:]), flush=True)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        worst = max(worst, done.returncode)
        if name == "steps" and done.stdout:
            path.write_text(done.stdout, encoding="utf8")
        if name == "hub":
            path.write_text(json.dumps(_tests_of(BUILD / "hub.xml")), encoding="utf8")
        if not path.exists():
            raise SystemExit(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
    return worst


def _tests_of(xml: Path) -> dict[str, Any]:
    suite = ElementTree.parse(xml).getroot().find("testsuite")
    names = [case.get("name") for case in suite if case.find("failure") is not None]
    bad = int(suite.get("failures")) + int(suite.get("errors"))
    return {"tests": int(suite.get("tests")), "failed": bad, "names": names}


# --- the page -----------------------------------------------------------------------------------


def read(name: str) -> Any:
    """What was counted, or None."""
    path = BUILD / f"{name}.json"
    return json.loads(path.read_text(encoding="utf8")) if path.exists() else None


def line(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def damage() -> str:
    tallies = {name: read(name) for name in DAMAGE}
    wrong = [f"- {name}, {what}" for name, tally in tallies.items() for what in tally["wrong"]]
    told = ["\nWrong:\n", *wrong, ""] if wrong else [""]
    return HOW + "\n".join([*map(_damage_row, DAMAGE), *told]) + _foreign()


def _damage_row(name: str) -> str:
    tally, (_, words) = read(name), DAMAGE[name]
    command = f"`python {HERE}/run.py {name} {tally['count']}`"
    refused = sum(n for how, n in tally["outcomes"].items() if "refused" in how)
    other = tally["count"] - refused - tally["outcomes"].get("WRONG", 0)
    slowest = f"{tally['slowest_s']:.2f} s"
    cells = (f"{tally['count']:,}", f"{refused:,}", f"{other:,}", len(tally["wrong"]), slowest)
    return line(words, *cells, command)


def _foreign() -> str:
    tally = read("foreign")
    silent = sum(n for how, n in tally["outcomes"].items() if how.startswith("other values"))
    return f"""
Of the third party's files, {silent} of {tally["count"]:,} were read with other values and gave
finite outputs. The format has no checksum, so a changed number of the right type is a valid
number. Files that we write hold a digest, and a pinned name is checked against a digest.
"""


def kills() -> str:
    rows = []
    for name, (_, words, good) in KILLS.items():
        seen = read(name)
        command = f"`python tests/programs/kill_{name}.py --count {seen['kills']} --seed {SEED}`"
        held = f"{seen['same']} {good}"
        rows.append(line(words, seen["kills"], seen["struck"], seen["inside"], held, command))
    return """
SIGKILL kills the process. Three of four kills come at a random moment, uniform over the duration
of the work. One of four comes inside a save (half a file written, before and after each flush and
rename).

| what is killed | kills | while it ran | inside a save | result | command |
|---|---|---|---|---|---|
""" + "\n".join([*rows, ""])


def steps() -> str:
    """Saves that are killed at each of their points, one row per pair of layouts."""
    rows = [
        line(pair, count, count - refused - len(wrong), refused, len(wrong))
        for pair, (count, refused, wrong) in read("steps").items()
    ]
    return f"""
`python {" ".join(EACH_STEP)}` kills a save over another model at every one of its points: half of a
file, and before and after every flush to the disk and every rename. What lies there must be the old
model or the new one. *lab* and *transformers* are the layouts that we write. In the place of a
*foreign* folder, which transformers wrote, there may also be an error that says what is missing.

| save | points | one whole model | refused by name | wrong |
|---|---|---|---|---|
""" + "\n".join([*rows, ""])


def surroundings() -> str:
    seen = read("surroundings")
    rows = [line(r["what"], r["how"], _verdict(r), f"{r['seconds']} s") for r in seen]
    return f"""
`python {HERE}/surroundings.py` runs each case once. Each must end in time with an error of one
line. It must not lose or change what was there before, and the next start must continue.

| what | how | message | whole case |
|---|---|---|---|
""" + "\n".join([*rows, ""])


def _verdict(row: dict[str, Any]) -> str:
    return f"**wrong**: {row['wrong']}" if row["wrong"] else row["said"]


def endurance() -> str:
    threads, inferences, explorers = (read("endurance")[n] for n in ENDURANCE)
    return f"""
`python tests/programs/endurance_runs.py`: 64 threads at once requested {threads["count"]:,}
predictions for pictures of eight sizes; {threads["differ"]} differ from the predictions of one
thread. After a warm-up, {inferences["count"]:,} inferences add {inferences["growth_mb"]:.2f} MB of
resident memory, and {explorers["count"]:,} explorers add {explorers["growth_mb"]:.2f} MB; 1 MB is
allowed.
"""


ENDURANCE = ("threads", "inferences", "explorers")


def long() -> str:
    """Memory over an hour; the curves are drawn beside the page."""
    seen = read("long")
    import_module("curves").draw_long(seen, CURVES)
    rows = "\n".join(_long_row(run) for run in seen)
    return f"""
`python tests/programs/long_runs.py --hours 1 --pictures 10000 --out FILE` runs three programs at
once and samples them every five seconds, with everything that they start. The first quarter of the
time is a warm-up. *Growth* is the median of the last quarter less that of the second one.

| what | time | memory | growth | open files | growth | threads | growth |
|---|---|---|---|---|---|---|---|
{rows}

![Memory over time: three curves that stay level after the first minutes](../img/{CURVES.name})

The step at the end of `eval` is the computation of COCO's numbers from all detections together.
"""


def _long_row(run: dict[str, Any]) -> str:
    need = [(statistics.median(run[k]), run[f"more_{k}"]) for k in ("handles", "threads")]
    cells = [f"{run['seconds'][-1] / 60:.0f} min", f"{statistics.median(run['megabytes']):.0f} MB"]
    cells += [f"{run['growth_mb']:+.1f} MB"]
    cells += [f"{n:+.0f}" if i else f"{n:.0f}" for pair in need for i, n in enumerate(pair)]
    return line(LONG[run["name"]], *cells)


LONG = {
    "stream": "pictures without end into one `Detector`",
    "train": "`rtdetr-lab train`, a validation every 100 steps",
    "eval": "`rtdetr-lab eval`, 10,000 pictures",
}


def hub() -> str:
    seen = read("hub")
    found = f"{seen['tests'] - seen['failed']} of {seen['tests']} cases behave"
    found += f"; not: {', '.join(seen['names'])}" if seen["names"] else ""
    return f"""
`pytest {HUB}`: {found}. The real client talks to a server on this machine. The cases are: a
missing repository, revision or file; a branch that moves; a commit that disappears during a
download; a transfer that breaks off or is too short; no network, with and without a cache; 401,
403, 429 and 500. The client retries a temporary fault. For any other fault the error names
repository, revision and file. Half a file never stays in the cache. Pinned names are checked
against their digest.
"""


def bugs() -> str:
    seen = read("bugs")
    caught = [b for b in seen if b["caught_by"]]
    places = [sum(b["caught_by"] == p for b in seen) for p in ("chapter", "package", "oracle")]
    text = f"""
`python {HERE}/bugs.py` writes one plausible bug at a time into a copy of the package
(`mutants.py` lists them) and runs its tests. {len(caught)} of {len(seen)} were caught:
{places[0]} by the tests of the chapter, {places[1]} by those of the whole model, and {places[2]}
only by the comparison with transformers.{_not_run("mutants", seen)}
"""
    return text + _survivors(seen)


def _not_run(module: str, seen: list[dict[str, Any]]) -> str:
    """Say how many bugs of a list were not run."""
    sys.path.insert(0, str(Path(__file__).parent))
    left = len(import_module(module).MUTANTS) - len(seen)
    return f" {left} more of the list were not run." if left else ""


def _survivors(seen: list[dict[str, Any]]) -> str:
    survivors = [f"- `{b['module']}`: {b['bug']}" for b in seen if not b["caught_by"]]
    return "\nNot caught:\n\n" + "\n".join([*survivors, ""]) if survivors else ""


def equipment() -> str:
    """Bugs in everything around the chapters: asked are only the tests of the module."""
    seen = read("equipment")
    caught, modules = [b for b in seen if b["caught_by"]], {b["module"] for b in seen}
    text = f"""
`python {HERE}/bugs.py --list {EQUIPMENT}` plants {len(seen)} bugs in {len(modules)} modules of the
equipment, and runs only the tests of that module. {len(caught)} were caught, which is
{100 * len(caught) / len(seen):.1f} %.{_not_run("mutants_equipment", seen)}

{import_module("mutants_outside").SAID}
"""
    return text + _survivors(seen)


def suite() -> str:
    """All tests, beside other work."""
    rows = []
    for run in read("suite"):
        counts = (f"{run[what]:,}" for what in ("passed", "skipped", "failed"))
        rows.append(
            line(
                f"`make {run['target']}`", run["beside"], *counts, f"{run['seconds'] / 60:.0f} min"
            )
        )
    failed = [f"- `{name}`" for run in read("suite") for name in run["names"]]
    told = ["\nFailed, and mended since:\n", *failed] if failed else []
    return """
`python tests/programs/suite_runs.py --out FILE [--target test-full] [--loops 4]` runs the whole
suite beside other work. A time limit in a test that a busy machine exceeds is a fault of the test.

| command | beside | passed | skipped | failed | time |
|---|---|---|---|---|---|
""" + "\n".join([*rows, *told, ""])


@dataclass(frozen=True)
class Section:
    """A part of the page: its title, the counts it is written from, and how."""

    title: str
    counts: tuple[str, ...]
    write: Callable[[], str]

    def text(self, old: dict[str, str]) -> str:
        """Write it anew if everything was counted; else keep it as it is on the page."""
        paths = [BUILD / f"{name}.json" for name in self.counts]
        if not all(path.exists() for path in paths):
            kept = old.get(self.title, f"\nNot measured yet: {', '.join(self.counts)}.\n")
            return f"\n## {self.title}\n{kept}"
        day = date.fromtimestamp(max(path.stat().st_mtime for path in paths))
        return f"\n## {self.title}\n\n{day}, {processor()}.\n{self.write()}"


SECTIONS = (
    Section("Damaged and malicious files", tuple(DAMAGE), damage),
    Section("Kills", tuple(KILLS), kills),
    Section("Saves killed at every step", ("steps",), steps),
    Section("Surroundings that fail", ("surroundings",), surroundings),
    Section("Endurance", ("endurance",), endurance),
    Section("Long runs", ("long",), long),
    Section("The suite on a busy machine", ("suite",), suite),
    Section("The hub", ("hub",), hub),
    Section("Bugs planted in the chapters", ("bugs",), bugs),
    Section("Bugs planted in the equipment", ("equipment",), equipment),
)


def processor() -> str:
    """Name the processor, its cores and the version of torch."""
    from rtdetr_lab.deployment.bench.report import machine

    here = machine()
    return f"{here['cpu']}, {here['cores']} cores, torch {here['versions']['torch']}"


def page(before: str) -> str:
    """Write the page; `before` is the one that it replaces."""
    parts = [part.partition("\n") for part in ("\n" + before).split("\n## ")[1:]]
    old = {title: text.rstrip("\n") + "\n" for title, _, text in parts}
    return HEAD + "".join(section.text(old) for section in SECTIONS)


def main() -> int:
    """Run what is missing, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="run nothing")
    parser.add_argument("--only", nargs="*", choices=NAMES, default=[], help="run these, again")
    asked = parser.parse_args()
    worst = 0 if asked.write else run_missing(asked.only)
    PAGE.write_text(page(PAGE.read_text(encoding="utf8")), encoding="utf8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return worst


if __name__ == "__main__":
    sys.exit(main())

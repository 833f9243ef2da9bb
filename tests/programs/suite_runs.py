"""Run the whole suite beside busy loops, and count what passed.

python tests/programs/suite_runs.py --out FILE [--target test-full] [--loops 4]

FILE is JSON: a row per run, the new one last. `tests/programs/campaign/report.py` puts it on
docs/results/reliability.md.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COUNT = re.compile(r"(\d+) (passed|failed|error|skipped)")


def counted(text: str) -> dict[str, int]:
    """Add up the closing lines of pytest: those that name a time."""
    found: Counter[str] = Counter(passed=0, failed=0, skipped=0)
    for line in text.splitlines():
        if re.search(r" in \d+\.\d+s", line):
            for number, what in COUNT.findall(line):
                found["failed" if what == "error" else what] += int(number)
    return dict(found)


def names_of(text: str) -> list[str]:
    """Return the tests that failed."""
    return re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)


def main() -> int:
    """Run once; 1 if a test failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="test", choices=("test", "test-full"))
    parser.add_argument("--loops", type=int, default=4, help="processes that only count")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(asked.loops)
    ]
    begun = time.monotonic()
    try:
        run = subprocess.run(
            ["make", asked.target],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    finally:
        for loop in loops:
            loop.kill()
    row = {"target": asked.target, "beside": f"{asked.loops} busy loops", "rc": run.returncode}
    row |= {"seconds": round(time.monotonic() - begun), "names": names_of(run.stdout)}
    rows = json.loads(asked.out.read_text("utf8")) if asked.out.exists() else []
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps([*rows, row | counted(run.stdout)], indent=1), encoding="utf8")
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())

"""# Memory: the peak of a process while it predicts

    python -m rtdetr_lab.deployment.bench.memory r18 "ours fp32" 640 640 transformers

Each subject runs in its own process, because a process keeps memory that it once used. We measure
the peak during prediction and subtract the memory after the imports. So the result contains weights
and feature maps, but not Python. Memory that only building the model needed is released before.
"""

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtdetr_lab.deployment.bench.subjects import Case


def peak_of(case: "Case", subject: str, against: str) -> float:
    """Measure the peak in another process and return it in MB."""
    module = "rtdetr_lab.deployment.bench.memory"
    sides = map(str, case.size)
    command = [sys.executable, "-m", module, case.preset, subject, *sides, against]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) / 1000 for line in lines if line.startswith(key))


def main(preset: str, name: str, height: str, width: str, against: str) -> None:
    """Print the peak in MB."""
    from rtdetr_lab.deployment.bench.subjects import Case, chosen, model_of

    if against:
        import transformers.models.rt_detr.modeling_rt_detr  # noqa: F401
    before = _status("VmRSS")
    case = Case(preset, (int(height), int(width)))
    run = chosen(against, "cpu")[name](case)
    model_of.cache_clear()
    run()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    for _ in range(3):
        run()
    print(_status("VmHWM") - before)


if __name__ == "__main__":
    main(*sys.argv[1:6])

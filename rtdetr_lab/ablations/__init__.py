r"""# Ablations: swap a part, train with a few seeds, get a table with intervals

| module         | what it is                                                                  |
|----------------|-----------------------------------------------------------------------------|
| `study`        | `Study(base, variants, seeds, budget, data)`: `run`, `report`                 |
| `variant`      | a change with its hypothesis; differences of configurations                 |
| `studies`      | the papers' tables by name; rows: `encoder`, `selection`, `line`, …         |
| `bases`        | the start of a study, in miniature and at full size                     |
| `task`, `source`, `uses` | what identifies a run: values, pictures, code                   |
| `job`          | one run, from a value to a row                                            |
| `executors`, `worker`, `cluster` | runs in this process, in local ones, on a cluster         |
| `plan`, `journal` | the planned runs, and the finished ones, one line each                   |
| `resample`, `statistics` | evaluation, also of redrawn pictures; intervals                   |
| `measure`      | parameters, GFLOPs, latency in turn                                         |
| `findings`, `report`, `page` | results, files and figures, pages                             |
"""

from rtdetr_lab.ablations.cluster import Submitit
from rtdetr_lab.ablations.executors import InProcess, LocalProcesses
from rtdetr_lab.ablations.report import Report
from rtdetr_lab.ablations.study import Study
from rtdetr_lab.ablations.variant import Setup, Variant, sweep, variant

__all__ = [
    "InProcess",
    "LocalProcesses",
    "Report",
    "Setup",
    "Study",
    "Submitit",
    "Variant",
    "sweep",
    "variant",
]

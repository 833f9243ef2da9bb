r"""# Ablations: swap a part, train a few seeds, get a table one can believe

| module         | what it is                                                                  |
|----------------|-----------------------------------------------------------------------------|
| `study`        | `Study(base, variants, seeds, budget, data)`: `run`, `report`                 |
| `variant`      | a change with its hypothesis; differences of configurations                 |
| `studies`      | the papers' tables by name; rows: `encoder`, `selection`, `decoder`, …      |
| `bases`        | what a study begins with, in miniature and at full size                     |
| `job`, `judge` | one run, from a value to a row                                              |
| `executors`, `worker`, `cluster` | here, in local processes, on a cluster                    |
| `plan`, `journal` | what will be done, and what is known, one line at a time                 |
| `resample`, `statistics` | other draws of the pictures; intervals                            |
| `measure`      | parameters, arithmetic, latency in turn                                     |
| `findings`, `report`, `page` | tables, files and figures, pages                              |
"""

from rtdetr_lab.ablations.cluster import Submitit
from rtdetr_lab.ablations.executors import InProcess, LocalProcesses
from rtdetr_lab.ablations.report import Report
from rtdetr_lab.ablations.study import Study
from rtdetr_lab.ablations.variant import Setup, Variant, variant

__all__ = [
    "InProcess",
    "LocalProcesses",
    "Report",
    "Setup",
    "Study",
    "Submitit",
    "Variant",
    "variant",
]

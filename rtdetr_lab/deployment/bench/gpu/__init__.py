"""# GPU: everything that we want to know from a GPU, in one command

    python -m rtdetr_lab.deployment.bench.gpu OUT           # measure; the same command goes on
    python -m rtdetr_lab.deployment.bench.gpu OUT --write   # the pages, from OUT

A GPU is often at hand for minutes only. So the command runs rows in the order of their worth. It
keeps every finished row in OUT, and ends on time. The same command goes on with the next row, also
on another machine that got a copy of OUT.

| file | rows |
|---|---|
| `kernels.py`  | the fused sampler: its error against the naive loop, its time |
| `speed.py`    | latency, throughput, parts, and a training step, against transformers |
| `learning.py` | notebook 13 on CUDA; nano on more pictures; studies |
| `record.py`   | the state of every row, in one JSON file per section; one call of the command |
| `clock.py`    | the budget: a process that ends on time, and another if one breaks |
| `page.py`     | pages from the records |
"""

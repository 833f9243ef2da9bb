"""# Bench: how fast, against whom, and where the time goes

Medians of **interleaved rounds** in one process: every subject runs once per round, in rotating
order, so that a machine that slows down slows everybody down, and the *ratio* survives.

| file | measures |
|---|---|
| `timing.py`   | rounds, medians, spread |
| `subjects.py` | our engines and their peers, with the same random weights |
| `parts.py`    | where a picture's time goes: decode … post-process; FLOPs and bytes of each part |
| `roofline.py` | the machine's ceilings, and how far from them each part is |
| `memory.py`   | peak memory, each subject in a process of its own |
| `training.py` | a training step |
| `nms.py`      | what suppression would cost, next to our top-k |
| `report.py`   | tables, the JSON record, the machine |
"""

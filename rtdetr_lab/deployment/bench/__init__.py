"""# Bench: how fast, compared with what, and where the time goes

We report medians of **interleaved rounds** in one process. Every subject runs once per round, in
rotating order. If the machine slows down, all subjects slow down, and the *ratio* stays the same.

| file | measures |
|---|---|
| `timing.py`   | rounds, medians, spread |
| `subjects.py` | our engines and transformers' model, with the same random weights |
| `parts.py`    | where a picture's time goes: decode … post-process; FLOPs and bytes of each part |
| `roofline.py` | the machine's ceilings, and how far from them each part is |
| `memory.py`   | peak memory, each subject in its own process |
| `drifts.py`   | what lower precision changes in detections, with weights from `spread.py` |
| `training.py` | a training step |
| `nms.py`      | what suppression would cost, next to our top-k |
| `report.py`   | tables, the JSON record, the machine |
"""

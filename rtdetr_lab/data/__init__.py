"""Data: pictures with labels and boxes, drawn or read, one at a time and in batches.

`shapes.py` is a world that needs no download; `coco.py` reads annotated photographs, `preflight.py`
says beforehand what is wrong with them, by the rules of `findings.py`, and `convert.py` takes other
formats there. `batch.py` says what a sample is and joins samples; `transforms.py`, `colours.py` and
`windows.py` change picture, boxes and masks together, and `augment.py` makes recipes of them, also
for a model that keeps the shape of pictures (`canvas.py`).
"""

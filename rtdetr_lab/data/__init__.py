"""Data: pictures with labels and boxes, drawn or read, one at a time and in batches.

`shapes.py` draws pictures and needs no download; in `shapes_printed.py`, printed symbols decide.
`coco.py` reads annotated photographs. `preflight.py` checks them before training, by the rules of
`findings.py`. `convert.py` converts other formats to COCO's.

`batch.py` defines a sample and joins samples. `transforms.py`, `colours.py` and `windows.py` change
picture, boxes and masks together. `augment.py` combines them into recipes, also for a model that
keeps the shape of pictures (`canvas.py`).
"""

"""Data: pictures with labels and boxes, drawn or read, one at a time and in batches.

`shapes.py` is a world that needs no download; `coco.py` reads annotated photographs; `batch.py`
says what a sample is and joins samples; `transforms.py` changes picture, boxes and masks together.
"""

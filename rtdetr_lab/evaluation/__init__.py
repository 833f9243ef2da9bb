"""Evaluation: how good are the boxes?

`coco.py` turns ground truth and detections into COCO's numbers; `evaluate.py` lets a model make the
detections.
"""

"""Evaluation: how good are the boxes?

`coco.py` computes COCO's numbers from ground truth and detections. `evaluate.py` runs a model to
get the detections.
"""

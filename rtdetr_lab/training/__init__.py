"""Training: `train` and the values it is called with."""

from rtdetr_lab.training.loop import Run, train
from rtdetr_lab.training.optim import Constant, Cosine
from rtdetr_lab.training.recipe import TrainConfig, from_scratch

__all__ = ["Constant", "Cosine", "Run", "TrainConfig", "from_scratch", "train"]

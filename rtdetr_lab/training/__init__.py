"""Training: `train`, and the values that you pass to it."""

from rtdetr_lab.training.callbacks import Callback
from rtdetr_lab.training.finetune import Prepared, prepare
from rtdetr_lab.training.loop import train
from rtdetr_lab.training.optim import Constant, Cosine
from rtdetr_lab.training.recipe import TrainConfig, fine_tune, from_scratch, paper, v2
from rtdetr_lab.training.session import Run

__all__ = [
    "Callback",
    "Constant",
    "Cosine",
    "Prepared",
    "Run",
    "TrainConfig",
    "fine_tune",
    "from_scratch",
    "paper",
    "prepare",
    "train",
    "v2",
]

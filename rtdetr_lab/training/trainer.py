r"""# Trainer: one step of learning

    set the rate → (forward → loss → backward) per part → clip → AdamW → EMA

Nothing else happens in a step. What comes between steps is in `loop.py`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from rtdetr_lab.config import to_json
from rtdetr_lab.detr import cardinality_error
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.evaluation.answers import keeps_aspect
from rtdetr_lab.structures import Targets
from rtdetr_lab.training import state as keep
from rtdetr_lab.training.ema import EMA
from rtdetr_lab.training.metrics import Window
from rtdetr_lab.training.optim import (
    adamw,
    learning_mode,
    lr_factor,
    parameter_groups,
    set_lr,
)
from rtdetr_lab.training.parts import parts
from rtdetr_lab.training.recipe import TrainConfig

MEASURED = {"cardinality_error"}
"""Recorded beside the terms, and no part of the loss."""


class Trainer:
    """Everything that changes from step to step, and the step."""

    def __init__(self, model: Any, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device, self.step = config, device, 0
        self.model = learning_mode(model.to(device).to(memory_format=torch.channels_last))
        self.criterion = model.cfg.criterion.build()
        rates = (config.lr, config.backbone_lr, config.weight_decay)
        self.optimizer = adamw(parameter_groups(model, *rates))
        self.parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.ema = EMA(model, config.ema_decay, config.ema_warmup)
        self.window, self.best = Window(), float("-inf")

    def learn(self, images: Tensor, targets: Targets, padding: Tensor | None = None) -> None:
        """One step on one batch. `padding` is for models that take pictures of several sizes."""
        config = self.config
        args = (self.step, config.num_steps, config.warmup_steps, config.schedule)
        set_lr(self.optimizer, lr_factor(*args))
        images = images.to(self.device, memory_format=torch.channels_last)
        targets = targets.to(self.device)
        padding = None if padding is None else padding.to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        terms: dict[str, Tensor] = {}
        for part in parts(images, targets, padding, config.accumulate):
            for name, term in self._backward(*part).items():
                terms[name] = terms[name] + term if name in terms else term
        norm = nn.utils.clip_grad_norm_(self.parameters, config.clip_norm)
        if not torch.isfinite(norm):
            raise _not_finite(self.step + 1, terms, self.model)
        self.optimizer.step()
        self.step += 1
        self.ema.update(self.step)
        loss = torch.stack([t for n, t in terms.items() if n not in MEASURED]).sum()
        self.window.add({"loss": loss, **terms, "grad_norm": norm})

    def _backward(
        self, images: Tensor, targets: Targets, padding: Tensor | None, weight: float
    ) -> dict[str, Tensor]:
        """Add the gradient of one part; returns its share of the step's terms."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp):
            hidden = {} if padding is None else {"padding": padding}
            prediction = self.model(images, targets, **hidden)
        terms = {n: weight * t for n, t in self.criterion(prediction, targets).items()}
        torch.stack(list(terms.values())).sum().backward()
        terms = {name: term.detach() for name, term in terms.items()}
        if keeps_aspect(self.model):
            error = cardinality_error(prediction, targets)
            terms["cardinality_error"] = error / self.config.accumulate
        return terms

    @property
    def lr(self) -> float:
        """The rate of the last step, of the group that learns fastest."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    def take_means(self) -> dict[str, float]:
        """The means of loss, terms and gradient norm since they were last taken."""
        means, self.window = self.window.means(), Window()
        return means

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint; the loader's position is the step."""
        return {
            "step": self.step,
            "cfg": to_json(self.model.cfg),
            "config": to_json(self.config),
            "model": self.model.state_dict(),
            "ema": self.ema.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "window": [self.window.sums, self.window.count],
            "best": self.best,
            "rng": keep.rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.step, self.best = state["step"], state["best"]
        self.model.load_state_dict(state["model"])
        self.ema.model.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.window.sums, self.window.count = state["window"]
        keep.set_rng_state(state["rng"])


def _not_finite(step: int, terms: dict[str, Tensor], model: nn.Module) -> TrainingError:
    """The first thing that is not finite, looked for in the order in which it was computed."""
    where, remedy = f"step {step}", "lower the rate, or look at the pictures of this step"
    for name, tensor in model.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            return TrainingError(where, f"the weight {name} is not finite", remedy)
    for name, term in terms.items():
        if not bool(torch.isfinite(term)):
            return TrainingError(where, f"{name} is {term.item()}", remedy)
    grads = ((n, p.grad) for n, p in model.named_parameters() if p.grad is not None)
    bad = (n for n, grad in grads if not bool(torch.isfinite(grad).all()))
    return TrainingError(
        where, f"the gradient of {next(bad, 'no parameter')} is not finite", remedy
    )

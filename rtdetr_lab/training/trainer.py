r"""# Trainer: one step of learning

    set the rate → (forward → loss → backward) per part → clip → AdamW → EMA

A step does nothing else. `loop.py` and `session.py` do the work between steps.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rtdetr_lab.config_json import to_json
from rtdetr_lab.detr.model import cardinality_error
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.kernels.fused_sampler import fast_training
from rtdetr_lab.structures import Batch
from rtdetr_lab.structures.ranks import several
from rtdetr_lab.training import distributed
from rtdetr_lab.training import state as keep
from rtdetr_lab.training.ema import EMA
from rtdetr_lab.training.finite import first_fault, slower
from rtdetr_lab.training.memory import Part, explain_full_memory, split, uses_amp
from rtdetr_lab.training.metrics import Means
from rtdetr_lab.training.optim import adamw, learning_mode, lr_factor, parameter_groups, set_lr
from rtdetr_lab.training.recipe import TrainConfig

MEASURED = {"cardinality_error"}
"""Values that are recorded with the terms but are not part of the loss."""


class Trainer:
    """Holds everything that changes from step to step, and makes the step."""

    def __init__(self, model: Any, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device, self.step, self.shape = config, device, 0, tuple[int, ...]()
        self.in_half_precision = uses_amp(config.amp, device)
        model = distributed.synchronise_norms(model, device)
        model = fast_training(model.to(device), device)
        self.model = learning_mode(model.to(memory_format=torch.channels_last))
        self.forward = distributed.average_gradients(self.model)
        self.criterion = model.cfg.criterion.build()
        rates = (config.lr, config.backbone_lr, config.weight_decay)
        self.optimizer = adamw(parameter_groups(model, *rates))
        self.parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.ema = EMA(model, config.decay, config.steps(config.ema_warmup))
        self.means, self.best = Means(), float("-inf")

    def learn(self, batch: Batch) -> None:
        """Make one step."""
        config = self.config
        warmup = config.steps(config.warmup_steps)
        set_lr(self.optimizer, lr_factor(self.step, config.num_steps, warmup, config.schedule))
        self.shape = tuple(batch.images.shape)
        with explain_full_memory(self.step + 1, config, self.shape, self.device):
            terms = self._gradients(batch.to(self.device, non_blocking=True))
            self.optimizer.step()
        self.step += 1
        self.ema.update(self.step)
        self.means.add(terms)

    def _gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the clipped gradients of a step; return the values for the record."""
        self.optimizer.zero_grad(set_to_none=True)
        before = keep.rng_state()
        try:
            terms = self._add_gradients(batch)
        except TrainingError as error:  # the matching raises it for a cost that is not finite
            raise self._locate_fault(batch, before) from error
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        loss = total(terms)
        if not torch.isfinite(norm + loss):
            raise self._locate_fault(batch, before)
        return {"loss": loss, **terms, "grad_norm": norm}

    def _add_gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Add up the gradients of all parts; return the terms of the step."""
        terms: dict[str, Tensor] = {}
        given = list(split(batch, self.config.accumulate))
        for number, part in enumerate(given, 1):
            with distributed.hold_gradients(self.forward, last=number == len(given)):
                of_part = self._terms(part, self.forward)
                total(of_part).backward()
            for name, term in of_part.items():
                term = term.detach()
                terms[name] = terms[name] + term if name in terms else term
        return terms

    def _terms(self, part: Part, forward: Any) -> dict[str, Tensor]:
        """Return the weighted terms of one part, and what is only measured."""
        batch, weight = part
        hidden = {} if batch.padding is None else {"padding": batch.padding}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.in_half_precision):
            prediction = forward(batch.images, batch.targets, **hidden)
        terms = {n: weight * t for n, t in self.criterion(prediction, batch.targets).items()}
        if self.model.takes_padding:
            error = cardinality_error(prediction, batch.targets)
            terms["cardinality_error"] = error / self.config.accumulate
        return terms

    def _locate_fault(self, batch: Batch, before: dict[str, Any]) -> TrainingError:
        """Name what was not finite first: compute the step again from its start."""
        if several():  # the repeated step would need all processes
            return first_fault(self.step + 1, self.model, [(batch, 1.0)], None, self.slower)
        keep.set_rng_state(before)
        again = split(batch, self.config.accumulate)
        terms = partial(self._terms, forward=self.model)
        return first_fault(self.step + 1, self.model, again, terms, self.slower)

    @property
    def slower(self) -> str:
        """Return the advice for a run that diverges."""
        return slower(self.config.lr, self.in_half_precision)

    @property
    def lr(self) -> float:
        """Return the highest rate of all groups in the last step."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    def take_means(self) -> dict[str, float]:
        """Return the means of loss, terms and gradient norm since the last call."""
        return self.means.take()

    def state(self) -> dict[str, Any]:
        """Return the complete state for a checkpoint; the loader's position is the step."""
        return {
            "step": self.step,
            "cfg": to_json(self.model.cfg),
            "config": to_json(self.config),
            "model": self.model.state_dict(),
            "ema": self.ema.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "window": [self.means.sums, self.means.count],
            "best": self.best,
            "rng": keep.rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what `state` returned."""
        self.step, self.best = state["step"], state["best"]
        self.model.load_state_dict(state["model"])
        self.ema.model.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.means.sums, self.means.count = state["window"]
        keep.set_rng_state(state["rng"])


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """Return the loss: the sum of all terms, without what is only measured."""
    return torch.stack([term for name, term in terms.items() if name not in MEASURED]).sum()

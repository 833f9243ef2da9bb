r"""# Calls: from the arguments of a documented model to its documented output

All detectors are called in the same way. The configuration gives the options that a call leaves
out. Tensors that are given for a part of the model replace what it computes (`instead`); the part
still runs, in eval mode. Keywords that nothing reads are named in a warning. Labels become targets.
One forward pass is recorded, and the records become the fields of the output.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as tree

from rtdetr_lab.config import require
from rtdetr_lab.errors import ImageError, TargetError
from rtdetr_lab.gathering import gather
from rtdetr_lab.structures import Prediction, Targets
from rtdetr_lab.transformers_api.pretrained import Pretrained

log = logging.getLogger("rtdetr_lab")

NAMES = ("class_labels", "boxes")

ENCODED = ("last_hidden_state", "hidden_states", "attentions")
"""Fields of `encoder_outputs`, in their order; in a model's output they begin with `encoder_`."""


@dataclass(frozen=True, eq=False)
class Call:
    """Arguments of one call of a model; `start` is the first content of the queries."""

    pixel_values: Tensor | None
    pixel_mask: Tensor | None
    query_mask: Tensor | None = None
    encoder_outputs: Any = None
    inputs_embeds: Tensor | None = None
    start: Tensor | None = None

    @property
    def encoded(self) -> dict[str, Any]:
        """Documented fields of the encoder's output that is given: a record, or its tuple."""
        given = self.encoder_outputs
        if given is None:
            return {}
        if hasattr(given, ENCODED[0]):
            given = [getattr(given, name, None) for name in ENCODED]
        elif isinstance(given, Mapping):
            given = [given.get(name) for name in ENCODED]
        what, remedy = f"is a {type(given).__name__}", "give a record, or a tuple"
        require(isinstance(given, tuple | list), "encoder_outputs", what, remedy)
        return {f"encoder_{name}": value for name, value in zip_longest(ENCODED, given[:3])}


def instead(name: str, given: Any, computed: Any) -> Any:
    """Return what is given in place of what was computed; raise `ConfigError` for other shapes."""
    pair = [[shape_of(leaf) for leaf in tree.tree_leaves(one)] for one in (given, computed)]
    remedy = f"give {pair[1]}, the shapes computed for these pictures"
    require(pair[0] == pair[1], name, f"holds {pair[0]}", remedy)
    return given


def shape_of(value: Any) -> Any:
    """Return the sizes of a tensor, or the name of another type."""
    return [*value.shape] if isinstance(value, Tensor) else type(value).__name__


def here(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return the hook for the thread that calls `here`; it changes nothing on other threads."""
    thread = threading.get_ident()
    return lambda *seen: hook(*seen) if threading.get_ident() == thread else None


class Rest:
    """Keeps parts in eval mode until `remove`, so that replaced parts count no statistics."""

    def __init__(self, *parts: nn.Module) -> None:
        self.modules = [m for part in parts for m in part.modules() if m.training]
        for module in self.modules:
            module.training = False

    def remove(self) -> None:
        """Return to training mode, where it was."""
        for module in self.modules:
            module.training = True


@cache  # one warning for every set of names
def warn_of(where: str, names: tuple[str, ...]) -> None:
    """Warn about keywords of a call that nothing reads."""
    log.warning("%s: nothing reads %s, as in transformers", where, ", ".join(names))


def targets_of(labels: Any, device: torch.device, masks: bool = False) -> Targets:
    """Convert their `labels` to our `Targets`.

    A label has `class_labels`, `boxes` (cxcywh, fractions) and, if requested, `masks`. Raises
    `TargetError` for other types; `Targets` and the model check the values.
    """
    known = isinstance(labels, Sequence) and not isinstance(labels, Mapping)
    what, remedy = f"is a {type(labels).__name__}", "give a list with one dictionary per picture"
    require(known, "labels", what, remedy, TargetError)
    pictures = []
    needed = (*NAMES, "masks") if masks else NAMES
    for i, one in enumerate(labels):
        missing = [n for n in needed if n not in one] if isinstance(one, Mapping) else needed
        what, remedy = f"has no {', '.join(missing)}", "give the processor's dictionaries"
        require(not missing, f"labels[{i}]", what, remedy, TargetError)
        named = {"labels": one["class_labels"], "boxes": one["boxes"]}
        pictures.append(named | ({"masks": one["masks"]} if masks else {}))
    return Targets.of(pictures).to(device)


@dataclass(frozen=True)
class Watch:
    """Gathers (inputs, output) of a part when it runs; it stays, since graphs cannot add hooks."""

    name: str

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        gather(self.name, (inputs, output))


class DetectorModel(Pretrained):
    """Base of the detectors: their call, and their output."""

    output_class: ClassVar[Any]
    watched: ClassVar[tuple[str, ...]]
    """Parts of `.lab` with documented inputs or outputs that no tap has."""
    judge: ClassVar[Any]
    """Function of criterion, prediction, targets and a flag "every layer"; it returns the loss and
    its documented terms."""

    def _hold(self, config: Any, lab: Any) -> None:
        super()._hold(config, lab)
        for path in self.watched:
            part = lab.get_submodule(path)
            if not any(isinstance(hook, Watch) for hook in part._forward_hooks.values()):
                part.register_forward_hook(Watch(path.rpartition(".")[2]))

    def answer(
        self,
        call: Call,
        labels: Any,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        return_dict: bool | None,
        unread: Mapping[str, Any],
    ) -> Any:
        """Result of one call: the documented output, or a tuple with `return_dict=False`.

        `unread` are further keywords: transformers has them for all models, and reads none here.
        """
        asked = self._asked(
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
        )
        told = {name for name, value in unread.items() if value is not None}
        if idle := told - {"num_items_in_batch"}:  # the loss is divided by the number of boxes
            warn_of(f"{type(self).__name__}.forward", tuple(sorted(idle)))
        images = call.pixel_values
        if images is None:
            raise ImageError("pixel_values", "is missing", "pass the output of the processor")
        targets = None if labels is None else targets_of(labels, images.device, self.masks)
        handles = self.replacing(call)
        try:
            prediction, found = self.run(images, call, targets, asked)
        finally:
            for handle in handles:
                handle.remove()
        output = self.output(prediction, targets, found | call.encoded)
        return output if asked["return_dict"] else output.to_tuple()

    def replacing(self, call: Call) -> list[Any]:
        """Let parts return what the call gives for them, until the returned handles are removed."""
        if call.encoder_outputs is None:
            return []
        memory, part = call.encoded["encoder_last_hidden_state"], self.lab.encoder
        hook = here(lambda part, inputs, output: instead("encoder_outputs", memory, output))
        # In transformers the first projection is no part of the encoder, and is not replaced.
        replaced = [child for name, child in part.named_children() if name != "project"]
        # Before all other hooks, so that the records have what is given.
        return [Rest(*replaced), part.register_forward_hook(hook, prepend=True)]

    def run(
        self, images: Tensor, call: Call, targets: Any, asked: Mapping[str, bool]
    ) -> tuple[Prediction, dict[str, Any]]:
        """Run the forward pass, and fill the documented fields."""
        raise NotImplementedError

    def output(self, prediction: Prediction, targets: Any, found: dict[str, Any]) -> Any:
        """Return the output and, with targets, its loss."""
        told = dict(found)
        if targets is not None:
            every, criterion = self.settings.auxiliary_loss, self.lab.cfg.criterion
            told["loss"], told["loss_dict"] = self.judge(criterion, prediction, targets, every)
            told["auxiliary_outputs"] = auxiliary(prediction) if every else None
        told |= {"logits": prediction.logits, "pred_boxes": prediction.boxes}
        told["pred_masks"] = prediction.masks
        # The documented outputs of DETR's detectors have fewer fields than those of its model.
        return self.output_class(**{n: v for n, v in told.items() if hasattr(self.output_class, n)})


def auxiliary(prediction: Prediction) -> list[dict[str, Tensor]]:
    """Return the layers before the last, then the proposals."""
    before = list(prediction.layers[:-1])
    if prediction.proposals is not None:
        before.append(prediction.proposals.layer)
    return [{"logits": layer.logits, "pred_boxes": layer.boxes} for layer in before]

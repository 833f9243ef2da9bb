r"""# Outputs: the documented fields, by attribute, by key and by index

An output is a dictionary of the fields that are not None, in the documented order. Setting a field
sets its key and the reverse. `to_tuple()` returns the values. torch sees an output as a tree of
tensors, so graphs can return it, and clients convert what is in it. A client may give a dictionary
of all fields in place of the first one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as tree

from rtdetr_lab.errors import ConfigError

Tensors = tuple[Tensor, ...] | None


class Output(dict[str, Any]):
    """Record with access by attribute, key and index."""

    def __init_subclass__(cls) -> None:
        tree.register_pytree_node(
            cls,
            lambda output: (list(output.values()), list(output)),
            lambda values, names: cls(**dict(zip(names, values, strict=True))),
            serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        )

    def __post_init__(self) -> None:
        first, given = next(iter(self.__dict__)), self.__dict__
        if isinstance(told := given[first], Mapping):  # clients add keys of their own
            given |= {first: None, **told}
        super().update({name: value for name, value in given.items() if value is not None})

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if len(self):  # complete: keep the keys in the documented order
            given = dict(self.__dict__)
            super().clear()
            super().update({name: value for name, value in given.items() if value is not None})

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __reduce__(self) -> Any:
        return type(self), (dict(self),)

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are not None, in order."""
        return tuple(self.values())

    def _fixed(self, *args: Any, **more: Any) -> Any:
        remedy = "set the field to None, or change a copy: dict(output)"
        raise ConfigError(type(self).__name__, "keeps its fields", remedy)

    __delitem__ = pop = popitem = setdefault = update = clear = _fixed  # type: ignore[assignment]


@dataclass(eq=False)
class BackboneOutput(Output):
    """Maps of the requested stages."""

    feature_maps: Any = None
    hidden_states: Tensors = None
    attentions: Tensors = None


@dataclass(eq=False)
class RTDetrModelOutput(Output):
    """All fields except `loss`, `logits` and `pred_boxes`."""

    last_hidden_state: Any = None
    intermediate_hidden_states: Tensor | None = None
    intermediate_logits: Any = None
    intermediate_reference_points: Tensor | None = None
    intermediate_predicted_corners: Tensor | None = None
    initial_reference_points: Tensor | None = None
    decoder_hidden_states: Tensors = None
    decoder_attentions: Tensors = None
    cross_attentions: Tensors = None
    encoder_last_hidden_state: list[Tensor] | None = None
    encoder_hidden_states: Tensors = None
    encoder_attentions: Tensors = None
    init_reference_points: Tensor | None = None
    enc_topk_logits: Tensor | None = None
    enc_topk_bboxes: Tensor | None = None
    enc_outputs_class: Tensor | None = None
    enc_outputs_coord_logits: Tensor | None = None
    denoising_meta_values: dict[str, Any] | None = None


@dataclass(eq=False)
class Answer(Output):
    """Loss, logits, boxes and masks: the first fields in the documented order."""

    loss: Any = None
    loss_dict: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    pred_boxes: Tensor | None = None
    pred_masks: Tensor | None = None
    auxiliary_outputs: list[dict[str, Tensor]] | None = None


@dataclass(eq=False)
class RTDetrObjectDetectionOutput(RTDetrModelOutput, Answer):
    """Logits and boxes, with labels their loss, and all other fields."""


@dataclass(eq=False)
class DetrInner(Output):
    """Inner tensors of a DETR."""

    last_hidden_state: Any = None
    decoder_hidden_states: Tensors = None
    decoder_attentions: Tensors = None
    cross_attentions: Tensors = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: Tensors = None
    encoder_attentions: Tensors = None


@dataclass(eq=False)
class DetrModelOutput(DetrInner):
    """Inner tensors; with `auxiliary_loss`, also the outputs of all decoder layers."""

    past_key_values: Any = None
    intermediate_hidden_states: Tensor | None = None


@dataclass(eq=False)
class DetrObjectDetectionOutput(DetrInner, Answer):
    """Logits and boxes, with labels their loss, and the inner tensors."""


@dataclass(eq=False)
class DetrSegmentationOutput(DetrObjectDetectionOutput):
    """Logits, boxes and masks, with labels their loss, and the inner tensors."""

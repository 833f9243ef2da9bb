r"""# Outputs: the documented fields, by attribute, by key and by index

A field that is None has no key and no index. `to_tuple()` returns the other fields in order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

Tensors = tuple[Tensor, ...] | None


@dataclass
class Output(Mapping[str, Any]):
    """Record with access by attribute, key and index."""

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are not None, in order."""
        return tuple(self.values())

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in set(self):
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return (f.name for f in fields(self) if getattr(self, f.name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass
class BackboneOutput(Output):
    """Maps of the requested stages."""

    feature_maps: Tensors = None
    hidden_states: Tensors = None
    attentions: Tensors = None


@dataclass
class RTDetrModelOutput(Output):
    """All fields except `loss`, `logits` and `pred_boxes`."""

    last_hidden_state: Tensor | None = None
    intermediate_hidden_states: Tensor | None = None
    intermediate_logits: Tensor | None = None
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


@dataclass
class Answer(Output):
    """Loss, logits, boxes and masks: the first fields in the documented order."""

    loss: Tensor | None = None
    loss_dict: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    pred_boxes: Tensor | None = None
    pred_masks: Tensor | None = None
    auxiliary_outputs: list[dict[str, Tensor]] | None = None


@dataclass
class RTDetrObjectDetectionOutput(RTDetrModelOutput, Answer):
    """Logits and boxes, with labels their loss, and all other fields."""


@dataclass
class DetrInner(Output):
    """Inner tensors of a DETR."""

    last_hidden_state: Tensor | None = None
    decoder_hidden_states: Tensors = None
    decoder_attentions: Tensors = None
    cross_attentions: Tensors = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: Tensors = None
    encoder_attentions: Tensors = None


@dataclass
class DetrModelOutput(DetrInner):
    """Inner tensors; with `auxiliary_loss`, also the outputs of all decoder layers."""

    intermediate_hidden_states: Tensor | None = None


@dataclass
class DetrObjectDetectionOutput(DetrInner, Answer):
    """Logits and boxes, with labels their loss, and the inner tensors."""


@dataclass
class DetrSegmentationOutput(DetrObjectDetectionOutput):
    """Logits, boxes and masks, with labels their loss, and the inner tensors."""

r"""# Outputs: the documented fields, by attribute, by key and by place

A field that is None is not there: it has no key and no place. `to_tuple()` are the others in order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

Tensors = tuple[Tensor, ...] | None


@dataclass
class Output(Mapping[str, Any]):
    """Access by attribute, key and place."""

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are there, in order."""
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
    """Everything but the answer."""

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
    """Loss and answer: what comes first in the order of fields."""

    loss: Tensor | None = None
    loss_dict: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    pred_boxes: Tensor | None = None
    pred_masks: Tensor | None = None
    auxiliary_outputs: list[dict[str, Tensor]] | None = None


@dataclass
class RTDetrObjectDetectionOutput(RTDetrModelOutput, Answer):
    """The answer, its loss where there are labels, and everything else."""


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
    """Everything but the answer; with `auxiliary_loss`, what every decoder layer found."""

    intermediate_hidden_states: Tensor | None = None


@dataclass
class DetrObjectDetectionOutput(DetrInner, Answer):
    """Boxes, their loss where there are labels, and everything else."""


@dataclass
class DetrSegmentationOutput(DetrObjectDetectionOutput):
    """Boxes and masks, their loss where there are labels, and everything else."""

r"""# RTDetrModel, RTDetrForObjectDetection, RTDetrResNetBackbone, and v2's

We record one forward pass of `rtdetr.py`. The documented fields come from the records:

| field                                 | here                                        |
|---------------------------------------|---------------------------------------------|
| `logits`, `pred_boxes`                | `Prediction.logits`, `.boxes`               |
| `intermediate_logits` and boxes       | every layer, denoising queries first        |
| `intermediate_hidden_states`          | tap `decoder.content.*`                     |
| `enc_outputs_class` and boxes         | taps of `proposal_head`                     |
| `enc_topk_logits`, `enc_topk_bboxes`  | `Prediction.proposals`                      |
| attentions of the decoder             | taps `weights` of `decoder.layers.*`        |
| attentions of the encoder             | taps `weights` of `encoder.aifi.layers.*`   |

RT-DETR has no padding mask. As in transformers, `pixel_mask` is accepted and changes nothing.
In training their `logits` also contain the denoising queries; ours have the documented shape.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rtdetr_lab.checkpoints.files import read_weights
from rtdetr_lab.checkpoints.hooks import outputs_of
from rtdetr_lab.checkpoints.load import Opened
from rtdetr_lab.checkpoints.preprocessor import preprocessor_config
from rtdetr_lab.checkpoints.rename import import_tensors
from rtdetr_lab.checkpoints.source import locate
from rtdetr_lab.checkpoints.tables import TRANSFORMERS
from rtdetr_lab.config import require
from rtdetr_lab.gathering import gathered
from rtdetr_lab.model import Metadata
from rtdetr_lab.structures import Prediction
from rtdetr_lab.transformers_api.calls import Call, DetectorModel
from rtdetr_lab.transformers_api.config import (
    RTDetrConfig,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ResNetConfig,
)
from rtdetr_lab.transformers_api.fields import fields_of, judged, kept
from rtdetr_lab.transformers_api.loading import NoHead, draw_anew
from rtdetr_lab.transformers_api.outputs import (
    BackboneOutput,
    RTDetrModelOutput,
    RTDetrObjectDetectionOutput,
)
from rtdetr_lab.transformers_api.pretrained import Pretrained


class RTDetrPreTrainedModel(DetectorModel):
    """Base of both documented RT-DETR models."""

    config_class = RTDetrConfig
    watched = ("decoder", "encoder.aifi")

    @classmethod
    def fresh(cls, config: Any, cfg: Any) -> Any:
        """Build a new model, with the documented class biases.

        Weights start as in the paper unless `initializer_range` is changed.
        """
        lab: Any = cfg.build()
        if config.initializer_range != RTDetrConfig.initializer_range:
            kept = ("cross_attn", "class_head", "box_head")
            draw_anew(lab, config.initializer_range, kept=kept)
        prior = config.initializer_bias_prior_prob or 1 / (config.num_labels + 1)
        for head in (lab.proposal_head.class_head, *lab.decoder.class_heads):
            nn.init.constant_(head.bias, math.log(prior / (1 - prior)))
        return lab

    def preprocessor(self, known: Metadata) -> dict[str, Any]:
        """Return the settings for the picture size of training."""
        return preprocessor_config(known.fixed_size)

    def run(
        self, images: Tensor, call: Call, targets: Any, asked: Mapping[str, bool]
    ) -> tuple[Prediction, dict[str, Any]]:
        """Run the forward pass, and fill the documented fields."""
        asked = {**asked, "by_level": self.settings.model_type == "rt_detr"}
        with gathered(kept(asked)) as seen:
            prediction = self.lab(images, targets)
        return prediction, fields_of(self.lab, prediction, seen, asked)

    def forward(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        inputs_embeds: Any = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **unread: Any,
    ) -> Any:
        """Return the documented output, or its tuple with `return_dict=False`.

        `encoder_outputs`, a record or a tuple with the list of maps first, replaces the encoder's.
        """
        what = "is one tensor in transformers, where it needs three maps, and fails there"
        require(inputs_embeds is None, "inputs_embeds", what, "give encoder_outputs")
        unread["decoder_inputs_embeds"] = decoder_inputs_embeds
        call = Call(pixel_values, pixel_mask, encoder_outputs=encoder_outputs)
        asked = (output_attentions, output_hidden_states, return_dict)
        return self.answer(call, labels, *asked, unread)


class RTDetrModel(RTDetrPreTrainedModel):
    """RT-DETR up to its last decoder layer.

    As documented it has no heads, so no layer moves a box. `RTDetrForObjectDetection.model` shares
    the detector's heads.
    """

    place = ("", "model.")

    @classmethod
    def fresh(cls, config: Any, cfg: Any) -> Any:
        """Build a new model without the heads of the decoder."""
        lab = super().fresh(config, cfg)
        layers = range(len(lab.decoder.layers))
        lab.decoder.box_heads = nn.ModuleList(NoHead(4) for _ in layers)
        lab.decoder.class_heads = nn.ModuleList(NoHead(0) for _ in layers)
        return lab

    def output(self, prediction: Prediction, targets: Any, found: dict[str, Any]) -> Any:
        """Return all fields except `logits` and `pred_boxes`; without heads no logits either."""
        if not found["intermediate_logits"].numel():
            found["intermediate_logits"] = ()
        return RTDetrModelOutput(**found)


class RTDetrForObjectDetection(RTDetrPreTrainedModel):
    """RT-DETR that returns logits, boxes and, with labels, the loss."""

    inner_class = RTDetrModel
    output_class = RTDetrObjectDetectionOutput
    judge = staticmethod(judged)


class RTDetrResNetBackbone(Pretrained):
    """Backbone alone, a ResNet-D."""

    config_class = RTDetrResNetConfig
    place = ("backbone.", "model.backbone.model.")

    @classmethod
    def opened(cls, folder: Path) -> Opened:
        """Read the tensors in a folder."""
        source = locate(folder)
        weights, (ours, theirs) = read_weights(source.weights), cls.place
        named = {theirs + name: tensor for name, tensor in weights.tensors.items()}
        tensors = import_tensors(TRANSFORMERS, named, weights.where)
        tensors = {name.removeprefix(ours): tensor for name, tensor in tensors.items()}
        return Opened(None, Metadata(licence=source.licence), tensors, source, weights.where)

    @classmethod
    def lab_config(cls, config: Any) -> Any:
        """Convert the configuration; outside a detector the batch norms are not frozen."""
        return replace(config.to_lab(), norm=nn.BatchNorm2d)

    def facts(self) -> Metadata:
        """Return the facts to save."""
        return getattr(self.lab, "metadata", Metadata())

    @property
    def channels(self) -> list[int]:
        """Number of channels of each output map."""
        return list(self.settings.channels)

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Return a `BackboneOutput`; `output_hidden_states` adds the stem and all stages."""
        asked = self._asked(output_hidden_states=output_hidden_states, return_dict=return_dict)
        every, indices = asked["output_hidden_states"], self.settings.out_indices
        parts = [self.lab.pool, *self.lab.stages] if every or 0 in indices else []
        with outputs_of({str(i): part for i, part in enumerate(parts)}) as seen:
            maps = tuple(self.lab(pixel_values))
        if 0 in indices:  # the stem, which is no stage of ours
            maps = tuple(seen[str(i)] for i in indices)
        output = BackboneOutput(maps, tuple(seen.values()) if every else None)
        return output if asked["return_dict"] else output.to_tuple()


RTDetrResnetBackbone = RTDetrResNetBackbone
"""Spelling of one example in the documentation."""


class RTDetrV2Model(RTDetrModel):
    """RT-DETRv2 up to its last decoder layer."""

    config_class = RTDetrV2Config


class RTDetrV2ForObjectDetection(RTDetrForObjectDetection):
    """RT-DETRv2 that returns logits, boxes and, with labels, the loss."""

    inner_class = RTDetrV2Model
    config_class = RTDetrV2Config


class RTDetrV2ResNetBackbone(RTDetrResNetBackbone):
    """Backbone under v2's name."""

    config_class = RTDetrV2ResNetConfig

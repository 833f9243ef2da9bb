r"""# DetrModel, DetrForObjectDetection and DetrForSegmentation

We record one forward pass of `detr/model.py` or `detr/segmentation.py`. The documented fields come
from the records:

| field                                | here                                                 |
|--------------------------------------|------------------------------------------------------|
| `logits`, `pred_boxes`, `pred_masks` | `Prediction.logits`, `.boxes`, `.masks`              |
| `last_hidden_state`                  | the decoder's output, normalised                     |
| `intermediate_hidden_states`         | the normalised output of every decoder layer         |
| `encoder_last_hidden_state`          | the encoder's output                                 |
| `encoder_hidden_states`              | its input, then taps `encoder.content.*`             |
| `decoder_hidden_states`              | zeros, taps `decoder.content.*`, the last normalised |
| attentions                           | taps `weights` of `*.self_attn` and `*.cross_attn`   |

Their models get normalised pixels, so here `.lab` has mean 0 and standard deviation 1. The mean and
standard deviation of the checkpoint are in `.pixels`, and are saved again. `pixel_mask` is
`~padding`: hidden pixels are set to zero, blocked in every attention, and not counted in positions.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from math import isqrt
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.checkpoints.load import Opened
from rtdetr_lab.checkpoints.preprocessor import Pixels, detr_preprocessor_config
from rtdetr_lab.checkpoints.transformers_config import draws
from rtdetr_lab.config import require
from rtdetr_lab.gathering import gathered
from rtdetr_lab.model import Metadata
from rtdetr_lab.notation import tokens_of
from rtdetr_lab.structures import Prediction
from rtdetr_lab.taps import record
from rtdetr_lab.transformers_api.calls import Call, DetectorModel, Rest, here, instead
from rtdetr_lab.transformers_api.config import DetrConfig
from rtdetr_lab.transformers_api.detr_fields import edits, inner_fields, judged, kept, padding_of
from rtdetr_lab.transformers_api.loading import NoHead, draw_anew, fill
from rtdetr_lab.transformers_api.outputs import (
    DetrModelOutput,
    DetrObjectDetectionOutput,
    DetrSegmentationOutput,
)

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def as_normalised(lab: Any) -> nn.Module:
    """Make a model accept normalised pixels; `.pixels` stores mean and standard deviation."""
    if getattr(lab, "pixels", None) is None:
        cfg, known = lab.cfg, lab.metadata
        pixels = Pixels(mean=cfg.mean, std=cfg.std)
        if known.image_size is not None:
            pixels = replace(pixels, edges=known.edges, image_size=known.image_size)
        lab.pixels, lab.cfg = pixels, replace(cfg, mean=ZERO, std=ONE)
    found: nn.Module = lab
    return found


def blank(cells: Tensor, pixel_mask: Tensor | None, stride: int) -> Float[Tensor, "B 3 H W"]:
    """Return blank pictures with a square map of such cells: of the mask's size, if that fits.

    Raises `ConfigError` if the cells (B, N, D) are no square map.
    """
    shape = tuple(cells.shape)
    side = isqrt(shape[1]) if len(shape) == 3 else 0
    what, remedy = f"has shape {shape}", "give (B, N, D), where N is a square: 1, 4, 9 …"
    require(side and side**2 == shape[1], "inputs_embeds", what, remedy)
    edges = (side * stride, side * stride)
    masked = edges if pixel_mask is None else tuple(pixel_mask.shape[-2:])
    fits = [-(-edge // stride) for edge in masked] == [side, side]
    return cells.new_zeros(shape[0], 3, *(masked if fits else edges))


class DetrPreTrainedModel(DetectorModel):
    """Base of the three documented DETR classes."""

    config_class = DetrConfig
    watched = ("encoder", "decoder")

    def __init__(self, config: Any) -> None:
        at = "DetrConfig[use_pretrained_backbone]"
        remedy = "leave it out, or load the whole model with from_pretrained"
        wanted = getattr(config, "use_pretrained_backbone", False)
        require(not wanted, at, "would need a download of weights", remedy)
        super().__init__(config)

    def _hold(self, config: Any, lab: Any) -> None:
        super()._hold(config, as_normalised(lab))

    @classmethod
    def fresh(cls, config: Any, cfg: Any) -> Any:
        """Build a new model; `init_std` and `init_xavier_std` replace the start of the paper."""
        lab = super().fresh(config, cfg)
        if config.init_std != DetrConfig.init_std:
            draw_anew(lab, config.init_std, kept=("mask_attention", "mask_head"))
        if cls.masks and config.init_xavier_std != DetrConfig.init_xavier_std:
            for projection in (lab.mask_attention.q_proj, lab.mask_attention.k_proj):
                nn.init.xavier_uniform_(projection.weight, gain=config.init_xavier_std)
        return lab

    @classmethod
    def seeing(cls, cfg: Any, found: Opened) -> Any:
        """Return `cfg` for the pixels that the checkpoint was trained on."""
        return replace(cfg, mean=found.cfg.mean, std=found.cfg.std)

    @classmethod
    def around(cls, config: Any, lab: Any) -> Any:
        """Wrap an existing model; add or drop a mask head, as this class needs."""
        if draws(lab.cfg) != cls.masks:
            given, known = Opened(lab.cfg, lab.metadata, lab.state_dict(), None, "the model"), lab
            lab = cls.fresh(config, replace(cls.lab_config(config), mean=ZERO, std=ONE))
            fill(lab, given)
            lab.metadata, lab.pixels = known.metadata, as_normalised(known).pixels
        return super().around(config, lab)

    @property
    def pixels(self) -> Pixels:
        """Settings of the checkpoint's processor: mean, standard deviation, sizes."""
        found: Pixels = self.lab.pixels
        return found

    def preprocessor(self, known: Metadata) -> dict[str, Any]:
        """Return the settings of the checkpoint's processor."""
        return detr_preprocessor_config(self.pixels)

    def replacing(self, call: Call) -> list[Any]:
        """Let parts return what the call gives for them, until the returned handles are removed."""
        handles, cells, start = super().replacing(call), call.inputs_embeds, call.start

        def project(part: nn.Module, inputs: Any, output: Tensor) -> Any:
            return instead("inputs_embeds", cells, tokens_of(output)).mT.reshape(output.shape)

        def begin(part: nn.Module, inputs: Any) -> Any:
            return instead("decoder_inputs_embeds", start, inputs[0]), *inputs[1:]

        if cells is not None:
            handles.append(Rest(self.lab.backbone))
            handles.append(self.lab.project.register_forward_hook(here(project)))
        if start is not None:
            handles.append(self.lab.decoder.layers[0].register_forward_pre_hook(here(begin)))
        return handles

    def run(
        self, images: Tensor, call: Call, targets: Any, asked: Mapping[str, bool]
    ) -> tuple[Prediction, dict[str, Any]]:
        """Run the forward pass, and fill the documented fields."""
        padding = padding_of(call.pixel_mask, images)
        edit = edits(call.query_mask, self.lab.num_queries)
        with record(self.lab, edit=edit) if edit else nullcontext(), gathered(kept(asked)) as seen:
            prediction = self.lab(images, targets, padding)
        return prediction, inner_fields(self.lab, seen, asked, call.start)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **unread: Any,
    ) -> Any:
        """Return the documented output, or its tuple with `return_dict=False`.

        `inputs_embeds` are the projected cells of a square map, `encoder_outputs` the encoder's
        output, and `decoder_inputs_embeds` the first content of the queries.
        """
        if inputs_embeds is not None:  # a blank picture of that size gives positions, and no more
            what, remedy = "has no maps that a mask is drawn from", "pass pixel_values"
            require(not self.masks, "inputs_embeds", what, remedy)
            pixel_values = blank(inputs_embeds, pixel_mask, self.backbone.strides[-1])
        given = (encoder_outputs, inputs_embeds, decoder_inputs_embeds)
        call = Call(pixel_values, pixel_mask, decoder_attention_mask, *given)
        asked = (output_attentions, output_hidden_states, return_dict)
        return self.answer(call, labels, *asked, unread)


class DetrModel(DetrPreTrainedModel):
    """DETR up to its last decoder layer."""

    place = ("", "model.")

    @classmethod
    def fresh(cls, config: Any, cfg: Any) -> Any:
        """Build a new model without heads."""
        lab = super().fresh(config, cfg)
        lab.class_head, lab.box_head = NoHead(0), NoHead(4)
        return lab

    def output(self, prediction: Prediction, targets: Any, found: dict[str, Any]) -> Any:
        """Return all fields except `logits` and `pred_boxes`."""
        what, remedy = "need a detector", "use DetrForObjectDetection with labels"
        require(targets is None, "labels", what, remedy)
        every = (
            found if self.settings.auxiliary_loss else {**found, "intermediate_hidden_states": None}
        )
        return DetrModelOutput(**every)


class DetrForObjectDetection(DetrPreTrainedModel):
    """DETR that returns logits, boxes and, with labels, the loss."""

    inner_class = DetrModel
    output_class = DetrObjectDetectionOutput
    judge = staticmethod(judged)


class DetrForSegmentation(DetrForObjectDetection):
    """DETR that returns logits, boxes, masks and, with labels, the loss."""

    masks = True
    output_class = DetrSegmentationOutput

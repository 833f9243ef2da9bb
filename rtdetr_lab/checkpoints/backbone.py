r"""# Backbone weights alone: start from ImageNet

A detector learns much faster if its backbone is pretrained. `load_backbone` fills the backbone of a
new model and changes nothing else. Every tensor of the backbone must be in the file and must fit.

| the file may be                                   | its names begin with                     |
|---------------------------------------------------|------------------------------------------|
| a whole detector: ours, transformers', authors'   | `backbone.`, `model.backbone.model.`     |
| transformers' `RTDetrResNetBackbone`, `HGNetV2Backbone` | `embedder.`, `encoder.stages.`     |
| the authors' ImageNet file (`ResNet18_vd_…`)      | `conv1.`, `res_layers.`                  |
| a `state_dict()` of our `ResNetD` or `HGNetV2`, or the authors' HGNetv2 | `stem.`, `stages.` |
"""

import os
from collections.abc import Mapping

from torch import Tensor, nn

from rtdetr_lab.checkpoints.files import read_weights
from rtdetr_lab.checkpoints.rename import under_our_names
from rtdetr_lab.checkpoints.source import locate
from rtdetr_lab.checkpoints.strict import fit
from rtdetr_lab.config import require
from rtdetr_lab.errors import CheckpointError

BARE = {
    ("embedder.", "encoder.stages."): "model.backbone.model.",
    ("conv1.", "res_layers."): "backbone.",
    ("stem.", "stages."): "backbone.",
}
"""First parts of the names in a backbone alone → the prefix that a detector's names have."""

HEADS = ("fc.", "classifier.", "pooler.")
"""Names of an ImageNet classifier on top of a backbone; a detector has none."""


def load_backbone(
    model: nn.Module, source: str | os.PathLike[str], revision: str | None = None
) -> nn.Module:
    """Fill `model.backbone` (or `model`, if it is a backbone) from a file, folder or hub id.

    Returns `model`. Raises `CheckpointError` unless every tensor of the backbone is in the file,
    under a known name, with the right shape and finite.
    """
    weights = read_weights(locate(source, revision).weights)
    ours = under_our_names(_of_a_detector(weights.tensors), weights.where)
    found = {n.removeprefix("backbone."): t for n, t in ours.items() if n.startswith("backbone.")}
    first = next(iter(weights.tensors), "nothing")
    what = f"holds no ResNet-D or HGNetv2: its names begin like {first!r}"
    remedy = "give a detector, transformers' RTDetrResNetBackbone or the authors' ResNet-vd"
    require(found, weights.where, what, remedy, CheckpointError)
    fit(getattr(model, "backbone", model), found, weights.where)
    return model


def _of_a_detector(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names of a detector with this backbone."""
    tensors = {n: t for n, t in tensors.items() if not n.startswith(HEADS)}
    for starts, prefix in BARE.items():
        if tensors and all(n.startswith(starts) for n in tensors):
            return {prefix + n: t for n, t in tensors.items()}
    return tensors

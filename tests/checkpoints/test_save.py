"""What a save leaves in a folder that is not empty, and weights that are finite and answer NaN."""

import logging
import re

import pytest
import torch
from small import SMALL, shaken
from small_detr import DETECTOR as DETR
from small_detr import SEGMENTER as DRAWS

from rtdetr_lab.checkpoints.hub import licence_in
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.metadata import metadata_for
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.checkpoints.verify import check_answer
from rtdetr_lab.config import replace_at
from rtdetr_lab.errors import CheckpointError
from rtdetr_lab.rtdetr import rtdetr_nano

MODELS = {"RT-DETR": rtdetr_nano(2), "DETR": replace_at(DETR, "num_classes", 2)}
MINE = "---\nlicense: mit\nlibrary_name: x\n---\n# Mine\n\nTrained on Tuesdays.\n"


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def saved(request):
    """Saves a model in transformers' layout, under a licence, into a folder."""
    model = request.param.build().eval()

    def save(folder, licence):
        known = metadata_for(2, ("a", "b"), licence=licence)
        return save_pretrained(model, folder, "transformers", metadata=known)

    return save


def test_a_card_somebody_wrote_stays_and_another_licence_is_named(saved, tmp_path, caplog):
    (tmp_path / "README.md").write_text(MINE)
    saved(tmp_path, "mit")
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "rtdetr_lab"):
        saved(tmp_path, "apache-2.0")
    assert (tmp_path / "README.md").read_text() == MINE
    assert "licence of the weights is apache-2.0" in caplog.text


def test_our_own_card_says_what_the_weights_say_now(saved, tmp_path):
    for licence in ("mit", "apache-2.0", None, "cc0-1.0"):
        saved(tmp_path, licence)
        assert licence_in(tmp_path) == licence
        assert load_pretrained(tmp_path).metadata.licence == licence


LAYERS = {
    "RT-DETR's backbone": (SMALL, "backbone.stem.0.conv"),
    "RT-DETR's decoder": (SMALL, "decoder.layers.1.ffn.fc1"),
    "DETR's encoder": (DETR, "encoder.layers.0.ffn.fc1"),
    "DETR's masks": (DRAWS, "mask_head.levels.1.adapt"),
}


@pytest.mark.parametrize(("cfg", "layer"), LAYERS.values(), ids=LAYERS)
def test_weights_that_answer_nan_name_the_first_layer_that_does(cfg, layer):
    """Every weight is finite, and what is computed from them is not."""
    model = shaken(cfg.build()).eval()
    with torch.no_grad():
        weight = model.get_parameter(f"{layer}.weight")
        weight.copy_(3e38 * weight.sign())
    with pytest.raises(CheckpointError, match=rf"it: .*not finite, from {re.escape(layer)} on"):
        check_answer(model, torch.rand(1, 3, 96, 96), "it")

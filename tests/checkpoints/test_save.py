"""What a save leaves in a folder that is not empty, and weights that are finite and answer NaN."""

import json
import logging
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from paths import PROGRAMS, child_environment
from safetensors.torch import load_file, save_file
from small import SMALL, shaken
from small_api import SMALL as RTDETR
from small_detr import DETECTOR as DETR
from small_detr import SEGMENTER as DRAWS

from rtdetr_lab.checkpoints import save
from rtdetr_lab.checkpoints.files import digest
from rtdetr_lab.checkpoints.hub import licence_in
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.metadata import metadata_for
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.checkpoints.verify import check_answer
from rtdetr_lab.config import replace_at
from rtdetr_lab.errors import CheckpointError
from rtdetr_lab.rtdetr import rtdetr_nano
from rtdetr_lab.transformers_api.config import RTDetrConfig
from rtdetr_lab.transformers_api.rtdetr import RTDetrForObjectDetection

MODELS = {"RT-DETR": rtdetr_nano(2), "DETR": replace_at(DETR, "num_classes", 2)}
MINE = "---\nlicense: mit\nlibrary_name: x\n---\n# Mine\n\nTrained on Tuesdays.\n"


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def saved(request):
    """Saves a model in transformers' layout, under a licence, into a folder."""
    model = request.param.build().eval()

    def put(folder, licence):
        known = metadata_for(2, ("a", "b"), licence=licence)
        return save_pretrained(model, folder, "transformers", metadata=known)

    return put


def test_a_card_somebody_wrote_stays_and_another_licence_is_named(saved, tmp_path, caplog):
    (tmp_path / "README.md").write_text(MINE)
    saved(tmp_path, "mit")
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "rtdetr_lab"):
        saved(tmp_path, "apache-2.0")
    assert (tmp_path / "README.md").read_text() == MINE
    assert "licence of the weights is apache-2.0" in caplog.text


def test_our_own_card_says_what_the_weights_say_now(saved, tmp_path):
    for licence in ("mit", "Bob's licence: x.org/l#terms", None, "cc0-1.0"):
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


FOREIGN = {"lab": 0, "transformers": 0, "foreign": 1}
"""What lies there before → how many points leave nothing that describes itself."""


@pytest.mark.parametrize(
    "before",
    [
        "transformers",
        pytest.param("lab", marks=pytest.mark.full),
        pytest.param("foreign", marks=pytest.mark.full),
    ],
)
def test_a_save_that_is_killed_at_any_point_leaves_one_model(before):
    command = [sys.executable, str(PROGRAMS / "kill_each_step.py"), before]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    points = {after: count for after, (count, _, _) in seen.items()}
    assert points[f"transformers over {before}"] > points[f"lab over {before}"] > 10
    assert {refused for _, refused, _ in seen.values()} == {FOREIGN[before]}


def test_a_documented_save_that_is_cut_short_is_refused_by_name_and_can_be_read(
    tmp_path, monkeypatch
):
    """From the weights on, every file is met once by the end of the process."""
    names = [{0: "cat", 1: "dog", 2: "cow"}, {0: "nut", 1: "bolt", 2: "nail"}]
    old, new = (RTDetrForObjectDetection(RTDetrConfig(**RTDETR | {"id2label": n})) for n in names)
    new.lab.metadata = replace(new.lab.metadata, licence="mit")
    write = save.write_text
    for file in ("README.md", "preprocessor_config.json", "config.json"):
        old.save_pretrained(tmp_path)
        (tmp_path / "preprocessor_config.json").unlink()

        def ends(path, *text, file=file):
            if path.name == file:
                raise KeyboardInterrupt
            write(path, *text)

        monkeypatch.setattr(save, "write_text", ends)
        with pytest.raises(KeyboardInterrupt):
            new.save_pretrained(tmp_path)
        monkeypatch.setattr(save, "write_text", write)
        with pytest.raises(CheckpointError, match=r"has no config\.json"):
            RTDetrForObjectDetection.from_pretrained(tmp_path)
        found = load_pretrained(tmp_path)
        assert found.metadata.names == ("nut", "bolt", "nail")
        assert found.metadata.licence == "mit"
        assert digest(found.state_dict()) == digest(new.lab.state_dict())


def test_weights_alone_that_do_not_say_what_they_are_are_refused(saved, tmp_path):
    weights = saved(tmp_path, "mit") / "model.safetensors"
    save_file(load_file(weights), weights, {"format": "pt"})
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json, .* save the model there"):
        load_pretrained(tmp_path)

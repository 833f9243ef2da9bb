"""The same options say how a data set is read, wherever one is."""

import json

import numpy as np
import pytest
from damaged_data import SIZES, sound
from PIL import Image

from rtdetr_lab.cli import main

SHORT = ("--size", "96", "--batch-size", "2", "--pictures", "4", "--device", "cpu")


@pytest.mark.parametrize("verb", [["train"], ["eval"], ["data", "check"]])
def test_every_verb_that_reads_one_has_the_options(verb, capsys):
    with pytest.raises(SystemExit):
        main([*verb, "--help"])
    said = capsys.readouterr().out
    assert "--bits" in said
    assert "--voc-origin" in said


def test_check_train_and_eval_read_pictures_of_fewer_bits_when_they_are_told(tmp_path, capsys):
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    for split in ("train", "val"):
        (data / f"{split}.json").write_text(json.dumps(sound()))
    for i, size in SIZES.items():
        values = np.random.default_rng(i).integers(0, 1024, size).astype(np.uint16)
        Image.fromarray(values).save(data / f"{i}.png")
    for words in (
        ["data", "check", str(data)],
        ["train", "--data", str(data), "--out", str(run), *SHORT],
        ["eval", str(run), "--data", str(data), "--device", "cpu"],
    ):
        if words[0] != "eval":  # without a run there is nothing to judge
            assert main(words) == 1
            said = capsys.readouterr()
            assert "--bits 10" in said.out + said.err
        assert main([*words, "--bits", "10"]) == 0
    before = (run / "last.pt").read_bytes()
    assert main(["train", "--data", str(data), "--out", str(run), *SHORT, "--bits", "11"]) == 1
    assert "CocoDataset.bits was 10, is 11" in capsys.readouterr().err
    assert (run / "last.pt").read_bytes() == before

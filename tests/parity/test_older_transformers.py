"""Checkpoints of transformers 4.56.2, the release of RT-DETR's documentation, go both ways."""

import subprocess
import sys

import pytest
import torch
from older_transformers import HUB, KINDS, TOKENIZERS, VERSION
from paths import PROGRAMS, ROOT, TESTS, child_environment

import rtdetr_lab as lab

PINS = [f"transformers=={VERSION}", f"huggingface_hub=={HUB}", f"tokenizers=={TOKENIZERS}"]


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """Run the program with the older release, which is put into a folder of its own."""
    packages, folder = tmp_path_factory.mktemp("packages"), tmp_path_factory.mktemp("models")
    install = ["pip", "install", "-q", "--no-deps", "--target", str(packages), *PINS]
    done = subprocess.run([sys.executable, "-m", *install], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{VERSION} cannot be installed here; runs where the package index answers")
    path = ":".join(map(str, (packages, ROOT, TESTS)))

    def run(verb):
        command = [sys.executable, str(PROGRAMS / "older_transformers.py"), verb, str(folder)]
        told = subprocess.run(
            command, env=child_environment(PYTHONPATH=path), capture_output=True, text=True
        )
        assert told.returncode == 0, told.stderr[-2000:]
        return folder, torch.load(folder / f"{verb}.pt", weights_only=True)

    return run


@pytest.mark.full
def test_what_the_older_release_saved_we_load_and_the_reverse(older):
    folder, saved = older("save")
    assert saved["version"] == VERSION
    for kind in KINDS:
        name = f"{kind}ForObjectDetection"
        model = getattr(lab, name).from_pretrained(folder / "theirs" / kind)
        with torch.no_grad():
            found = model(saved["images"])
        for ours, theirs in ((found.logits, "logits"), (found.pred_boxes, "boxes")):
            torch.testing.assert_close(ours, saved[kind][theirs], atol=1e-5, rtol=1e-5)
        model.save_pretrained(folder / "ours" / kind)
    _, again = older("answer")
    for kind in KINDS:
        for name, value in saved[kind].items():
            assert torch.equal(again[kind][name], value), f"{kind}: {name}"

"""The documentation's calls, with only the import line changed, against a hub on this machine.

The documentation itself is a shared fixture and not part of this repository. What stands here is
what its RT-DETR examples call, in our words: load by hub id, process a picture, ask, decode, print.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_hub import Hub
from test_transformers_api import SMALL

import rtdetr_lab as lab

ROOT = Path(__file__).resolve().parents[1]
IDS = {"RTDetr": "PekingU/rtdetr_r50vd", "RTDetrV2": "PekingU/rtdetr_v2_r18vd"}
CALLS = """
import torch
from PIL import Image
from rtdetr_lab import AutoImageProcessor, {kind}ForObjectDetection, {kind}Model
image = Image.open("{picture}")
processor = AutoImageProcessor.from_pretrained("{id}")
model = {kind}ForObjectDetection.from_pretrained("{id}")
inputs = processor(images=image, return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs)
print(list(outputs.logits.shape), list(outputs.pred_boxes.shape))
print(list({kind}Model.from_pretrained("{id}")(**inputs).last_hidden_state.shape))
sizes = torch.tensor([image.size[::-1]])
found = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)[0]
for score, label, box in zip(found["scores"], found["labels"], found["boxes"]):
    box = [round(i, 2) for i in box.tolist()]
    print(f"{{model.config.id2label[label.item()]}}: {{score:.2f}} {{box}}")
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    server = Hub()
    for kind, name in IDS.items():
        folder = tmp_path_factory.mktemp(kind)
        config = getattr(lab, f"{kind}Config")(**SMALL)
        getattr(lab, f"{kind}ForObjectDetection")(config).save_pretrained(folder)
        server.add(name, folder)
    yield server
    server.shutdown()


@pytest.mark.parametrize("kind", IDS)
def test_the_documented_calls_print_the_documented_lines(kind, hub, tmp_path):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    env |= {"HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}
    picture = ROOT / "rtdetr_lab" / "assets" / "shapes.png"
    code = CALLS.format(kind=kind, id=IDS[kind], picture=picture)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shapes, states, *lines = done.stdout.splitlines()
    assert shapes == "[1, 10, 3] [1, 10, 4]"
    assert states == "[1, 10, 16]"
    assert len(lines) == 10
    assert all(re.fullmatch(r"(cat|dog|cow): \d\.\d\d \[(-?[\d.]+(, )?){4}\]", x) for x in lines)

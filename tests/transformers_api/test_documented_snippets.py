"""The documentation's snippets, with only the import line changed, against a hub on this machine.

The documentation itself is a shared fixture and not part of this repository: where it lies beside
the checkout, every snippet of it runs, and says what the documentation says it does. Everywhere,
what its examples call, in our words: load by hub id, process a picture, ask, decode, print.
"""

import json
import re
import subprocess
import sys

import pytest
import torch
from hub_server import ROOT, Hub, client
from small_api import SMALL, SMALL_DETR

import rtdetr_lab as lab

PICTURE = ROOT / "rtdetr_lab" / "assets" / "shapes.png"
IDS = {
    "RTDetr": "PekingU/rtdetr_r50vd",
    "RTDetrV2": "PekingU/rtdetr_v2_r18vd",
    "Detr": "facebook/detr-resnet-50",
}
SHAPES = {
    "RTDetr": ("[1, 10, 3] [1, 10, 4]", "[1, 10, 16]", 10),
    "Detr": ("[1, 7, 4] [1, 7, 4]", "[1, 7, 16]", 7),
}
SHAPES["RTDetrV2"] = SHAPES["RTDetr"]
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
        config = getattr(lab, f"{kind}Config")(**(SMALL_DETR if kind == "Detr" else SMALL))
        getattr(lab, f"{kind}ForObjectDetection")(config).save_pretrained(folder)
        server.add(name, folder)
    yield server
    server.shutdown()


@pytest.mark.parametrize("kind", IDS)
def test_the_documented_calls_print_the_documented_lines(kind, hub, tmp_path):
    code = CALLS.format(kind=kind, id=IDS[kind], picture=PICTURE)
    done = subprocess.run(
        [sys.executable, "-c", code], env=client(tmp_path, hub.url), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shapes, states, *lines = done.stdout.splitlines()
    assert (shapes, states, len(lines)) == SHAPES[kind]
    assert all(re.fullmatch(rf"(cat|dog|cow|sky): {LINE}", line) for line in lines)


LINE = r"\d\.\d\d \[(-?[\d.]+(, )?){4}\]"
SENTENCE = r"Detected [\w/ ]+ with confidence \d\.\d+ at location \[(-?[\d.]+(, )?){4}\]"

# --- the documentation itself -------------------------------------------------------------------

RESNET = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1]}
RESNET |= {"layer_type": "basic"}
THEIR_RTDETR = {
    "encoder_in_channels": [12, 16, 24], "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "decoder_layers": 2, "hidden_expansion": 0.25, "num_labels": 80,
}  # fmt: skip
THEIR_DETR = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64}
THEIR_DETR |= {"decoder_ffn_dim": 64, "use_timm_backbone": False}
DOCUMENTED = {
    "PekingU/rtdetr_r50vd": "RTDetr",
    "PekingU/rtdetr_r18vd": "RTDetr",
    "PekingU/rtdetr_v2_r18vd": "RTDetrV2",
    "PekingU/RTDetrV2_r50vd": "RTDetrV2",
    "danelcsb/rtdetr_v2_r50vd": "RTDetrV2",
    "facebook/detr-resnet-50": "Detr",
    "facebook/detr-resnet-50-panoptic": "DetrMasks",
}

RUNNER = """
import ast, builtins, contextlib, io, json, sys, traceback, types
sys.displayhook = lambda value: None if value is None else print(repr(value))
snippets, picture = json.load(sys.stdin)
class Stream(io.BytesIO):
    raw = property(lambda self: self)
opened = lambda *url, **options: Stream(open(picture, "rb").read())
sys.modules["requests"] = types.SimpleNamespace(get=opened)
sys.modules["httpx"] = types.SimpleNamespace(stream=opened)
run, told = getattr(builtins, "exec"), []
for code in snippets:
    out, names = io.StringIO(), {}
    try:
        with contextlib.redirect_stdout(out):
            for line in ast.parse(code).body:
                run(compile(ast.Interactive([line]), "snippet", "single"), names)
        told.append(dict(code=code, printed=out.getvalue()))
    except Exception:
        told.append(dict(code=code, error=traceback.format_exc()))
print(json.dumps(told))
"""


def snippets(text):
    """(code, what it prints) of the blocks that are Python, pipelines aside."""
    for kind, block in re.findall(r"```(python|py)?[ ]*\n(.*?)```", text, re.DOTALL):
        lines = block.splitlines()
        prompted = [line for line in lines if line.startswith((">>>", "..."))]
        if prompted:
            code = [line[4:] for line in prompted]
            said = [line for line in lines if line.strip() and line not in prompted]
        else:
            code, said = lines, []
        if (prompted or kind) and "pipeline(" not in block:
            yield "\n".join(code), said


def changed(code):
    """Only the import line; a snippet that goes on from the one above gets one."""
    code = re.sub(r"from transformers[\w.]* import", "from rtdetr_lab import", code)
    if "from rtdetr_lab" in code:
        return code
    used = sorted({name for name in re.findall(r"\w+", code) if name in lab.__all__})
    return f"from rtdetr_lab import {', '.join(used)}\n{code}"


@pytest.fixture(scope="module")
def documented(tmp_path_factory):
    """A hub of what transformers saves under the documented names: small, random, and sure."""
    reason = "transformers, who saves the checkpoints, is missing; runs with the extra [dev]"
    transformers = pytest.importorskip("transformers", reason=reason)
    server, made = Hub(), {}
    for name, kind in DOCUMENTED.items():
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            _save(transformers, kind, made[kind])
        server.add(name, made[kind])
    yield server
    server.shutdown()


@torch.no_grad()
def _save(transformers, kind, folder):
    size = {"shortest_edge": 96, "longest_edge": 128}
    if kind.startswith("RT"):
        resnet = transformers.RTDetrResNetConfig(**RESNET, out_indices=[2, 3, 4])
        config = getattr(transformers, f"{kind}Config")(backbone_config=resnet, **THEIR_RTDETR)
        model = getattr(transformers, f"{kind}ForObjectDetection")(config)
        model.model.decoder.class_embed[-1].bias += 6
        processor, size = transformers.RTDetrImageProcessor, {"height": 128, "width": 128}
    else:
        stages = [f"stage{i}" for i in (1, 2, 3, 4)]
        masks = kind == "DetrMasks"
        resnet = transformers.ResNetConfig(**RESNET, out_features=stages)
        labels = 250 if masks else 91
        config = transformers.DetrConfig(backbone_config=resnet, num_labels=labels, **THEIR_DETR)
        kinds = (transformers.DetrForObjectDetection, transformers.DetrForSegmentation)
        model = kinds[masks](config)
        getattr(model, "detr", model).class_labels_classifier.bias[17] += 9
        processor = transformers.DetrImageProcessorPil
    model.save_pretrained(folder)
    processor(size=size).save_pretrained(folder)


def test_every_snippet_of_the_documentation_runs_and_prints_what_it_shows(
    documented, shared, tmp_path
):
    found = [
        s for path in sorted(shared("seeds").glob("*.txt")) for s in snippets(path.read_text())
    ]
    kept = [(changed(code), said) for code, said in found if "ForObject" in code or "Detr" in code]
    assert len(kept) >= 15
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps([[code for code, _ in kept], str(PICTURE)]),
        env=client(tmp_path, documented.url),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for told, (_, said) in zip(json.loads(done.stdout), kept, strict=True):
        assert "error" not in told, told["error"] + told["code"]
        printed = told["printed"].splitlines()
        assert bool(printed) >= bool(_results(said)), told["code"]
        for line in printed:
            known = re.fullmatch(rf"[\w/ ]+: {LINE}|{SENTENCE}|\d+", line)
            assert known or line in said, (line, told["code"])
        shapes = [line for line in said if re.fullmatch(r"(torch.Size\()?\[[\d, ]+\]\)?", line)]
        assert set(shapes) <= set(printed), told["code"]


def _results(said):
    return [line for line in said if re.match(rf"[\w/ ]+: {LINE}|Detected |\[\d|torch.Size", line)]

"""Pushing and fetching with the documented classes, through the real client, against a stand-in.

One conversation in a process of its own: `huggingface_hub` reads its settings when it is imported.
"""

import json
import subprocess
import sys

import pytest
from hub_server import TOKEN, Hub, client

TALK = """
import json, sys, urllib.request
import torch
import rtdetr_lab as lab
from rtdetr_lab.errors import HubError
url, token, other, small = json.load(sys.stdin)
mark = lambda name: urllib.request.urlopen(f"{url}/mark/{name}").read()
def refused(call):
    try:
        call()
    except HubError as error:
        return str(error)
told = {}
load = lab.DetrForObjectDetection.from_pretrained
images = torch.randn(1, 3, 64, 64)
small["id2label"] = {int(i): name for i, name in small["id2label"].items()}
model = lab.DetrForObjectDetection(lab.DetrConfig(**small)).eval()
told["refused"] = refused(lambda: model.push_to_hub("me/private"))
told["commit"] = model.push_to_hub("me/private", token=token, commit_message="First")
with torch.no_grad():
    model.lab.class_head.bias += 1
told["branch"] = model.push_to_hub("me/private", token=token, revision="tried")
processor = lab.DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
processor.push_to_hub("me/private", token=token)
model.push_to_hub("me/private", token=token, commit_message="Again")
main, tried = load("me/private", token=token), load("me/private", token=token, revision="tried")
first = load("me/private", token=token, revision=told["commit"].rpartition("/")[2])
told["same"] = torch.equal(main(images).logits, model(images).logits)
told["tried"] = torch.equal(tried(images).logits, model(images).logits)
told["first"] = float((model(images).logits - first(images).logits).mean())
found = lab.AutoModelForObjectDetection.from_pretrained("me/private", token=token)
told["auto"] = type(found).__name__
back = lab.AutoImageProcessor.from_pretrained("me/private", token=token)
told["processor"] = back == processor
told["stranger"] = refused(lambda: load("me/private", cache_dir=other))
told["unknown"] = refused(lambda: load("me/private", token=token, revision="never"))
saved = other + "/saved"
processor.save_pretrained(saved, push_to_hub=True, repo_id="me/saved", token=token)
model.config.save_pretrained(saved, push_to_hub=True, repo_id="me/config", token=token)
model.save_pretrained(saved, push_to_hub=True, repo_id="me/saved", token=token)
told["saved"] = torch.equal(load("me/saved")(images).logits, model(images).logits)
told["config"] = lab.DetrConfig.from_pretrained("me/config").id2label[2]
told["saved processor"] = lab.AutoImageProcessor.from_pretrained("me/saved") == processor
model.save_pretrained(other + "/mine", push_to_hub=True, token=token)
mark("offline")
cached = load("me/private", local_files_only=True)
told["cached"] = torch.equal(cached(images).logits, main(images).logits)
told["elsewhere"] = refused(lambda: load("me/private", local_files_only=True, cache_dir=other))
mark("online")
load("me/private", token=token, cache_dir=other)
mark("offline")
load("me/private", local_files_only=True, cache_dir=other)
mark("end")
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """(what the client told, the hub afterwards)."""
    from small_api import SMALL_DETR as SMALL

    hub, home = Hub(), tmp_path_factory.mktemp("home")
    for name in ("offline", "online", "end"):
        hub.extra[f"/mark/{name}"] = b""
    done = subprocess.run(
        [sys.executable, "-c", TALK],
        input=json.dumps([hub.url, TOKEN, str(home / "other"), SMALL]),
        env=client(home, hub.url),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    yield json.loads(done.stdout.splitlines()[-1]), hub
    hub.shutdown()


def test_what_is_pushed_comes_back(talk):
    told, hub = talk
    assert told["commit"].startswith(f"{hub.url}/me/private/commit/")
    assert told["same"]
    assert told["tried"]
    assert told["auto"] == "DetrForObjectDetection"


def test_saving_can_push_in_the_same_call(talk):
    told, hub = talk
    assert told["saved"]
    assert told["config"] == "sky"
    assert told["saved processor"], "it was pushed before, and stays"
    assert "me/mine" in hub.repos, "without a repo_id the folder's name is the repository's"


def test_a_revision_is_a_branch_or_a_commit(talk):
    told, hub = talk
    assert told["first"] == pytest.approx(1, abs=1e-4)
    assert "no such revision" in told["unknown"]
    assert hub.head("me/private", "tried") != hub.head("me/private", "main")


def test_the_card_names_classes_and_what_others_wrote_stays(talk):
    told, hub = talk
    files = hub.repos["me/private"][hub.head("me/private", "main")]
    card = files["README.md"].decode()
    assert card.startswith("---\n")
    assert "pipeline_tag: object-detection" in card
    assert "cat, dog, sky" in card
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= set(files)
    assert told["processor"]


def test_who_shows_no_token_is_refused_in_one_line(talk):
    told, hub = talk
    for name in ("refused", "stranger"):
        assert "me/private" in told[name]
        assert "\n" not in told[name]
    assert f"Bearer {TOKEN}" in hub.tokens


def test_local_files_only_asks_nobody_and_a_cache_is_where_it_was_put(talk):
    told, hub = talk
    assert told["cached"]
    assert "me/private" in told["elsewhere"]
    marks = [i for i, path in enumerate(hub.requests) if path.startswith("/mark/")]
    first, online, second, end = marks
    assert online == first + 1
    assert end == second + 1

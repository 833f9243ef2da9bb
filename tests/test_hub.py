"""The hub through its real client, against a stand-in on 127.0.0.1.

`huggingface_hub` reads its settings once, when it is imported, so every conversation runs in a
process of its own; several names are asked for in one go to keep that cheap.
"""

import hashlib
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import save_file
from small import small

from rtdetr_lab.checkpoints.files import digest
from rtdetr_lab.checkpoints.hub import ALIASES, licence_in
from rtdetr_lab.checkpoints.metadata import Metadata
from rtdetr_lab.checkpoints.save import save_pretrained

ROOT = Path(__file__).resolve().parents[1]
MAIN, TAGGED = "a" * 40, "b" * 40
CARD = "---\nlanguage: en\nlicense: apache-2.0\ntags:\n- detection\n---\n# A model\n"

CLIENT = """
import json, sys, time
time.sleep = lambda seconds: None  # between the client's five attempts
from rtdetr_lab.checkpoints.load import load_pretrained
told = {}
for name, revision in json.load(sys.stdin):
    key = f"{name}@{revision}" if revision else name
    try:
        model = load_pretrained(name, revision)
        known = model.metadata
        told[key] = dict(source=known.source, revision=known.revision, licence=known.licence,
                         names=known.names, sha256=known.sha256)
    except Exception as error:
        told[key] = dict(error=type(error).__name__, says=str(error))
print(json.dumps(told))
"""


class Hub(ThreadingHTTPServer):
    """What the client needs of a hub: files of commits, and the errors of those it has not."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches = {"main": MAIN, "v1": TAGGED}
        self.requests: list[str] = []
        Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, repo: str, folder: Path, commit: str = MAIN, card: str | None = CARD) -> None:
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        if card is not None:
            files["README.md"] = card.encode()
        self.repos.setdefault(repo, {})[commit] = files


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.requests.append(self.path)
        repo, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        commits = self.server.repos.get(repo)
        if repo == "org/gated":
            return self.answer(403, {"X-Error-Code": "GatedRepo"})
        if repo == "org/broken":
            return self.answer(500, {})
        if commits is None:
            return self.answer(404, {"X-Error-Code": "RepoNotFound"})
        commit = self.server.branches.get(revision, revision)
        if commit not in commits:
            return self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        known = {"X-Repo-Commit": commit}
        if name not in commits[commit]:
            return self.answer(404, {**known, "X-Error-Code": "EntryNotFound"})
        data = commits[commit][name]
        tag = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return self.answer(200, {**known, "ETag": f'"{tag}"'}, data)

    def answer(self, status, headers, data=b""):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args):
        pass


def ask(home: Path, url: str, *names, **settings):
    """Load these (name, or name and revision) in a fresh process; what came of each."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    env |= {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    env |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    env |= {"HF_HUB_DOWNLOAD_TIMEOUT": "5", "HF_HUB_ETAG_TIMEOUT": "5", "NO_PROXY": "127.0.0.1"}
    asked = [(n, None) if isinstance(n, str) else n for n in names]
    done = subprocess.run(
        [sys.executable, "-c", CLIENT],
        input=json.dumps(asked),
        env=env | settings,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = small({"encoder.ccff.num_blocks": 3}, num_classes=2).build().eval()
    model.metadata = Metadata(names=("cat", "dog"), category_ids=(0, 1))
    return model


@pytest.fixture(scope="module")
def hub(model, tmp_path_factory):
    server, root = Hub(), tmp_path_factory.mktemp("hub")
    server.add("org/theirs", save_pretrained(model, root / "theirs", layout="transformers"))
    server.add("org/ours", save_pretrained(model, root / "ours"), card=None)
    other = small(num_classes=3).build()
    server.add("org/ours", save_pretrained(other, root / "other"), TAGGED, card=None)
    sharded = save_pretrained(model, root / "sharded")
    (sharded / "model.safetensors").unlink()
    shards = {"one.safetensors": {}, "two.safetensors": {}}
    for i, (name, tensor) in enumerate(model.state_dict().items()):
        shards[("one.safetensors", "two.safetensors")[i % 2]][name] = tensor.contiguous()
    for file, tensors in shards.items():
        save_file(tensors, sharded / file)
    weights = {name: file for file, tensors in shards.items() for name in tensors}
    index = json.dumps({"weight_map": weights})
    (sharded / "model.safetensors.index.json").write_text(index)
    server.add("org/sharded", sharded, card=None)
    (root / "empty").mkdir()
    (root / "empty" / "config.json").write_text('{"model_type": "rt_detr"}')
    server.add("org/empty", root / "empty")
    server.add(ALIASES["r18"], root / "theirs")
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def told(hub, home):
    """One long conversation, while the hub is up."""
    return ask(
        home, hub.url, "org/theirs", "org/ours", ("org/ours", "v1"), ("org/ours", TAGGED), "r18",
        "org/sharded", "org/nobody", ("org/ours", "v9"), "org/empty", "org/gated", "org/broken",
        "org/..",
    )  # fmt: skip


def test_a_repository_of_theirs_is_loaded_with_its_licence_and_commit(told, model):
    found = told["org/theirs"]
    assert found["names"] == ["cat", "dog"]
    assert found["licence"] == "apache-2.0"
    assert (found["source"], found["revision"]) == ("org/theirs", MAIN)


def test_a_repository_of_ours_is_loaded_too(told, model):
    assert told["org/ours"]["sha256"] == digest(model.state_dict())
    assert told["org/ours"]["licence"] is None


def test_a_revision_may_be_a_tag_or_a_commit(told):
    for name in ("org/ours@v1", f"org/ours@{TAGGED}"):
        assert told[name]["revision"] == TAGGED
        assert len(told[name]["names"]) == 3


def test_a_short_name_is_a_repository(told):
    assert told["r18"]["source"] == ALIASES["r18"]


def test_shards_are_all_fetched(told, model):
    assert told["org/sharded"]["sha256"] == digest(model.state_dict())


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("org/nobody", "HubError", "check the spelling"),
        ("org/ours@v9", "HubError", "no such revision"),
        ("org/empty", "HubError", "model.safetensors"),
        ("org/gated", "HubError", "accept it on its page"),
        ("org/broken", "HubError", "try again"),
        ("org/..", "HubError", "is no repository"),
    ],
)
def test_what_the_hub_does_not_have_is_said_in_one_line(told, name, error, says):
    assert told[name]["error"] == error
    assert says in told[name]["says"]
    assert name.partition("@")[0] in told[name]["says"]
    assert "\n" not in told[name]["says"]


def test_a_cached_commit_costs_no_request_and_a_branch_few(told, hub, home):
    before = len(hub.requests)
    again = ask(home, hub.url, ("org/ours", TAGGED))
    asked = [path for path in hub.requests[before:] if "README" not in path]
    assert again[f"org/ours@{TAGGED}"]["revision"] == TAGGED
    assert [p for p in asked if p.endswith((".safetensors", "/config.json"))] == []


def test_offline_the_cache_is_enough_and_what_it_lacks_is_named(told, hub, home):
    before = len(hub.requests)
    found = ask(home, hub.url, "org/theirs", "org/never", HF_HUB_OFFLINE="1")
    assert len(hub.requests) == before
    assert found["org/theirs"] == told["org/theirs"]
    assert found["org/never"]["error"] == "HubError"
    assert "HF_HUB_OFFLINE" in found["org/never"]["says"]


def test_with_the_hub_down_the_cache_is_enough(told, home):
    found = ask(home, "http://127.0.0.1:9", "org/theirs", ("org/ours", TAGGED), "org/never")
    assert found["org/theirs"] == told["org/theirs"]
    assert found[f"org/ours@{TAGGED}"]["revision"] == TAGGED
    assert "cannot be reached" in found["org/never"]["says"]


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (CARD, "apache-2.0"),
        ('---\nlicense: "mit"\n---\n', "mit"),
        ("# No front matter\nlicense: mit\n", None),
        ("---\ntags: []\n---\n", None),
        ("", None),
    ],
)
def test_the_licence_is_the_one_of_the_cards_front_matter(card, licence, tmp_path):
    (tmp_path / "README.md").write_text(card)
    assert licence_in(tmp_path) == licence

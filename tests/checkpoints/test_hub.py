"""The hub through its real client, against a stand-in on 127.0.0.1.

`huggingface_hub` reads its settings once, when it is imported, so every conversation runs in a
process of its own; several names are asked for in one go to keep that cheap.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_server import CARD, MAIN, TAGGED, Hub, client
from safetensors.torch import save_file
from small import small

from rtdetr_lab.checkpoints.files import digest
from rtdetr_lab.checkpoints.hub import ALIASES, PINS, Pin, licence_in, origin
from rtdetr_lab.checkpoints.metadata import Metadata
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.errors import ConfigError

CLIENT = """
import json, sys, time
time.sleep = lambda seconds: None  # between the client's five attempts
from rtdetr_lab.checkpoints.hub import PINS, Pin
from rtdetr_lab.checkpoints.load import load_pretrained
told, (asked, pins) = {}, json.load(sys.stdin)
PINS.update({name: Pin(*pin) for name, pin in pins.items()})
for name, revision in asked:
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


def ask(home: Path, url: str, *names, pins=(), **settings):
    """Load these (name, or name and revision) in a fresh process; what came of each."""
    env = client(home, url)
    asked = [(n, None) if isinstance(n, str) else n for n in names]
    done = subprocess.run(
        [sys.executable, "-c", CLIENT],
        input=json.dumps((asked, dict(pins))),
        env=env | settings,
        capture_output=True,
        text=True,
        timeout=900,
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
    other.metadata = Metadata(names=("ant", "bee", "cow"), category_ids=(0, 1, 2))
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
    for name in ("r34", "r50", "r101"):  # whose branch has moved on
        server.add(ALIASES[name], root / "theirs")
        server.add(ALIASES[name], root / "other", TAGGED)
        server.branches[ALIASES[name], "main"] = TAGGED
    for name in TROUBLE:
        server.add(f"org/{name}", root / "theirs")
        server.add(f"org/{name}", root / "other", TAGGED)
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
        ("org/..", "HubError", "is not a repository"),
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


# --- trouble on the way -------------------------------------------------------------------------

WEIGHTS, CONFIG, PIXELS = "model.safetensors", "config.json", "preprocessor_config.json"
TROUBLE = {
    "busy": (WEIGHTS, "busy", 3),
    "always-busy": (WEIGHTS, "busy", 99),
    "fails-once": (WEIGHTS, "fails", 1),
    "always-fails": (WEIGHTS, "fails", 99),
    "breaks-off": (WEIGHTS, "breaks off", 1),
    "too-short": (WEIGHTS, "short", 1),
    "always-short": (WEIGHTS, "short", 99),
    "moves": (CONFIG, "then moves", 1),
    "vanishes": (CONFIG, "then vanishes", 1),
    "no-pixels": (PIXELS, "fails", 99),
}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def troubled(hub, elsewhere):
    """One conversation with a hub that is not well, and with one that does not like our token."""
    for name, (file, kind, times) in TROUBLE.items():
        hub.trouble[f"org/{name}", file] = (kind, times)
    names = [*TROUBLE, "unwelcome"]
    return ask(elsewhere, hub.url, *(f"org/{name}" for name in names), HF_TOKEN="hf_wrong")


@pytest.mark.parametrize("name", ["busy", "fails-once", "breaks-off", "too-short"])
def test_what_passes_is_tried_again(troubled, told, name):
    assert troubled[f"org/{name}"]["sha256"] == told["org/theirs"]["sha256"]


@pytest.mark.parametrize(
    ("name", "file", "says"),
    [
        ("always-busy", WEIGHTS, "requested too often (429); wait some minutes"),
        ("always-fails", WEIGHTS, "the hub returns 500; try again"),
        ("always-short", WEIGHTS, "could not be downloaded"),
        ("vanishes", WEIGHTS, "has no such revision"),
        ("no-pixels", PIXELS, "the hub returns 500"),
        ("unwelcome", CONFIG, "is refused by the hub (401); check HF_TOKEN"),
    ],
)
def test_what_does_not_pass_names_repository_revision_and_file(troubled, name, file, says):
    revision = "main" if file == CONFIG else MAIN
    found = troubled[f"org/{name}"]
    assert found["error"] == "HubError"
    assert found["says"].startswith(f"org/{name}@{revision}/{file}: ")
    assert says in found["says"]


def test_a_branch_that_moves_meanwhile_does_not_mix_two_commits(troubled, told):
    found = troubled["org/moves"]
    assert found == {**told["org/theirs"], "source": "org/moves"}
    assert found["revision"] == MAIN


def test_no_half_file_stays_in_the_cache(troubled, told, hub, elsewhere):
    halves = [path for path in elsewhere.rglob("*") if path.name.endswith(".incomplete")]
    assert halves == []
    failed = ("org/always-busy", "org/always-fails", "org/always-short", "org/no-pixels")
    hub.trouble.clear()
    found = ask(elsewhere, hub.url, *failed)
    assert [found[name]["sha256"] for name in failed] == 4 * [told["org/theirs"]["sha256"]]


# --- pins ---------------------------------------------------------------------------------------


def test_a_pinned_name_is_one_commit_for_ever_and_its_digest_is_checked(told, hub, home):
    sha256 = told["org/theirs"]["sha256"]
    pins = {"r34": (MAIN, sha256), "r50": (MAIN, "0" * 64), "r101": ("c" * 40, sha256)}
    found = ask(home, hub.url, "r34", "r50", "r101", ("r50", "main"), pins=pins)
    assert found["r34"].get("error") is None, found["r34"]
    assert (found["r34"]["revision"], found["r34"]["sha256"]) == (MAIN, sha256)
    assert found["r50"]["error"] == "CheckpointError"
    assert found["r50"]["says"].startswith(f"{ALIASES['r50']}@{MAIN}/model.safetensors: ")
    assert sha256 in found["r50"]["says"]
    assert "0" * 64 in found["r50"]["says"]
    assert found["r101"]["error"] == "HubError"
    assert "has no such revision" in found["r101"]["says"]
    assert found["r50@main"]["revision"] == TAGGED, "another revision is asked for: no pin"


def test_verify_says_what_is_pinned_and_prints_what_could_be(monkeypatch):
    known = (MAIN, "0" * 64)
    *_, line = origin("r18", *known)
    assert "r18 is not verified yet" in line
    assert f'"r18": Pin("{MAIN}", "{"0" * 64}")' in line
    monkeypatch.setitem(PINS, "r18", Pin(MAIN, "0" * 64))
    assert origin("r18", *known)[-1] == "pinned: verified before"
    monkeypatch.setitem(PINS, "r18", Pin(TAGGED, "0" * 64))
    assert TAGGED in origin("r18", *known)[-1]
    assert origin("a/folder", None, "0" * 64) == [f"sha256 {'0' * 64}"]


@pytest.mark.parametrize("pin", [("main", "0" * 64), (MAIN, "0" * 40)])
def test_a_pin_is_a_commit_and_a_digest(pin):
    with pytest.raises(ConfigError, match="hex digits; copy it from"):
        Pin(*pin)


def test_every_pin_is_of_a_name_we_know():
    assert set(PINS) <= set(ALIASES)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (CARD, "apache-2.0"),
        ('---\nlicense: "mit"\n---\n', "mit"),
        ("---\nlicense: Apache 2.0, weights only  # ours\n---\n", "Apache 2.0, weights only"),
        ('---\nlicense: "Bob\'s \\"own\\" licence"  # ours\n---\n', 'Bob\'s "own" licence'),
        ('---\nlicense: "see https://x.org/l#terms"\n---\n', "see https://x.org/l#terms"),
        ("---\nlicense: see https://x.org/l#terms # ours\n---\n", "see https://x.org/l#terms"),
        ("---\nlicense: 'Bob''s # 2' # ours\n---\n", "Bob's # 2"),
        ("---\nlicense:\ntags: [a]\n---\n", None),
        ("---\nlicense: # none yet\ntags: [a]\n---\n", None),
        ("# No front matter\nlicense: mit\n", None),
        ("---\ntags: []\n---\n", None),
        ("", None),
    ],
)
def test_the_licence_is_the_one_of_the_cards_front_matter(card, licence, tmp_path):
    (tmp_path / "README.md").write_text(card)
    assert licence_in(tmp_path) == licence

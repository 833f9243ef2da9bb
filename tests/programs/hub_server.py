"""A stand-in for the hub on 127.0.0.1, to which the real client talks: reading, and pushing.

Repositories are commits, commits are files. A repository whose name ends in `private` answers only
to whoever shows `TOKEN`; who showed what is in `tokens`. `trouble` is what befalls the next
requests for a file of a repository.
"""

import base64
import hashlib
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

from paths import ROOT

MAIN, TAGGED = "a" * 40, "b" * 40
TOKEN = "hf_of_the_tests"
CARD = "---\nlanguage: en\nlicense: apache-2.0\ntags:\n- detection\n---\n# A model\n"


def client(home, url: str) -> dict[str, str]:
    """The environment of a process whose hub is this one."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    env |= {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    env |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    return env | {
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
        "HF_HUB_ETAG_TIMEOUT": "5",
        "NO_PROXY": "127.0.0.1",
    }


class Hub(ThreadingHTTPServer):
    """What the client needs of a hub: files of commits, and the errors of those it has not."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches: dict[str | tuple[str, str], str] = {"main": MAIN, "v1": TAGGED}
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.uploads: dict[str, bytes] = {}
        self.extra: dict[str, bytes] = {}
        self.trouble: dict[tuple[str, str], tuple[str, int]] = {}
        Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, repo: str, folder: Path, commit: str = MAIN, card: str | None = CARD) -> None:
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        if card is not None:
            files["README.md"] = card.encode()
        self.repos.setdefault(repo, {})[commit] = files

    def head(self, repo: str, revision: str) -> str:
        """The commit a branch or a tag of a repository stands for; a commit for itself."""
        pushed = self.branches.get((repo, revision))
        return pushed or self.branches.get(revision, revision)

    def befalls(self, repo: str, name: str) -> str | None:
        """What goes wrong with this request; every trouble is met so many times."""
        kind, left = self.trouble.get((repo, name), ("", 0))
        self.trouble[repo, name] = (kind, left - 1)
        return kind if left > 0 else None

    def commit(self, repo: str, branch: str, lines: list[dict]) -> str:
        """A new commit on a branch: the files before it, and those of the request."""
        commits = self.repos[repo]
        files = dict(commits.get(self.head(repo, branch), {}))
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                files[value["path"]] = self.uploads[value["oid"]]
        oid = hashlib.sha1(json.dumps(lines).encode()).hexdigest()
        commits[oid] = files
        self.branches[repo, branch] = oid
        return oid


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.requests.append(self.path)
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.path in self.server.extra:
            return self.answer(200, {}, self.server.extra[self.path])
        if self.path.startswith("/api/models/"):
            return self.describe(unquote(self.path.removeprefix("/api/models/")))
        repo, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, name = unquote(rest).partition("/")
        commits = self.server.repos.get(repo)
        if repo == "org/gated":
            return self.answer(403, {"X-Error-Code": "GatedRepo"})
        if repo == "org/broken":
            return self.answer(500, {})
        if repo == "org/unwelcome":
            refused = "Invalid credentials in Authorization header"
            return self.answer(401, {"X-Error-Message": refused})
        if commits is None or not self.may_see(repo):
            return self.answer(404, {"X-Error-Code": "RepoNotFound"})
        commit = self.server.head(repo, revision)
        if commit not in commits:
            return self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        known = {"X-Repo-Commit": commit}
        if name not in commits[commit]:
            return self.answer(404, {**known, "X-Error-Code": "EntryNotFound"})
        data = commits[commit][name]
        tag = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        if self.command == "GET" and (kind := self.server.befalls(repo, name)):
            return self.troubled(kind, repo, {**known, "ETag": f'"{tag}"'}, data)
        return self.answer(200, {**known, "ETag": f'"{tag}"'}, data)

    def troubled(self, kind, repo, headers, data):
        """A body that is too short, or breaks off; a busy hub, a failing one, a moving branch."""
        if kind == "short":
            return self.answer(200, headers, data[: len(data) // 2])
        if kind == "breaks off":
            self.close_connection = True
            return self.answer(200, headers, data, part=len(data) // 2)
        if kind in ("busy", "fails"):
            return self.answer(429 if kind == "busy" else 500, {"Retry-After": "0"})
        self.answer(200, headers, data)
        if kind == "then moves":
            self.server.branches[repo, "main"] = TAGGED
        if kind == "then vanishes":
            del self.server.repos[repo][MAIN]

    def may_see(self, repo):
        shown = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        return shown or not repo.endswith("private")

    def describe(self, rest):
        repo, _, revision = rest.partition("/revision/")
        commits = self.server.repos.get(repo)
        if commits is None or not self.may_see(repo):
            return self.answer(404, {"X-Error-Code": "RepoNotFound"})
        commit = self.server.head(repo, revision or "main")
        files = [{"rfilename": name} for name in commits.get(commit, {})]
        known = {"id": repo, "sha": commit, "siblings": files, "private": False, "tags": []}
        return self.told(known)

    def do_POST(self):
        self.server.requests.append(self.path)
        self.server.tokens.add(self.headers.get("Authorization"))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, url = self.path, self.server.url
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {})
        if path == "/api/repos/create":
            told = json.loads(body)
            repo = f"{told.get('organization') or 'me'}/{told['name']}"
            self.server.repos.setdefault(repo, {})
            return self.told({"url": f"{url}/{repo}"})
        if path == "/api/validate-yaml":
            return self.told({"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            return self.told({"transfer": "basic", "objects": self.places(json.loads(body))})
        repo, _, rest = path.removeprefix("/api/models/").partition("/preupload/")
        if rest:
            return self.told({"files": [_mode(one["path"]) for one in json.loads(body)["files"]]})
        repo, _, branch = path.removeprefix("/api/models/").partition("/branch/")
        if branch:
            # A branch begins where main is.
            self.server.branches[repo, unquote(branch)] = self.server.head(repo, "main")
            return self.told({})
        repo, _, branch = path.removeprefix("/api/models/").partition("/commit/")
        lines = [json.loads(line) for line in body.splitlines()]
        oid = self.server.commit(repo, unquote(branch), lines)
        done = {"commitUrl": f"{url}/{repo}/commit/{oid}", "commitOid": oid, "success": True}
        return self.told(done)

    def do_PUT(self):
        oid = self.path.removeprefix("/upload/")
        self.server.uploads[oid] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, {})

    def places(self, told):
        href = f"{self.server.url}/upload/"
        return [
            {**one, "actions": {"upload": {"href": href + one["oid"]}}} for one in told["objects"]
        ]

    def told(self, tree):
        self.answer(200, {"Content-Type": "application/json"}, json.dumps(tree).encode())

    def answer(self, status, headers, data=b"", part=None):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:part])

    def log_message(self, *args):
        pass


def _mode(path):
    mode = "lfs" if path.endswith(".safetensors") else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False}

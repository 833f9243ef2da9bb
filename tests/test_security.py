"""What SECURITY.md promises and no other test holds: whatever serves, serves this machine alone.

That nothing runs code out of a file is in `test_house_style.py`; the page's policy in
`viz/test_explorer.py`; files that mean harm in the campaign (`test_campaign.py`).
"""

import ast

import pytest
from paths import ROOT

FOLDERS = ("rtdetr_lab", "notebooks", "docs/hooks", "tests")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
SERVERS = {"HTTPServer", "ThreadingHTTPServer", "TCPServer", "ThreadingTCPServer", "bind"}
SERVERS |= {"make_server", "create_server", "start_server", "run_simple", "serve"}
EVERYBODY = {"0.0" + ".0.0", 2 * ":", "--ip=" + "*"}


def open_to_others(source):
    """Servers that do not say 127.0.0.1, and addresses that mean everybody."""
    tree, found = ast.parse(source), []
    classes = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    kin = {n.name for n in classes if SERVERS & {ast.unparse(b).split(".")[-1] for b in n.bases}}
    inits = [f for n in classes if n.name in kin for f in ast.walk(n) if _is_init(f)]
    at_home = all("127.0.0.1" in ast.unparse(f) for f in inits) and bool(inits)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in EVERYBODY:
            found.append(f"line {node.lineno}: {node.value}")
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).split(".")[-1]
        elsewhere = name in SERVERS or (name in kin and not at_home)
        if elsewhere and "127.0.0.1" not in ast.unparse(node):
            found.append(f"line {node.lineno}: {ast.unparse(node.func)}")
    return found


def _is_init(node):
    return isinstance(node, ast.FunctionDef) and node.name == "__init__"


@pytest.mark.parametrize("folder", FOLDERS)
def test_whatever_serves_binds_to_this_machine_only(folder):
    checked = [path for path in SOURCES if path.is_relative_to(ROOT / folder)]
    assert checked
    for path in checked:
        assert open_to_others(path.read_text(encoding="utf8")) == [], path


@pytest.mark.parametrize(
    "source",
    [
        "from http.server import HTTPServer\nHTTPServer(('', 80), Handler)",
        "import socket\nsocket.socket().bind(('', 80))",
        f"host = '{'0.0' + '.0.0'}'",
        "class Own(TCPServer): pass\nOwn(('', 80), Handler)",
    ],
)
def test_a_server_for_everybody_would_be_found(source):
    assert len(open_to_others(source)) == 1


def test_a_server_for_this_machine_is_none():
    assert open_to_others("HTTPServer(('127.0.0.1', 0), Handler)") == []

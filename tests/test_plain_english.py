"""The part of CONTRIBUTING's second rule that a machine can check, each with an example it catches.

It cannot tell plain English from other English. A reader can, and reviews are for that.
"""

import ast
import re

import pytest
from paths import ROOT

WORDS = {
    r"\bshall\b": "The decoder shall turn boxes.",
    r"\b(whose every|none of whose|all of whose)\b": "A mask whose every pixel is off is empty.",
    r"\b([Ww]ho wants|[Ww]hoever|[Hh]e who|[Ff]or whom)\b": "Who wants less takes fewer queries.",
    r"\b[Ss]o many\b": "Groups are added until there are so many.",
    r"\b([Nn]obody|[Ss]omebody|[Ee]verybody|[Nn]o one)\b": "A token nobody attends to is dropped.",
    r"\b(learnt|spoilt|burnt)\b": "The queries are learnt.",
    r"\bby heart\b": "The model knows the batch by heart.",
    r"\b(for ever|thereof|wherein|therein|thence|whence|hence)\b": "The memory grows for ever.",
    r"\b(it is to be|are to be|is to be|be it)\b": "The file is to be read once.",
    r"\bhowever (many|large|deep|small|few|long)\b": "It is sorted, however many there are.",
    r"^\W*(Counted|Measured|Compared|Kept|Asked|Told|Judged) (is|are)\b": "Counted is the peak.",
    r"\bnot one of\b": "It is not one of them.",
    r"\b(sees|see) to it\b": "The loader sees to it.",
}
"""Patterns, and a sentence that each must catch."""

STRANGE = re.compile("|".join(WORDS))

ORPHAN = re.compile(r"(Of|The same|What|As|Who|Whose|Whom|How|By how|Whether)\b")
"""A docstring that begins like this has no verb and no noun of its own."""

PAGES = [ROOT / f for f in ("README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md")]
PAGES += sorted(ROOT.glob("docs/**/*.md")) + sorted(ROOT.glob("notebooks/*.py"))
CODE = sorted(ROOT.glob("rtdetr_lab/**/*.py")) + sorted(ROOT.glob("docs/hooks/*.py"))
SCRIPTS = sorted(ROOT.glob("rtdetr_lab/**/*.js"))


def name(path):
    return path.relative_to(ROOT).as_posix()


def strange_words(text: str) -> list[str]:
    """Lines with a word of the list. In *italics* a word is quoted, as in the rule itself."""
    lines = [re.sub(r"\*[^*]+\*", "", line) for line in text.splitlines()]
    numbered = enumerate(lines, 1)
    return [f"{n}: {line.strip()}" for n, line in numbered if STRANGE.search(line)]


def orphans(source: str) -> list[str]:
    """Docstrings that begin with a word of `ORPHAN`."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module
    nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, kinds)]
    texts = [ast.get_docstring(n) or "" for n in nodes]
    return [text.splitlines()[0] for text in texts if ORPHAN.match(text)]


@pytest.mark.parametrize("path", PAGES + CODE + SCRIPTS, ids=name)
def test_the_words_are_plain(path):
    assert strange_words(path.read_text(encoding="utf8")) == []


@pytest.mark.parametrize("path", CODE, ids=name)
def test_a_docstring_begins_with_a_verb_or_a_noun(path):
    assert orphans(path.read_text(encoding="utf8")) == []


@pytest.mark.parametrize("word", WORDS)
def test_every_word_catches_its_example(word):
    assert strange_words(WORDS[word]) == [f"1: {WORDS[word]}"]
    assert re.search(word, WORDS[word])


def test_a_word_can_be_quoted_and_an_orphan_is_found():
    assert strange_words("No *shall*, and *learned*, not *learnt*.") == []
    assert orphans('def f():\n    """Of every query, its score."""') == [
        "Of every query, its score."
    ]
    assert orphans('def f():\n    """Offset of a query."""') == []

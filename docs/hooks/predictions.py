"""Predict cells: the page asks, the reader chooses, and then the output opens.

The hook puts the choices behind each question of a notebook; `assets/site.js` makes them answers
and folds what follows. Without scripts the page is complete. A notebook whose questions have no
choices in `choices.json` asks for a line of text.
"""

import html
import json
import re
from functools import cache
from pathlib import Path

QUESTION = re.compile(r"<p>(?:(?!</p>).)*<strong>Predict\b.*?</p>", re.S)


@cache
def choices() -> dict[str, list[list[str]]]:
    """For every notebook the choices of its questions, in the order of the page."""
    return json.loads((Path(__file__).parent / "choices.json").read_text(encoding="utf8"))


def with_choices(page: str, stem: str) -> str:
    """The page with the choices of each question behind it."""
    known = choices().get(stem, [])
    questions = QUESTION.findall(page)
    if len(known) != len(questions):
        known = [[]] * len(questions)
    left = iter(known)

    def asked(found: re.Match[str]) -> str:
        answers = html.escape(json.dumps(next(left)))
        return f'{found.group()}\n<div class="predict" data-choices="{answers}"></div>'

    return QUESTION.sub(asked, page)

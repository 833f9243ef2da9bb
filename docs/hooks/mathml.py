"""TeX to MathML while the site is built: no script, no font and no request when it is read.

Browsers draw MathML themselves. What arithmatex has marked as TeX is replaced; `\\tag{09.1}`
becomes a number beside the equation, which is also its address (`#eq-09-1`).
"""

import html
import re
import unicodedata
from collections.abc import Iterator
from xml.etree import ElementTree

from latex2mathml.converter import convert

INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.S)
DISPLAY = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.S)
TAG = re.compile(r"\\tag\{([\d.]+)\}")
UNKNOWN = re.compile(r"\\[a-zA-Z]+")
OPERATOR = re.compile(r"\\operatorname\*?\{((?:[^{}]|\{[^{}]*\})*)\}")
NAMES = re.compile(r'(?:<mi mathvariant="normal">[^<]</mi>){2,}')
LETTER = re.compile(r'<mi mathvariant="([\w-]+)">([A-Za-z])</mi>')
LIMIT = re.compile(r"<msub>(<mo>(?:max|min|lim)</mo>)((?:(?!<msub>).)*?)</msub>", re.S)
MATHML = "http://www.w3.org/1998/Math/MathML"
BREAKS = set("=≤≥<>≈∈→←↦∼≡+−-⋅·⊕")
"""Operators before which a display equation may go on in a new line."""
ElementTree.register_namespace("", MATHML)
ALPHABETS = {"script": "SCRIPT", "double-struck": "DOUBLE-STRUCK", "bold": "BOLD"}


def with_mathml(page: str) -> str:
    """The page with all its TeX as MathML. Raises `ValueError` for TeX that would stay TeX."""
    named: set[str] = set()
    page = DISPLAY.sub(lambda m: _equation(html.unescape(m.group(1)), named), page)
    return INLINE.sub(lambda m: mathml(html.unescape(m.group(1)), "inline"), page)


def mathml(tex: str, display: str) -> str:
    """One formula. What the converter leaves to fonts and styles is said in characters."""
    tex = tex.replace(r"\arg\min", r"\operatorname{arg min}")
    tex = OPERATOR.sub(lambda m: r"\text{" + _plain(m.group(1)) + "}", tex)
    made = convert(" ".join(tex.split()), display=display)
    made = NAMES.sub(lambda m: f"<mi>{re.sub('<[^>]*>', '', m.group())}</mi>", made)
    made = LETTER.sub(lambda m: f"<mi>{_letter(m.group(2), m.group(1))}</mi>", made)
    made = made.replace("<mo>&#x0005E;</mo></mover>", "<mo>&#x002C6;</mo></mover>")
    if display == "block":
        made = LIMIT.sub(r"<munder>\1\2</munder>", made)
    if left := UNKNOWN.findall(made):
        raise ValueError(f"no MathML for {', '.join(left)} in {tex.strip()}")
    return made


def _plain(name: str) -> str:
    return re.sub(r"\\text|\\,|[{}]", "", name)


def _letter(letter: str, style: str) -> str:
    """Browsers know the letter 𝒫, and not the attribute that asks for it."""
    if style not in ALPHABETS:
        return letter
    size = "CAPITAL" if letter.isupper() else "SMALL"
    name = f"{ALPHABETS[style]} {size} {letter.upper()}"
    for whole in (f"MATHEMATICAL {name}", name):
        try:
            return unicodedata.lookup(whole)
        except KeyError:
            continue
    return letter


def in_pieces(made: str) -> str:
    """Divide a formula where it may go on in a new line: after wide spaces, before operators.

    Browsers do not break MathML. Every piece is a formula of its own; style sheets wrap them.
    """
    statements: list[list[list[ElementTree.Element]]] = [[[]]]
    depth = 0
    for child in _flat(ElementTree.fromstring(made)[0]):
        said = "".join(child.itertext()).strip()
        if said in BREAKS and depth <= 1 and statements[-1][-1]:
            child.set("form", "infix")  # also at the beginning of a piece
            statements[-1].append([])
        statements[-1][-1].append(child)
        depth += (said in {"(", "[", "{"}) - (said in {")", "]", "}"})
        if child.get("width", "").startswith(("1", "2")) and depth == 0:  # \\quad, \\qquad
            statements.append([[]])
    return "".join(f"<span>{''.join(map(_formula, filter(None, s)))}</span>" for s in statements)


def _formula(parts: list[ElementTree.Element]) -> str:
    formula = ElementTree.Element(f"{{{MATHML}}}math", display="block")
    ElementTree.SubElement(formula, f"{{{MATHML}}}mrow").extend(parts)
    return ElementTree.tostring(formula, encoding="unicode")


def _flat(row: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The parts of a row, and of the rows inside it that only group."""
    for child in row:
        if child.tag.endswith("}mrow"):
            yield from _flat(child)
        else:
            yield child


def _equation(tex: str, named: set[str]) -> str:
    tag = TAG.search(tex)
    made = f'<span class="lines">{in_pieces(mathml(TAG.sub("", tex), "block"))}</span>'
    if tag is None:
        return f'<div class="equation" tabindex="0">{made}</div>'
    address = f"eq-{tag.group(1).replace('.', '-')}"
    own = f' id="{address}"' if address not in named else ""
    named.add(address)
    number = f'<a class="equation-number" href="#{address}">({tag.group(1)})</a>'
    return f'<div class="equation"{own} tabindex="0">{made}{number}</div>'

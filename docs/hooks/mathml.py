"""TeX to MathML while the site is built: no script, no font and no request when it is read.

Browsers draw MathML themselves. What arithmatex has marked as TeX is replaced; `\\tag{09.1}`
becomes a number beside the equation, which is also its address (`#eq-09-1`).
"""

import html
import re
import unicodedata

from latex2mathml.converter import convert

INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.S)
DISPLAY = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.S)
TAG = re.compile(r"\\tag\{([\d.]+)\}")
UNKNOWN = re.compile(r"\\[a-zA-Z]+")
OPERATOR = re.compile(r"\\operatorname\*?\{((?:[^{}]|\{[^{}]*\})*)\}")
NAMES = re.compile(r'(?:<mi mathvariant="normal">[^<]</mi>){2,}')
LETTER = re.compile(r'<mi mathvariant="([\w-]+)">([A-Za-z])</mi>')
LIMIT = re.compile(r"<msub>(<mo>(?:max|min|lim)</mo>)((?:(?!<msub>).)*?)</msub>", re.S)
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


def _equation(tex: str, named: set[str]) -> str:
    tag = TAG.search(tex)
    made = mathml(TAG.sub("", tex), "block")
    if tag is None:
        return f'<div class="equation" tabindex="0">{made}</div>'
    address = f"eq-{tag.group(1).replace('.', '-')}"
    own = f' id="{address}"' if address not in named else ""
    named.add(address)
    number = f'<a class="equation-number" href="#{address}">({tag.group(1)})</a>'
    return f'<div class="equation"{own} tabindex="0">{made}{number}</div>'

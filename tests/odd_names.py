"""Names as they come from outside, and what a page made of them must not hold."""

from html.parser import HTMLParser

ODD = (
    "<script>alert(1)</script>",
    "![a](javascript:alert(1)) [b](javascript:alert(2))",
    "a|b\\|c",
    "`code` *bold* _lean_ ~~gone~~",
    "two\nlines\r\nof # text",
    "\x1b[31mred\x07\x9b2J",
    "\udc80 half a pair \ud83d",
    "n" * 250,
    "$\\frac{1}$ and $x$",
    '_hidden" onerror="alert(3)" {onclick=alert(4)}',
)
"""Ten names, for the ten classes of `nano`."""


class Page(HTMLParser):
    """Elements, dangerous attributes and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.wrong, self.text = set(), [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        for name, value in attributes:
            leads = name in ("href", "src") and "script:" in (value or "").lower()
            if leads or name.startswith("on"):
                self.wrong.append((tag, name, value))

    def handle_data(self, data):
        self.text += data


def pages(markdown):
    """The Markdown as two programs show it, HTML and all: CommonMark's, and the site's."""
    from markdown_it import MarkdownIt

    made = [MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)]
    try:
        from markdown import markdown as site
    except ImportError:  # comes with the extra [docs]
        return [Page(html) for html in made]
    return [Page(html) for html in (*made, site(markdown, extensions=["tables", "attr_list"]))]

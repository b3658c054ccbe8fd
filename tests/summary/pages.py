"""A page as a program reads it."""

import base64
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input"}


@dataclass
class Page(HTMLParser):
    """Its parts.

    Attributes:
        tags: with their attributes, in order.
        headings: (level, text).
        tables: by the chapter and the caption, rows of cells, the first one the heads.
        text: all that is shown.
    """

    html: str
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    headings: list[tuple[int, str]] = field(default_factory=list)
    tables: dict[tuple[str, str], list[list[str]]] = field(default_factory=dict)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(self.html)
        self.close()
        assert self._open == [], "elements that are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        if tag == "table":
            self._rows, self._caption = [], ""
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "table":
            [*_, chapter] = (text for level, text in self.headings if level == 2)
            assert (chapter, self._caption) not in self.tables, f"two tables are called {self._caption}"
            self.tables[chapter, self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if "caption" in self._open:
            self._caption += data
        elif {"td", "th"} & {*self._open}:
            self._rows[-1][-1] += data
        elif self._open and re.fullmatch("h[1-6]", self._open[-1]):
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of the elements of a tag."""
        return [attributes for name, attributes in self.tags if name == tag]

    def pictures(self) -> list[tuple[str, bytes]]:
        """The kind and the content of every picture."""
        found = [re.fullmatch(r"data:image/([\w+]+);base64,(.*)", image["src"], re.DOTALL) for image in self.all("img")]
        assert all(found), "a picture that is not in the page"
        return [(one[1], base64.b64decode(one[2])) for one in found if one]

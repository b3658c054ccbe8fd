"""HTML from elements, which escape their texts and attributes: nothing on the page is put together as a string."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence

Element = ElementTree.Element
Child = Element | str | None

# Nothing may be fetched, whatever the page contains; pictures are in it.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --soft: #565e68; --ground: #ffffff; --panel: #f3f5f7;
  --line: #c9d0d8; --link: #14538f; --mark: #8a4b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ed; --soft: #a7b0bb; --ground: #14171b; --panel: #1e2329;
  --line: #3c444e; --link: #8cc4ff; --mark: #f0b35c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1.25rem 4rem; max-width: 78rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { line-height: 1.2; } h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); } h3 { margin-top: 2rem; }
a { color: var(--link); } :focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.soft, figcaption, caption { color: var(--soft); } caption { text-align: left; padding: .25rem 0; }
.notice { border-left: .3rem solid var(--mark); background: var(--panel); padding: .5rem 1rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: .75rem 0; font-size: .925rem; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
th { font-weight: 600; } tbody th { font-weight: 400; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: 1rem; }
figure { margin: 0; min-width: 0; } figure img { max-width: 100%; height: auto; display: block; }
img.paper { background: #ffffff; }
img.film { width: 100%; max-width: 24rem; }
pre, code { font-size: .875rem; overflow-wrap: anywhere; white-space: pre-wrap; }
summary { cursor: pointer; color: var(--link); } details { margin: .5rem 0; }
dt { font-weight: 600; margin-top: .4rem; } dd { margin: 0; white-space: pre-wrap; }
""".strip()


def element(tag: str, *children: Child, **attributes: str) -> Element:
    """An element; `class_` and the like stand for attributes whose names are words of Python. None adds nothing."""
    out = Element(tag, {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()})
    for child in children:
        if child is None:
            continue
        if not isinstance(child, str):
            out.append(child)
        elif len(out):
            out[-1].tail = (out[-1].tail or "") + child
        else:
            out.text = (out.text or "") + child
    return out


def items(children: Iterable[Child]) -> Element:
    """A list."""
    return element("ul", *(element("li", child) for child in children))


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Child]], numbers: Sequence[int] = ()) -> Element:
    """A table, whose first column names its rows; the columns `numbers` are aligned to the right."""

    def cell(column: int, child: Child, *, of_head: bool) -> Element:
        attributes = {"class_": "number"} if column in numbers else {}
        if of_head:
            return element("th", child, scope="col", **attributes)
        return element("td", child, **attributes) if column else element("th", child, scope="row")

    def row(children: Sequence[Child], *, of_head: bool = False) -> Element:
        return element("tr", *(cell(column, child, of_head=of_head) for column, child in enumerate(children)))

    body = element("tbody", *(row(children) for children in rows))
    content = element("table", element("caption", caption), element("thead", row(head, of_head=True)), body)
    # A wide table scrolls by itself, also by keyboard.
    return element("div", content, class_="scroll", tabindex="0", role="group", aria_label=caption)


def more(title: str, *children: Child) -> Element:
    """What is shown when its title is chosen."""
    return element("details", element("summary", title), *children)


def page(title: str, *body: Child) -> str:
    """The whole document."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", STYLE),
    )
    document = element("html", head, element("body", *body), lang="en")
    return f"<!doctype html>\n{ElementTree.tostring(document, encoding='unicode', method='html')}\n"

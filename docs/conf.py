"""The documentation as a site: `sphinx-build -W --keep-going -b html docs OUT`, after `pip install -e '.[docs]'`.

The pages are Markdown that reads well on GitHub too, so links go from file to file and anchors are `<a id="...">`; what
Sphinx does not know of this is taught to it here. Nothing is fetched, when the site is built or when it is read.
"""

import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.transforms import Transform
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]

project = "medvill_jax"
author = "the medvill_jax contributors"
release = runpy.run_path(str(ROOT / "medvill_jax" / "version.py"))["VERSION"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "sphinx_book_theme"
html_title = "medvill_jax"
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "use_download_button": False,
    "navbar_persistent": [],  # or there are two fields to search
}
html_context = {"default_mode": "auto"}
html_favicon = str(ROOT / "medvill_jax" / "web" / "static" / "icon.svg")
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_copy_source = False

# The slugs of headings are GitHub's.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# Every build runs the notebooks, in a folder that is deleted. One that fails is a warning with its traceback: -W fails.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_show_tb = True
nb_execution_timeout = 900
nb_merge_streams = True
nb_output_stderr = "remove"
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # the programs that they run
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# A docstring's `x` is code, as in Markdown, and its "x" may be a value.
default_role = "code"
smartquotes = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
# One entry may be of several arguments or attributes, "params, stats: nested dicts of arrays".
napoleon_use_param = False
napoleon_custom_sections = [("Attributes", "params_style")]

# Pages outside of this folder, and the pages here that include them.
INCLUDED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def from_here(app: Sphinx, page: str, content: list[str]) -> None:
    """Links of a page to what lies above this folder."""
    for name, here in INCLUDED.items():
        content[0] = content[0].replace(f"](../{name}", f"]({here}")


def from_above(app: Sphinx, file: Path, page: str, content: list[str]) -> None:
    """Links of a page above this folder, which is included here."""
    text = content[0].replace("](docs/", "](").replace("](LICENSE)", "](../LICENSE)")
    for name, here in INCLUDED.items():
        text = text.replace(f"]({name}", f"]({here}")
    content[0] = text


class Anchors(Transform):
    """Lets links lead to `<a id="...">`, within a page and from others, as they lead to headings."""

    # Before MyST resolves links within the page.
    default_priority = 870

    def apply(self, **_: Any) -> None:
        slugs = getattr(self.document, "myst_slugs", None)
        for raw in self.document.findall(nodes.raw) if slugs is not None else ():
            for name in re.findall(r'<a id="([^"]+)">', raw.astext()):
                slugs[name] = (raw.line or 0, name, name)


def as_rst(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """What docstrings write as Markdown does: names in the plural, places in the documentation, indented blocks."""
    for number, line in enumerate(lines):
        line = re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", line)
        lines[number] = re.sub(r"\bdocs/(\w+)\.md#([\w-]+)", r"`\1.md#\2 <\1.html#\2>`__", line)
    if what == "module":
        opened = [n for n, line in enumerate(lines) if line.startswith("    ") and not lines[n - 1].strip()]
        for number in reversed(opened):
            lines[number:number] = ["::", ""]


def without_addresses(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """A default like `<factory>` or `<function ...>` is no Python, and hides from Sphinx what the types are."""
    return signature and re.sub(r"<[^<>]*>", "...", signature), returns


def setup(app: Sphinx) -> None:
    """Registers what is above."""
    app.connect("source-read", from_here)
    app.connect("include-read", from_above)
    app.connect("autodoc-process-docstring", as_rst)
    app.connect("autodoc-process-signature", without_addresses)
    app.add_transform(Anchors)

"""The table of sources, and values of their columns in our terms."""

from urllib.parse import urlparse

import pytest

from data_prep import sources
from data_prep.sources import table, values
from medvill_jax.data.records import DataError
from tests.test_architecture import ROOT

# Who publishes a source, and where: only their pages are citations.
OFFICIAL = {
    "nihcc.app.box.com", "aimi.stanford.edu", "github.com", "bimcv.cipf.es", "huggingface.co", "physionet.org",
    "vindr.ai", "arxiv.org",
}  # fmt: skip


def test_every_entry_has_a_module_and_official_pages() -> None:
    for name, source in table.sources().items():
        module = sources.module(name)
        assert name == source.name == module.NAME
        assert module.HELP.strip()
        assert source.licence
        for page in (source.page, *(field.cited for field in source.fields.values() if field.cited)):
            assert urlparse(page).scheme == "https", (name, page)
            assert urlparse(page).netloc in OFFICIAL, (name, page)


def test_the_documentation_names_every_source() -> None:
    page = (ROOT / "docs" / "data.md").read_text("utf-8")
    for name, source in table.sources().items():
        consent = " --accept_unverified" if source.unverified else ""
        assert f"| `{name}` | [{source.title}]({source.page})" in page
        assert f"python -m data_prep phantom --layout={name} --out=TREE --studies=40\n" in page
        assert f"python -m data_prep {name} --source=TREE --out=DATA{consent}" in page


def test_every_module_has_an_entry() -> None:
    folder = table.TABLE_FILE.parent
    modules = {path.stem for path in folder.glob("*.py") if "\ndef prepare(" in path.read_text("utf-8")}
    assert modules == table.sources().keys()


def test_a_source_with_official_names_needs_no_consent() -> None:
    assert table.accepted("padchest", accept_unverified=False).unverified == ()
    with pytest.raises(DataError, match=r"'Image Index'.*--accept_unverified"):
        table.accepted("nih_cxr14", accept_unverified=False)


@pytest.mark.parametrize(
    ("cell", "years"),
    [("58", "58"), ("058Y", "58"), ("63.0", "63"), ("006M", "0"), ("414", ""), ("", ""), ("old", ""), ("-1", "")],
)
def test_ages_are_whole_years(cell: str, years: str) -> None:
    assert values.age(cell) == years


def test_sexes_views_and_splits() -> None:
    assert [values.sex(cell) for cell in ("M", "Female", "O", "")] == ["M", "F", "", ""]
    assert [values.view(cell) for cell in ("pa", "POSTERO_ANTERIOR", "Lateral", "")] == ["PA", "PA", "LATERAL", ""]
    assert [values.split(cell) for cell in ("valid", "Train", "other")] == ["validation", "train", ""]

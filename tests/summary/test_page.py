"""The page: its numbers are those of the files, it fetches nothing, everybody can read it, and it keeps secrets."""

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from configs import pretrain
from medvill_jax.data import records
from medvill_jax.metrics import compare
from medvill_jax.metrics.predictions import read as read_predictions
from medvill_jax.summary import settings
from medvill_jax.summary.page import page
from medvill_jax.summary.runs import SummaryError
from medvill_jax.training import history
from tests.conftest import PHANTOM
from tests.summary import workdirs
from tests.summary.pages import Page

GOLDEN_DATA = Path(__file__).parents[1] / "golden" / "data"
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def demo(phantom_run: Path) -> Page:
    """Of the demo's run."""
    return Page(page(workdirs.read(phantom_run)))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Of runs of five tasks, two of each."""
    folder = tmp_path_factory.mktemp("runs")
    made = [workdirs.findings(folder / f"findings{seed}", seed=seed) for seed in (0, 1)]
    made += [workdirs.reports(folder / f"reports{seed}", seed=seed, right=0.5) for seed in (0, 1)]
    made += [workdirs.questions(folder / f"questions{seed}", seed=seed) for seed in (0, 1)]
    made += [workdirs.ranks(folder / f"ranks{seed}", seed=seed) for seed in (0, 1)]
    made += [workdirs.words(folder / f"words{seed}", seed=seed) for seed in (0, 1)]
    return Page(page(workdirs.read(*made)))


def shown(value: float | None) -> str:
    """A number of the page."""
    if value is None:
        return "undefined"
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 10 else f"{value:.4g}"


def test_the_metrics_of_the_demo_are_those_of_its_file(demo: Page, phantom_run: Path) -> None:
    written = history.read(phantom_run / "metrics.jsonl")[-1]
    chapter = f"Run {phantom_run.name}"
    rows = demo.tables[chapter, "While training, at step 8"][1:]
    counts = demo.tables[chapter, "While training, at step 8: counts"][1:]
    values = {name: value for name, value, *_ in rows + counts}
    baselines = {"eval/mlm_loss_shuffled_images", "eval/mlm_loss_unigram", "eval/mlm_accuracy_unigram"}
    assert values == {name: shown(written[name]) for name in written if name != "step" and name not in baselines}
    beside = {name: baseline for name, _, _, baseline in rows}
    shuffled, unigram = (shown(written[f"eval/mlm_loss_{name}"]) for name in ("shuffled_images", "unigram"))
    assert beside["eval/mlm_loss"] == f"another study's film {shuffled}; word frequencies {unigram}"
    assert beside["eval/itm_accuracy"] == "chance 0.5"


def test_the_curves_of_the_demo_begin_and_end_as_its_file_does(demo: Page, phantom_run: Path) -> None:
    lines = history.read(phantom_run / "metrics.jsonl")
    losses = [(line["step"], line["train/loss"]) for line in lines if "train/loss" in line]
    [told] = [image["alt"] for image in demo.all("img") if image["alt"].startswith("train/loss over steps")]
    for step, value in (losses[0], losses[-1]):
        assert f"{value:.4g} at step {step}" in told


def test_what_differs_from_the_default_are_the_flags(demo: Page, phantom_run: Path) -> None:
    flags = dict(word.removeprefix("--config.").split("=") for word in PHANTOM[1:])
    caption = "What differs from configs/pretrain.py:phantom, the default that it is nearest to"
    rows = demo.tables[f"Run {phantom_run.name}", caption][1:]
    assert {field: value for field, value, _ in rows} == flags


def test_the_type_that_a_run_settled_is_no_difference() -> None:
    config = json.loads(json.dumps(pretrain.get_config().to_dict())) | {"dtype": "bfloat16", "seed": 3}
    file, differing = settings.nearest(config) or ("", [])
    assert (file, [one.field for one in differing]) == ("configs/pretrain.py", ["seed"])


def test_data_and_environment_are_those_of_their_files(demo: Page, phantom_run: Path) -> None:
    report = json.loads((phantom_run / "data" / "records" / "build_report.json").read_text())
    chapter = f"Run {phantom_run.name}"
    assert dict(demo.tables[chapter, "Splits"][1:]) == {name: shown(size) for name, size in report["splits"].items()}
    [recorded] = json.loads((phantom_run / "environment.json").read_text())
    assert dict(demo.tables[chapter, "Where it was trained"][1:]) == {name: str(one) for name, one in recorded.items()}


def test_intervals_and_parts_are_those_of_metrics_json(several: Page, tmp_path: Path) -> None:
    metrics = json.loads((workdirs.findings(tmp_path / "findings0", seed=0) / "metrics.json").read_text())
    rows = {name: cells for name, *cells in several.tables["Run findings0", "Evaluation on test"][1:]}
    assert {"test/auroc_macro", "test/ece", "test/auroc/edema"} <= rows.keys()
    for name, (value, interval, baselines) in rows.items():
        assert value == shown(metrics[name])
        assert interval == " to ".join(map(shown, metrics[f"{name}_ci95"]))
        baseline = {"auroc_macro": "prevalence in training 0.5", "auroc": "chance 0.5"}.get(name.split("/")[1], "none")
        assert baselines == baseline


@pytest.mark.parametrize("fixture", ["demo", "several"])
def test_it_fetches_and_runs_nothing(fixture: str, request: pytest.FixtureRequest) -> None:
    found: Page = request.getfixturevalue(fixture)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "input"} & {tag for tag, _ in found.tags}
    for tag, attributes in found.tags:
        assert not any(name.startswith("on") for name in attributes), f"{tag} has a handler"
        for name in ("src", "href", "action", "data", "srcset", "poster", "background"):
            assert re.match(r"#|data:image/", attributes.get(name, "#")), f"{tag} {name}={attributes[name][:40]}"
    assert "default-src 'none'" in next(meta["content"] for meta in found.all("meta") if "http-equiv" in meta)
    [style] = re.findall("<style>(.*?)</style>", found.html, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    for kind, content in found.pictures():
        if kind == "svg+xml":
            addresses = re.findall(r'(?:href|src)="([^"#][^"]*)|url\((?!#)([^)]*)|<!DOCTYPE|<script', content.decode())
            assert addresses == []


@pytest.mark.parametrize("fixture", ["demo", "several"])
def test_everybody_can_read_it(fixture: str, request: pytest.FixtureRequest) -> None:
    found: Page = request.getfixturevalue(fixture)
    assert found.all("html") == [{"lang": "en"}]
    levels = [level for level, _ in found.headings]
    assert levels.count(1) == 1
    assert all(level - before <= 1 for before, level in itertools.pairwise(levels)), "a level is skipped"
    assert all(text for _, text in found.headings)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len({*ids})
    assert {link["href"] for link in found.all("a")} == {f"#{one}" for one in ids}
    assert {attributes["aria-labelledby"] for attributes in found.all("section")} == {*ids}
    assert all(len(image["alt"]) > 10 for image in found.all("img"))
    assert len(found.tables) == len(found.all("table"))
    assert "prefers-color-scheme: dark" in found.html


def test_contrast_of_its_colours() -> None:
    from medvill_jax.pages import figures, markup

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    schemes = re.findall(r":root \{(.*?)\}", markup.STYLE, re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        for ground in ("ground", "panel"):
            assert all(contrast(colours[name], colours[ground]) >= 4.5 for name in ("ink", "soft", "link"))
        assert all(contrast(line, colours["ground"]) >= 3 for line in figures.COLOURS)


def test_paired_tests_are_those_of_the_command(several: Page, tmp_path: Path) -> None:
    made = [workdirs.reports(tmp_path / f"reports{seed}", seed=seed, right=0.5) for seed in (0, 1)]
    rows = compare.compare(*(read_predictions(folder / "predictions.jsonl") for folder in made), meteor=False)
    table = several.tables["The runs side by side", "reports0 and reports1"]
    assert table[0] == ["metric", "reports0", "reports1", "difference", "95 % of it", "p", "p (Holm)"]
    between = [f"{row.low:.4g} to {row.high:.4g}" for row in rows]
    assert table[1:] == [
        [row.name, *map(shown, (row.a, row.b, row.difference)), interval, *map(shown, (row.p, row.p_holm))]
        for row, interval in zip(rows, between, strict=True)
    ]


def test_runs_of_different_tasks_are_not_compared(several: Page) -> None:
    assert "the tasks here are classify, generate, vqa, retrieve, pretrain" in several.text
    compared = {caption for chapter, caption in several.tables if chapter == "The runs side by side"}
    assert {caption for caption in compared if " and " in caption} == {
        *("findings0 and findings1", "reports0 and reports1", "questions0 and questions1"),
        *("ranks0 and ranks1", "words0 and words1"),
    }


def secrets(data: Path) -> set[str]:
    """Identifiers and texts of all films."""
    rows = [record for split in records.splits(data) for record in records.open_split(data, split)]
    return {record[name].decode() for record in rows for name in ("id", "text", "subject_id") if record.get(name)}


def test_it_holds_no_text_identifier_or_path_unless_asked(demo: Page, several: Page, phantom_run: Path) -> None:
    for secret in secrets(phantom_run / "data" / "records"):
        assert len(secret) < 6 or secret not in demo.text
    assert str(phantom_run.parent) not in demo.html
    for text in workdirs.REPORTS:
        assert text not in several.text
    assert not re.search(r"film\d|\bs\d+\b", several.text)
    assert "Film of" not in several.html


@pytest.fixture
def with_films(tmp_path: Path) -> Path:
    """Reports on films that are there."""
    run = workdirs.reports(tmp_path / "run", data__path=str(GOLDEN_DATA))
    source = records.open_split(GOLDEN_DATA, "test")
    texts = [(record["id"].decode(), record["text"].decode()) for record in (source[n] for n in range(len(source)))]
    rows = [{"id": name, "reference": text, "hypothesis": f"<b>{text}</b> & more"} for name, text in texts]
    (run / "predictions.jsonl").write_text(workdirs.lines(rows))
    (run / "predictions_shuffled_images.jsonl").unlink()
    return run


def test_films_beside_reports_on_request(with_films: Path) -> None:
    rows = [json.loads(line) for line in (with_films / "predictions.jsonl").read_text().splitlines()]
    silent = Page(page(workdirs.read(with_films)))
    assert not any(row["reference"] in silent.text for row in rows)
    found = Page(page(workdirs.read(with_films), examples=2))
    films = [content for kind, content in found.pictures() if kind == "jpeg"]
    assert len(films) == 2
    assert all(content.startswith(b"\xff\xd8") for content in films)
    assert rows[0]["reference"] in found.text
    assert rows[0]["hypothesis"] in found.text  # escaped, or the tags would be gone
    assert "b" not in {tag for tag, _ in found.tags}
    assert not any(row["id"] in found.html for row in rows)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("ranks", {"ranks": {"i2r": 2.0, "r2i": 1.5}}),
        ("words", {"words": 7.0, "mlm_loss": 9.5, "mlm_correct": 3.0, "itm": {"own": True, "other": False}}),
    ],
)
def test_films_beside_ranks_and_masked_words(tmp_path: Path, kind: str, said: dict[str, object]) -> None:
    run = getattr(workdirs, kind)(tmp_path / "run", data__path=str(GOLDEN_DATA))
    record = records.open_split(GOLDEN_DATA, "test")[0]
    (run / "predictions.jsonl").write_text(workdirs.lines([{"id": record["id"].decode(), **said}]))
    silent, found = (Page(page(workdirs.read(run), examples=count)) for count in (0, 1))
    assert [kind for kind, _ in found.pictures()].count("jpeg") == 1
    assert record["text"].decode() in found.text
    assert record["text"].decode() not in silent.text
    told = {"ranks": "i2r 2, r2i 1.5", "words": "3 of 7 right"}[kind]
    assert told in found.text
    assert kind == "ranks" or "own report told, other report not told" in found.text


def test_films_and_data_cards_of_a_mixture(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN_DATA, tmp_path / "other")
    run = workdirs.words(tmp_path / "run", data__mixture=f"{GOLDEN_DATA}:2,{tmp_path / 'other'}:1")
    records_of, said = records.open_split(GOLDEN_DATA, "test"), {"words": 7.0, "mlm_loss": 9.5, "mlm_correct": 3.0}
    first, second = (records_of[place] for place in (0, 1))
    answered = [(GOLDEN_DATA.name, first), ("other", second)]
    rows = [{"id": f"{name}/{record['id'].decode()}", **said, "source": name} for name, record in answered]
    (run / "predictions.jsonl").write_text(workdirs.lines(rows))
    found = Page(page(workdirs.read(run), examples=2))
    assert [kind for kind, _ in found.pictures()].count("jpeg") == 2
    assert all(record["text"].decode() in found.text for record in (first, second))
    assert all(f"{name}: Splits" in found.text for name, _ in answered)
    # Evaluated on a set that is none of the mixture.
    (run / "predictions.jsonl").write_text(workdirs.lines([{"id": first["id"].decode(), **said}]))
    with pytest.raises(SummaryError, match="its answers are to films of other data sets"):
        page(workdirs.read(run), examples=1)


def test_films_that_are_not_there_are_said(with_films: Path, tmp_path: Path) -> None:
    (run,) = workdirs.read(workdirs.reports(tmp_path / "other", data__path=str(tmp_path / "nowhere")))
    with pytest.raises(SummaryError, match=r"nowhere: the data set of the run is not here.*leave --examples out"):
        page([run], examples=1)
    (run,) = workdirs.read(workdirs.reports(tmp_path / "foreign", data__path=str(GOLDEN_DATA)))
    with pytest.raises(SummaryError, match=r"2 of the examples are not in it"):
        page([run], examples=2)


def test_whatever_a_file_says_is_text(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>'
    run = workdirs.findings(tmp_path / "<img src=x onerror=alert(1)>", seed=0)
    config = json.loads((run / "config.json").read_text()) | {evil: evil}
    (run / "config.json").write_text(json.dumps(config))
    (run / "environment.json").write_text(json.dumps([{evil: evil}]))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 6, f"eval/{evil}": 1.0}) + "\n")
    found = Page(page(workdirs.read(run)))
    assert not {"script"} & {tag for tag, _ in found.tags}
    assert not any("onerror" in attributes for _, attributes in found.tags)
    assert found.text.count("alert(1)") > 3
    for kind, content in found.pictures():
        assert kind != "svg+xml" or b"<script" not in content


def test_the_numbers_of_the_confusion_are_those_of_the_answers(several: Page, tmp_path: Path) -> None:
    run = workdirs.findings(tmp_path / "findings0", seed=0)
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    table = several.tables["Run findings0", "Findings at the thresholds of the export"]
    for (name, *cells), limit in zip(table[1:], (0.5, 0.4), strict=True):
        said = np.array([row["probabilities"][name] >= limit for row in rows])
        true = np.array([row["labels"][name] == 1 for row in rows])
        counts = [(said & true).sum(), (said & ~true).sum(), (~said & true).sum(), (~said & ~true).sum()]
        assert [int(cell) for cell in cells] == counts
        f1 = json.loads((run / "metrics.json").read_text())[f"test/f1/{name.lower().replace(' ', '_')}"]
        assert 2 * counts[0] / (2 * counts[0] + counts[1] + counts[2]) == pytest.approx(f1)


def test_thresholds_of_other_findings_are_not_used(tmp_path: Path) -> None:
    run = workdirs.findings(tmp_path / "run", seed=0)
    (run / "export" / "config.json").write_text('{"extra": {"thresholds": [0.1, 0.2, 0.3]}}')
    assert ("Run run", "Findings at 0.5") in Page(page(workdirs.read(run))).tables


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")
def test_a_browser_without_network_shows_it_without_complaint(demo: Page, tmp_path: Path) -> None:
    file = tmp_path / "summary.html"
    file.write_text(demo.html)
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9", "--enable-logging=stderr"]
    options = ["--headless", "--no-sandbox", "--disable-gpu", *offline, f"--user-data-dir={tmp_path / 'profile'}"]
    command = [str(CHROMIUM), *options, "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "What must still be proved" in done.stdout
    assert "CONSOLE" not in done.stderr  # where complaints of the page and refused requests go

"""A server with the demo's model, a browser, and films."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from medvill_jax.web import demo
from tests.web.serving import DEMO, Running, running

# Set where the tests must not be skipped.
REQUIRED = "MEDVILL_REQUIRE_CHROMIUM"
PATIENCE = 120_000  # milliseconds, on a busy machine that compiles

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """`medvill web --demo`; afterwards its log must be empty, whatever it was sent."""
    with running(*DEMO) as started:
        yield started


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose model names findings of films with their reports; its log must be empty too."""
    export = tmp_path_factory.mktemp("reader") / "export"
    shutil.copytree(demo.EXPORT, export)
    config = json.loads((export / "config.json").read_text())
    config["extra"]["inputs"] = "image+report"
    (export / "config.json").write_text(json.dumps(config))
    with running(f"--model={export}") as started:
        yield started


@pytest.fixture(scope="session")
def films() -> list[bytes]:
    """JPEGs of drawn films."""
    return [example.jpeg for example in demo.examples()]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    if (program := shutil.which("chromium")) is None:
        if os.environ.get(REQUIRED):
            pytest.fail("there is no chromium: apt-get install chromium")
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        with_root = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=program, args=with_root)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, server: Running) -> Iterator[Page]:
    """The page, ready. Nothing on its console, no error, and no request to anyone but the server."""
    with visited(browser, server) as opened:
        yield opened


@pytest.fixture
def reader_page(browser: Browser, reader: Running) -> Iterator[Page]:
    """The page of `reader`, as `page`."""
    with visited(browser, reader) as opened:
        yield opened


@contextlib.contextmanager
def visited(browser: Browser, server: Running) -> Iterator[Page]:
    """The page of a server, and afterwards what must be so of it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    told: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: told.append(message.text))
    opened.on("pageerror", lambda error: told.append(str(error)))
    context.on("request", lambda request: asked.append(request.url))
    opened.goto(server.url)
    opened.wait_for_selector("body[data-ready]")
    yield opened
    context.close()
    assert asked
    assert {url for url in asked if not url.startswith((f"{server.url}/", f"blob:{server.url}/"))} == set()
    # A refusal that the page shows in words is in Chromium's console too.
    assert [words for words in told if "the server responded with a status of 4" not in words] == []

"""The page in a browser, with the demo's model: what a visitor does, with the mouse or by keyboard alone."""

import cv2
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.console.broken import dicom_file
from tests.web.conftest import PATIENCE
from tests.web.serving import Running

FIRST_FINDING, FIRST_WORD = "#findings tbody tr:first-child button", "#report .words button:first-of-type"


def dropped(page: Page, data: bytes, name: str = "film.jpg") -> None:
    """Drops a file onto the page."""
    transfer = page.evaluate_handle(
        """([bytes, name]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name));
            return transfer;
        }""",
        [[*data], name],
    )
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})


def opened(page: Page, film: bytes) -> None:
    """Opens a film, and waits until it has its answers."""
    page.set_input_files("#file", {"name": "film.jpg", "mimeType": "image/jpeg", "buffer": film})
    page.wait_for_selector("#findings table")
    page.wait_for_selector("#report .words")


def picture(page: Page) -> tuple[str, str]:
    """The film as it is shown, and the map over it; "" for none."""
    page.wait_for_timeout(300)  # until the map has faded in or out
    over = "getComputedStyle(heat).opacity === '1' ? heat.toDataURL() : ''"
    return page.evaluate("pixels.toDataURL()"), page.evaluate(over)


def test_a_film_that_is_dropped_has_a_report_and_findings(page: Page, films: list[bytes], server: Running) -> None:
    expect(page.get_by_text("Research use only, not a medical device.")).to_be_visible()
    expect(page.locator("#answers")).to_be_hidden()
    dropped(page, films[0])
    expect(page.locator("#report .words")).to_be_visible()
    expect(page.locator("#findings tbody tr")).to_have_count(14)
    answers = {task: server.request("POST", f"/api/predict/{task}", films[0]).json() for task in ("report", "findings")}
    assert page.locator("#report .words").inner_text() == answers["report"]["text"]
    first = answers["findings"]["findings"][0]
    row = page.locator("#findings tbody tr").first
    for text in (
        first["name"],
        first["means"],
        f"{100 * first['probability']:.1f} %",
        f"{100 * first['threshold']:.1f} %",
    ):
        expect(row).to_contain_text(text)
    expect(row).to_contain_text("positive" if first["positive"] else "below")
    expect(page.locator("#findings")).to_contain_text("highest F1")


@pytest.mark.parametrize("target", [FIRST_FINDING, FIRST_WORD])
def test_pointing_lights_up_the_film(page: Page, films: list[bytes], target: str) -> None:
    opened(page, films[0])
    dark = picture(page)
    assert dark[1] == ""
    page.hover(target)
    page.wait_for_selector("#heat.shown")
    expect(page.locator("#lit")).to_contain_text("Bright: what speaks for")
    assert picture(page)[1] not in ("", "data:,")
    page.mouse.move(5, 5)
    page.wait_for_selector("#heat:not(.shown)")
    assert picture(page) == dark
    page.click(target)  # a map that was made once is there at once, and stays
    page.mouse.move(5, 5)
    assert picture(page) != dark
    page.keyboard.press("Escape")
    assert picture(page) == dark


def test_a_map_shows_how_much_of_it_is_made(page: Page, films: list[bytes]) -> None:
    opened(page, films[3])
    expect(page.get_by_role("progressbar")).to_be_hidden()
    page.evaluate(
        """() => {
            window.seen = { parts: [], words: [] };
            const note = () => {
                if (done.className) seen.parts.push(done.querySelector("progress").position);
                if (seen.words.at(-1) !== lit.textContent) seen.words.push(lit.textContent);
            };
            new MutationObserver(note).observe(viewer, { subtree: true, childList: true, attributes: true });
        }"""
    )
    page.hover(FIRST_FINDING)
    page.wait_for_selector("#heat.shown")
    seen = page.evaluate("seen")
    parts = [part for part in seen["parts"] if part >= 0]
    assert parts == sorted(parts)
    assert any(0 < part < 1 for part in parts), "no part of the map was seen to be made"
    assert len(seen["words"]) <= 3, "a reader of screens hears of every step"
    assert seen["words"][0].startswith("Looking for what speaks for ")
    assert seen["words"][-1].startswith("Bright: ")
    expect(page.get_by_role("progressbar")).to_be_hidden()


def test_different_findings_light_up_different_places(page: Page, films: list[bytes]) -> None:
    opened(page, films[0])
    seen = set()
    for row in (1, 2, 3):
        button = page.locator(f"#findings tbody tr:nth-child({row}) button")
        button.hover()
        expect(page.locator("#lit")).to_contain_text(f"what speaks for {button.inner_text()}, by")
        page.wait_for_selector("#heat.shown")
        seen.add(picture(page))
    assert len(seen) == 3


@pytest.fixture
def phone(page: Page) -> Page:
    """The page in a narrow window."""
    page.set_viewport_size({"width": 390, "height": 844})
    return page


def covered(page: Page, target: Locator) -> bool:
    """Whether something lies over the middle of an element."""
    return target.evaluate(
        """(target) => {
            const box = target.getBoundingClientRect();
            return document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2) !== target;
        }"""
    )


@pytest.mark.parametrize("target", ["#report .words button:last-of-type", "#findings tbody tr:last-child button"])
def test_on_a_phone_the_film_and_what_is_pointed_at_are_in_the_window(
    phone: Page, films: list[bytes], target: str
) -> None:
    opened(phone, films[0])
    button = phone.locator(target)
    button.evaluate("(button) => button.scrollIntoView()")
    button.hover()
    place = button.bounding_box()
    phone.wait_for_selector("#heat.shown")
    expect(phone.locator("#pixels")).to_be_in_viewport(ratio=1)
    expect(phone.locator("#lit")).to_be_in_viewport(ratio=1)
    expect(button).to_be_in_viewport(ratio=1)
    assert not covered(phone, button)
    assert not covered(phone, phone.locator("#heat"))
    assert button.bounding_box() == place, "words move while they are pointed at"


def test_on_a_phone_the_film_covers_nothing_that_has_the_focus(phone: Page, films: list[bytes]) -> None:
    opened(phone, films[0])
    phone.locator("#question").focus()
    for place in ("#findings tbody tr:nth-child(2) button", FIRST_FINDING, FIRST_WORD):
        phone.locator(place).focus()  # from below, so that it comes in at the top of the window
        expect(phone.locator(place)).to_be_in_viewport(ratio=1)
        assert not covered(phone, phone.locator(place)), place
    expect(phone.locator("#pixels")).to_be_in_viewport(ratio=1)


def test_a_question_is_answered(page: Page, films: list[bytes], server: Running) -> None:
    opened(page, films[0])
    page.get_by_label("Ask about this film").fill("Is there a pneumothorax?")
    page.keyboard.press("Enter")
    answer = server.request("POST", f"/api/films/{server.open(films[0])}/ask", {"question": "Is there a pneumothorax?"})
    expect(page.locator("#ask dd button")).to_have_text(answer.json()["answer"])
    page.hover("#ask dd button")
    page.wait_for_selector("#heat.shown")


def test_a_model_that_reads_reports_has_a_box_for_one(reader_page: Page, films: list[bytes], reader: Running) -> None:
    page = reader_page
    page.set_input_files("#file", {"name": "film.jpg", "mimeType": "image/jpeg", "buffer": films[0]})
    page.wait_for_selector("#report .words")
    box, told = page.get_by_label("The report of this film"), page.locator("#findings .body")
    find = page.get_by_role("button", name="Find", exact=True)
    expect(told).to_be_empty()
    find.click()
    expect(told).to_have_text("the report is empty: write it, and ask again")
    box.fill("Large left pleural effusion.")
    find.click()
    expect(page.locator("#findings tbody tr")).to_have_count(14)
    expect(told).to_contain_text("This model has read the report with the film.")
    first = page.locator("#findings tbody tr").first
    asked = {"report": "Large left pleural effusion."}
    answer = reader.request("POST", f"/api/films/{reader.open(films[0])}/findings", asked).json()["findings"][0]
    expect(first).to_contain_text(f"{100 * answer['probability']:.1f} %")
    page.click(FIRST_FINDING)  # its map is made with the report too, and stays
    page.wait_for_selector("#heat.shown")
    box.fill("The heart is large.")
    find.click()
    page.wait_for_selector("#heat:not(.shown)")
    expect(first).not_to_contain_text(f"{100 * answer['probability']:.1f} %")
    page.hover(FIRST_FINDING)
    page.wait_for_selector("#heat.shown")
    found = Axe().run(page).response
    assert (found["violations"], bool(found["passes"])) == ([], True)
    dropped(page, films[1])
    page.wait_for_selector("#report .words")
    expect(told).to_be_empty()  # a report belongs to its film
    expect(box).to_have_value("")


def test_a_late_answer_does_not_replace_a_newer_one(reader_page: Page, films: list[bytes]) -> None:
    page, late = reader_page, list[Route]()
    page.set_input_files("#file", {"name": "film.jpg", "mimeType": "image/jpeg", "buffer": films[0]})
    page.wait_for_selector("#report .words")
    page.route("**/findings", lambda route: route.continue_() if late else late.append(route))
    box, find = page.get_by_label("The report of this film"), page.get_by_role("button", name="Find", exact=True)
    box.fill("Large left pleural effusion.")
    with page.expect_request("**/findings"):
        find.click()
    box.fill("The heart is large.")
    find.click()
    expect(page.locator("#findings tbody tr")).to_have_count(14)
    shown = page.locator("#findings .body").inner_text()
    with page.expect_response("**/findings"):
        late[0].continue_()
    page.wait_for_timeout(300)
    assert page.locator("#findings .body").inner_text() == shown


def test_without_a_model_that_reads_reports_there_is_no_box(page: Page, films: list[bytes]) -> None:
    opened(page, films[0])
    expect(page.get_by_label("The report of this film")).to_be_hidden()


def test_a_bad_file_is_one_clear_message_and_the_film_stays(page: Page, films: list[bytes]) -> None:
    opened(page, films[0])
    before = picture(page)
    for data, words in (
        (b"no film at all", "not an image of a known format"),
        (films[0][:2000], "cannot be opened"),
        (b"", "empty"),
    ):
        dropped(page, data, "film.png")
        expect(page.get_by_role("alert")).to_contain_text(words)
    assert picture(page) == before
    with page.expect_response("**/findings"):  # asked for once the film is shown
        dropped(page, films[1])
    expect(page.locator("#trouble")).to_be_hidden()
    assert picture(page) != before


def test_dicom_is_read(page: Page, films: list[bytes]) -> None:
    pixels = cv2.imdecode(np.frombuffer(films[0], np.uint8), cv2.IMREAD_GRAYSCALE)
    opened(page, dicom_file(pixels))
    expect(page.locator("#findings tbody tr")).to_have_count(14)


def test_windowing_inversion_and_zoom(page: Page, films: list[bytes]) -> None:
    opened(page, films[0])
    plain = picture(page)
    page.get_by_role("button", name="Invert").click()
    inverted = picture(page)
    page.get_by_role("button", name="Invert").click()
    assert picture(page) == plain != inverted
    page.get_by_label("Centre").fill("60")
    darker = picture(page)
    page.get_by_label("Width").fill("40")
    assert len({plain, inverted, darker, picture(page)}) == 4
    page.get_by_role("button", name="Reset").click()
    assert picture(page) == plain
    page.get_by_role("button", name="Zoom in").click()
    expect(page.locator("#scale")).to_have_text("150 %")
    assert page.evaluate("sheet.clientWidth / pane.clientWidth") == pytest.approx(1.5, abs=0.01)


def test_everything_works_by_keyboard_alone(page: Page) -> None:
    def to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        pytest.fail(f"Tab never comes to {selector}")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    to("#file")
    to("#examples button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#findings table")
    page.wait_for_selector("#report .words")
    to("#pane")
    to("#width")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#width").input_value() == "254"
    to("#invert")
    page.keyboard.press("Space")
    assert page.locator("#invert").get_attribute("aria-pressed") == "true"
    to("#report .words button")
    page.wait_for_selector("#heat.shown")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement === document.querySelectorAll('#report .words button')[1]")
    to("#findings button")  # one stop for all words
    page.keyboard.press("ArrowDown")
    second = page.locator("#findings tbody tr:nth-child(2) button").inner_text()
    expect(page.locator("#lit")).to_contain_text(f"what speaks for {second}, by")
    to("#question")
    page.keyboard.type("Is there an effusion?")
    page.keyboard.press("Enter")
    page.wait_for_selector("#ask dd")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (360, 800), (390, 844)])
def test_no_barrier_is_known_to_axe(browser: Browser, server: Running, scheme: str, width: int, height: int) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})  # pyright: ignore
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(server.url)
    page.wait_for_selector("body[data-ready]")
    broken: dict[str, list[str]] = {}

    def look(when: str) -> None:
        found = Axe().run(
            page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
        )
        assert found.response["passes"], "axe has looked at nothing"
        broken.update(
            {f"{when}: {rule['id']}": [node["html"] for node in rule["nodes"]] for rule in found.response["violations"]}
        )

    look("empty")
    page.locator("#examples button").first.click()
    page.wait_for_selector("#findings table")
    page.wait_for_selector("#report .words")
    page.focus(FIRST_FINDING)
    page.wait_for_selector("#heat.shown")
    page.fill("#question", "Is there an effusion?")
    page.press("#question", "Enter")
    page.wait_for_selector("#ask dd")
    look("answered")
    dropped(page, b"no film")
    page.wait_for_selector("#trouble:not([hidden])")
    look("in trouble")
    assert broken == {}
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than its window"
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 300) == (scheme == "dark")
    context.close()

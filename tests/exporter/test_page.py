"""The live page in a real browser: Debian's chromium, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest

from .service import Service

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
Start = Callable[..., Service]


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: playwright.Browser) -> Iterator[playwright.Page]:
    """A page on which any error of the script, and any violation of the policy, fails the test."""
    context = browser.new_context()
    context.set_default_timeout(15000)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console", lambda message: problems.append(message.text) if "Content Security Policy" in message.text else None
    )
    yield page
    context.close()
    assert problems == []


def opened(page: playwright.Page, service: Service) -> playwright.Page:
    page.goto(service.url)
    page.wait_for_selector('#connection[data-state="live"]')
    return page


def test_a_change_shows_within_a_second(page: playwright.Page, service: Service) -> None:
    opened(page, service)
    service.do("temperature 36.6")
    row = page.wait_for_selector("#rows tr", timeout=1000)
    text = row.inner_text()
    assert "temperature" in text
    assert "0 → 36.6" in text
    assert "host.c" in text or "main" in text or "unknown" in text


def test_the_token_leaves_the_address(page: playwright.Page, service: Service) -> None:
    opened(page, service)
    assert page.url == f"http://127.0.0.1:{service.port}/"
    assert page.evaluate("document.cookie") == ""
    page.reload()
    page.wait_for_selector('#connection[data-state="live"]')


def test_without_token_the_page_says_how(page: playwright.Page, service: Service) -> None:
    response = page.goto(f"http://127.0.0.1:{service.port}/")
    assert response.status == 401
    assert "needs the token" in page.inner_text("body")


def test_variables_are_listed_with_value_and_chart(page: playwright.Page, service: Service) -> None:
    opened(page, service)
    for value in (1, 5, 3):
        service.do(f"temperature {value}")
    row = page.locator("#variables tr", has_text="temperature")
    playwright.expect(row).to_contain_text("3")
    playwright.expect(row.locator("svg")).to_have_attribute("aria-label", "values: from 1 to 5")
    playwright.expect(page.locator("#variables")).to_contain_text("secret-hash")
    playwright.expect(page.locator("#health-regions dd")).to_have_text("9")


def test_changed_bytes_are_marked(page: playwright.Page, service: Service) -> None:
    service.do("text Hello")
    opened(page, service)
    service.do("text Jello")
    marks = page.locator("#rows tr", has_text="text").locator("mark")
    playwright.expect(marks).to_have_count(2)
    assert marks.all_inner_texts() == ["H", "J"]


def test_hidden_values_stay_hidden(page: playwright.Page, service: Service) -> None:
    opened(page, service)
    service.do("secret 77")
    playwright.expect(page.locator("#rows tr", has_text="secret-none")).to_contain_text("values are hidden")
    playwright.expect(page.locator("#rows tr", has_text="secret-hash")).to_contain_text("hash 0x")
    assert "4d4d" not in page.inner_text("#rows").replace(" ", "")


def test_filter_and_pause(page: playwright.Page, service: Service) -> None:
    opened(page, service)
    page.keyboard.press("/")
    page.keyboard.type("temp*")
    service.do("counter 7")
    service.do("temperature 8")
    playwright.expect(page.locator("#rows tr:visible")).to_have_count(1)
    playwright.expect(page.locator("#variables tr")).to_have_count(1)
    page.locator("h1").click()
    page.keyboard.press("p")
    playwright.expect(page.get_by_role("button", name="Go on")).to_have_attribute("aria-pressed", "true")
    service.do("temperature 9")
    playwright.expect(page.locator("#held")).to_contain_text("1 waiting")
    page.get_by_role("button", name="Go on").click()
    playwright.expect(page.locator("#rows tr:visible")).to_have_count(2)


def test_hostile_names_do_nothing(page: playwright.Page, service: Service) -> None:
    service.do("many 24")
    opened(page, service)
    service.do("touch 7")
    playwright.expect(page.locator("#rows")).to_contain_text("<script>7</script>")
    service.do("touch 4")
    playwright.expect(page.locator("#rows")).to_contain_text("bad\\xffbytes4")


def test_survives_a_restart(page: playwright.Page, start: Start) -> None:
    first = start(port=0)
    opened(page, first)
    first.do("temperature 1")
    page.wait_for_selector("#rows tr")
    port = first.port
    assert first.close() == 0
    page.wait_for_selector('#connection[data-state="lost"]')
    second = start(port=port)
    page.wait_for_selector('#connection[data-state="live"]')
    playwright.expect(page.locator("#rows")).to_contain_text("opened anew")
    second.do("temperature 2")
    playwright.expect(page.locator("#rows")).to_contain_text("0 → 2")


def test_says_when_the_token_is_another(page: playwright.Page, start: Start) -> None:
    first = start()
    opened(page, first)
    port = first.port
    assert first.close() == 0
    start(port=port, token="another-token-0123456789")
    page.wait_for_selector('#connection[data-state="refused"]')
    playwright.expect(page.get_by_role("alert")).to_contain_text("another token")


def test_shows_the_gap_when_it_was_too_slow(page: playwright.Page, start: Start) -> None:
    service = start(event_capacity=64)
    opened(page, service)
    page.evaluate("setTimeout(() => { const end = Date.now() + 1000; while (Date.now() < end); })")
    service.do("post 100000")
    playwright.expect(page.locator("#health-missed-by-this-page dd")).to_have_class("bad")
    service.do("post 1")
    playwright.expect(page.locator("#rows")).to_contain_text("external")


def test_works_in_the_dark_and_by_keyboard(browser: playwright.Browser, service: Service) -> None:
    context = browser.new_context(color_scheme="dark")
    page = opened(context.new_page(), service)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 27)"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the events"
    unnamed = page.evaluate(
        """[...document.querySelectorAll("input, button, table, section")].filter((node) =>
            node.matches("input") ? !node.labels.length
            : node.matches("button") ? !node.textContent
            : node.matches("section") ? !node.getAttribute("aria-labelledby")
            : !node.tHead).length"""
    )
    assert unnamed == 0
    context.close()

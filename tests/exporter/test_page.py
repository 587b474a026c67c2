"""The live page in a real browser: Debian's chromium, driven by playwright."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

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


def test_the_code_leaves_the_address(page: playwright.Page, service: Service) -> None:
    opened(page, service)
    assert page.url == f"http://127.0.0.1:{service.port}/"
    assert page.evaluate("document.cookie") == ""
    page.reload()
    page.wait_for_selector('#connection[data-state="live"]')


def test_another_port_of_this_host_gets_nothing(page: playwright.Page, service: Service) -> None:
    """Cookies go to every port of 127.0.0.1; what the page keeps does not."""
    opened(page, service)
    asked: list[dict[str, str]] = []

    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        thread = threading.Thread(target=stranger.serve_forever)
        thread.start()
        page.goto(f"http://127.0.0.1:{stranger.server_port}/")
        assert page.evaluate("sessionStorage.length") == 0
        stranger.shutdown()
        thread.join()
    assert asked
    assert not [headers for headers in asked if "cookie" in headers or service.token in str(headers)]


def test_the_profile_on_disk_does_not_hold_the_token(
    browser: playwright.Browser, service: Service, tmp_path: Path
) -> None:
    """The browser keeps addresses for long, in several files. The code is in them perhaps, and is used up."""
    code = service.url.partition("#")[2]
    context = browser.browser_type.launch_persistent_context(str(tmp_path), executable_path=CHROMIUM, args=FLAGS)
    page = opened(context.new_page(), service)
    page.goto("about:blank")
    context.close()
    histories = [path for path in tmp_path.rglob("*") if path.is_file() and path.name in {"History", "Favicons"}]
    assert histories
    assert not [path for path in histories if service.token.encode() in path.read_bytes()]
    headers = {"Authorization": f"Memwatch-Code {code}"}
    assert service.get("/api/v1/token", token=False, headers=headers)[0] == 401


def test_without_token_the_page_asks_for_it(page: playwright.Page, service: Service) -> None:
    page.goto(f"http://127.0.0.1:{service.port}/")
    page.wait_for_selector('#connection[data-state="refused"]')
    playwright.expect(page.get_by_role("alert")).to_contain_text("needs the token")
    page.get_by_label("Token").fill(service.token)
    page.get_by_role("button", name="Open").click()
    page.wait_for_selector('#connection[data-state="live"]')


def test_a_second_address_in_the_same_tab(page: playwright.Page, service: Service) -> None:
    page.goto(f"http://127.0.0.1:{service.port}/")
    page.wait_for_selector('#connection[data-state="refused"]')
    page.goto(service.url)
    page.wait_for_selector('#connection[data-state="live"]')
    assert page.url == f"http://127.0.0.1:{service.port}/"


def test_characters_that_hide_or_reorder_are_spelt_out(page: playwright.Page, start: Start) -> None:
    service = start(service="a\u202eb\u2066c\u200bd")
    opened(page, service)
    playwright.expect(page.locator("#service")).to_have_text(r"a\xe2\x80\xaeb\xe2\x81\xa6c\xe2\x80\x8bd")
    for character in "\u202e\u2066\u200b\u001b\n\u0085":
        assert page.evaluate("(text) => element('p', { textContent: text }).textContent", f"a{character}b") == (
            f"a\\u{ord(character):04x}b"
        )
    assert page.evaluate("['', ' ', ' a  b ', 'a b'].map(nameText)") == ["(empty name)", "␣", "␣a␣␣b␣", "a b"]
    assert "\u202e" not in page.title()


def test_variables_are_listed_with_value_and_chart(page: playwright.Page, service: Service) -> None:
    opened(page, service)
    for value in (1, 5, 3):
        service.do(f"temperature {value}")
    row = page.locator("#variables tr", has_text="temperature")
    playwright.expect(row).to_contain_text("5 → 3")
    playwright.expect(row.locator("svg")).to_have_attribute(
        "aria-label", "from 0 to 5, 3 changes in the last 5 minutes"
    )
    playwright.expect(page.locator("#variables")).to_contain_text("secret-hash")
    playwright.expect(page.locator("#variables-count")).to_have_text("9 variables")


def test_changed_bytes_are_marked(page: playwright.Page, service: Service) -> None:
    service.do("text Hello")
    opened(page, service)
    service.do("text Jello")
    playwright.expect(page.locator("#rows tr", has_text="Jello")).to_be_visible()
    page.get_by_role("searchbox").fill("text")
    playwright.expect(page.locator("#rows tr")).to_have_count(2)
    marks = page.locator("#rows tr", has_text="Jello").locator("mark")
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
    start(port=port, token="another-token-0123456789abcdef01")
    page.wait_for_selector('#connection[data-state="refused"]')
    playwright.expect(page.get_by_role("alert")).to_contain_text("another token")


def test_shows_the_gap_when_it_was_too_slow(page: playwright.Page, start: Start) -> None:
    service = start(event_capacity=64)
    opened(page, service)
    page.evaluate("setTimeout(() => { const end = Date.now() + 1000; while (Date.now() < end); })")
    service.do("post 100000")
    playwright.expect(page.locator("#warnings")).to_contain_text("This page missed")
    service.do("post 1")
    playwright.expect(page.locator("#rows")).to_contain_text("external")


def test_works_in_the_dark_and_by_keyboard(browser: playwright.Browser, service: Service) -> None:
    context = browser.new_context(color_scheme="dark")
    page = opened(context.new_page(), service)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 27)"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the events"
    context.close()

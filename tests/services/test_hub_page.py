"""The hub's page in a real browser."""

from tests.conftest import wait_for
from tests.exporter.test_page import browser, page, playwright, pytestmark  # noqa: F401  # fixtures

from .hub import Hub
from .test_hub import _directory, _start  # noqa: F401  # fixtures


def test_events_of_all_workers_with_their_places(page, directory, start):  # noqa: F811
    first, second = start(service="<b>shop</b>"), start(service="<b>shop</b>", worker="w")
    first.write(2)  # before the page is opened
    with Hub(directory) as hub:
        hub.await_workers(2)
        page.goto(f"http://127.0.0.1:{hub.port}/#{hub.code}")
        page.wait_for_selector('#connection[data-state="live"]')
        assert page.url == f"http://127.0.0.1:{hub.port}/", "the code is out of the address"
        rows = page.locator("#workers tr")
        wait_for(lambda: rows.count() == 2)
        assert rows.nth(0).locator("td").nth(1).text_content() == "0"
        assert rows.nth(0).locator("td").nth(0).text_content() == "<b>shop</b>"
        events = page.locator("#events tr")
        wait_for(lambda: events.count() >= 2, what="what was written before")
        wait_for(lambda: (second.write(1), events.nth(0).locator("td").nth(2).text_content())[1] == "w")
        assert events.nth(0).locator("td").nth(3).text_content() == "a"
        page.fill("#filter", "no such name")
        assert page.locator("#events tr:visible").count() == 0
        page.reload()
        page.wait_for_selector('#connection[data-state="live"]')


def test_without_the_code_it_asks_for_the_token(page, directory):  # noqa: F811
    with Hub(directory) as hub:
        page.goto(f"http://127.0.0.1:{hub.port}/")
        page.wait_for_selector("#login:not([hidden])")
        page.fill("#token", hub.token)
        page.click("#login button")
        page.wait_for_selector('#connection[data-state="live"]')

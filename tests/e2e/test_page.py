"""The live page, opened after the fact, with a keyboard alone, with very many variables, and for who cannot see."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT, WAIT_S, wait_for

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.xdist_group("browser"),
]
playwright.expect.set_options(timeout=WAIT_S * 1000)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--enable-precise-memory-info",
]


class Watched:
    """The service of page_service.py."""

    def __init__(self, n_variables: int = 0) -> None:
        program = str(Path(__file__).with_name("page_service.py"))
        self.process = subprocess.Popen(
            [sys.executable, program, str(n_variables)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.url, self.port, self.token = self.process.stdout.readline().split()

    def do(self, line: str) -> None:
        assert self.process.stdin and self.process.stdout
        print(line, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        assert self.process.wait(WAIT_S) == 0
        self.process.stdout.close()


@pytest.fixture
def watched() -> Iterator[Callable[..., Watched]]:
    started: list[Watched] = []

    def start(n_variables: int = 0) -> Watched:
        started.append(Watched(n_variables))
        return started[-1]

    yield start
    for service in started:
        service.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=["light 1280", "dark 400"])
def looks(request: pytest.FixtureRequest) -> dict[str, Any]:
    scheme, width = request.param.split()
    return {"color_scheme": scheme, "viewport": {"width": int(width), "height": 800}}


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a service's page, which must not have an error until the end."""
    contexts: list[Any] = []
    problems: list[str] = []

    def open_page(service: Watched, **looks: Any) -> Any:
        contexts.append(browser.new_context(**looks))
        contexts[-1].set_default_timeout(WAIT_S * 1000)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(service.url)
        page.wait_for_selector('#connection[data-state="live"]')
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def expect(locator: Any) -> Any:
    return playwright.expect(locator)


def three_changes(service: Watched) -> None:
    for line in ("measure(36.6)", "reconfigure()", "name[0] = 74"):
        service.do(line)


def page_of_three_changes(watched: Callable[..., Watched], open_page: Callable[..., Any], looks: dict[str, Any]) -> Any:
    service = watched()
    three_changes(service)
    page = open_page(service, **looks)
    expect(page.locator("#rows tr")).to_have_count(3)
    return page


def test_opened_after_the_fact(watched: Callable[..., Watched], open_page: Callable[..., Any]) -> None:
    """Three variables changed before anybody looked: what, from what to what, who, and how sure."""
    service = watched()
    three_changes(service)
    page = open_page(service)
    expect(page.locator("#variables tr").nth(0)).to_contain_text("Hello → Jello")
    for name, change, writer in (
        ("temperature", "20 → 36.6", "measure"),
        ("config", ".rate_limit: 100 → 110", "reconfigure"),
    ):
        row = page.locator("#variables tr", has=page.get_by_text(name, exact=True))
        expect(row).to_contain_text(change)
        expect(row).to_contain_text(writer)
        expect(row).to_contain_text("page_service.py:")
        expect(row.locator(".sure")).to_have_text("proof")
    expect(page.locator("#rows tr")).to_have_count(3)
    expect(page.locator("#rows tr").nth(2)).to_contain_text("temperature: 20 → 36.6")
    expect(page.locator("#rows tr").nth(1)).to_contain_text("config.rate_limit: 100 → 110")
    page.reload()
    expect(page.locator("#rows tr")).to_have_count(3)


def test_an_element_of_a_large_array(watched: Callable[..., Watched], open_page: Callable[..., Any]) -> None:
    service = watched()
    service.do("train()")
    page = open_page(service)
    expect(page.locator("#rows tr").nth(0)).to_contain_text("weights[46, 56]: 0.5 → nan")
    page.locator("#rows tr").nth(0).click()
    expect(page.locator("#detail-body")).to_contain_text("weights[46, 56]: 0.5 → nan")
    expect(page.locator("#detail-body .dump mark").first).to_be_visible()


def test_an_element_of_an_array_in_the_other_order(
    watched: Callable[..., Watched], open_page: Callable[..., Any]
) -> None:
    service = watched()
    service.do("turned = empty((4096,), np.float32).reshape((64, 64), order='F'); watcher.watch(turned, name='turned')")
    service.do("turned[46, 56] = np.nan")
    page = open_page(service)
    expect(page.locator("#rows tr").nth(0)).to_contain_text("turned[46, 56]: 0 → nan")


def test_elements_of_large_arrays(watched: Callable[..., Watched], open_page: Callable[..., Any]) -> None:
    """Of a value that no event holds, far behind its first bytes."""
    service = watched()
    service.do("train()")
    service.do("records = np.zeros((20, 25), [('id', 'i4'), ('rate', 'f8')], order='F')")
    service.do("watcher.watch(records, 'records')")
    service.do("records['rate'][3, 20] = 1.5")
    service.do("text = bytearray(b'x' * 9000); watcher.watch(text, 'text')")
    service.do("text[8000:8003] = b'YOU'")
    page = open_page(service)
    expect(page.locator("#rows tr").nth(2)).to_contain_text("weights[46, 56]: 0.5 → nan")
    expect(page.locator("#rows tr").nth(1)).to_contain_text("records[3, 20].rate: 0 → 1.5")
    expect(page.locator("#rows tr").nth(0)).to_contain_text("xxx → YOU")
    row = page.locator("#variables tr", has=page.get_by_text("weights", exact=True))
    expect(row).to_contain_text("[46, 56]: 0.5 → nan")


def test_a_guess_does_not_look_like_proof(watched: Callable[..., Watched], open_page: Callable[..., Any]) -> None:
    """Not by its colour: by its words, its slant and its border."""
    page = open_page(watched())
    styles = page.evaluate(
        """['exact', 'page', 'none'].map((attribution) => {
          const writer = { frames: [{ function: 'f', file: '/srv/app.py', line: 7 }] };
          const where = { attribution, reason: 'unknown', frames: [], page_writer: null };
          if (attribution === 'exact') Object.assign(where, writer);
          if (attribution === 'page') where.page_writer = writer;
          const node = element('div', {}, ...authorNodes({ where }));
          document.querySelector('#no-events').append(node);
          const mark = node.querySelector('.sure') ?? node.querySelector('.who');
          const style = getComputedStyle(mark), who = getComputedStyle(node.querySelector('.who'));
          return [node.textContent, style.borderTopStyle, who.fontStyle];
        })"""
    )
    assert styles[0] == ["fproof app.py:7", "solid", "normal"]
    assert styles[1] == ["perhaps fguess app.py:7", "dashed", "italic"]
    assert styles[2][0].startswith("unknown")
    assert styles[2][2] == "italic"


def test_how_sure_is_seen_beside_a_long_function(
    watched: Callable[..., Watched], open_page: Callable[..., Any], looks: dict[str, Any]
) -> None:
    page = page_of_three_changes(watched, open_page, looks)
    cut = page.evaluate(
        """() => {
          document.querySelectorAll('.c-who b').forEach((name) => { name.textContent += '_and_more'.repeat(9); });
          const right = (node) => node.getBoundingClientRect().right;
          const marks = [...document.querySelectorAll('tbody .sure')];
          return [marks.length, marks.filter((mark) => right(mark) > right(mark.closest('.c-who')) + 1).length];
        }"""
    )
    assert cut[0] >= 6
    assert cut[1] == 0


def test_a_variable_is_opened(watched: Callable[..., Watched], open_page: Callable[..., Any]) -> None:
    service = watched()
    for value in (1, 2, 3):
        service.do(f"measure({value})")
    page = open_page(service)
    page.goto(page.url + "#/variable/temperature")
    body = page.locator("#detail-body")
    expect(body).to_contain_text("temperature: 2 → 3")
    expect(body.locator("svg.chart")).to_have_attribute("aria-label", _contains("values from 1 to 20, 3 changes"))
    expect(body).to_contain_text("100 %")
    expect(body.locator(".blame")).to_contain_text("all of it")
    expect(body.locator(".history tbody tr")).to_have_count(3)
    expect(body.locator("pre.value")).to_have_text("3")
    page.get_by_role("slider").focus()
    page.keyboard.press("Home")
    expect(body.locator("pre.value")).to_have_text("20")
    expect(body.locator(".dump mark").first).to_be_visible()
    body.get_by_role("link", name="event 3").click()
    expect(page.locator("#detail-title")).to_have_text("Event 3")
    expect(body).to_contain_text("Proof: this store")
    page.go_back()
    expect(page.locator("#detail-title")).to_have_text("temperature")


def _contains(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text))


def test_blame_names_fields_and_elements(watched: Callable[..., Watched], open_page: Callable[..., Any]) -> None:
    service = watched()
    service.do("reconfigure()")
    service.do("config.retries = 9")
    page = open_page(service)
    page.goto(page.url + "#/variable/config")
    blame = page.locator(".blame tbody tr")
    expect(blame.filter(has_text="reconfigure")).to_contain_text(".rate_limit")
    expect(blame.filter(has_text="event 2")).to_contain_text(".retries")
    expect(blame.filter(has_text="not changed")).to_contain_text(".timeout_ms")


def test_pause_stops_everything(watched: Callable[..., Watched], open_page: Callable[..., Any]) -> None:
    service = watched()
    service.do("measure(1)")
    page = open_page(service)
    expect(page.locator("#variables tr").nth(0)).to_contain_text("20 → 1")
    page.keyboard.press("p")
    before = page.locator("main").inner_text()
    service.do("measure(2)")
    expect(page.locator("#held")).to_contain_text("1 waiting")
    assert page.locator("main").inner_text() == before
    page.keyboard.press("p")
    expect(page.locator("#variables tr").nth(0)).to_contain_text("1 → 2")


def test_sorted_and_filtered(watched: Callable[..., Watched], open_page: Callable[..., Any]) -> None:
    service = watched()
    three_changes(service)
    page = open_page(service)
    first = page.locator("#variables tr").nth(0)
    expect(first).to_contain_text("name")
    page.get_by_role("button", name="Name").click()
    expect(first).to_contain_text("config")
    expect(page.get_by_role("columnheader", name="Name")).to_have_attribute("aria-sort", "ascending")
    page.keyboard.press("/")
    page.keyboard.type("temp")
    expect(page.locator("#variables tr")).to_have_count(1)
    expect(page.locator("#rows tr")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("#rows tr")).to_have_count(3)


def test_keyboard_alone(watched: Callable[..., Watched], open_page: Callable[..., Any]) -> None:
    page = page_of_three_changes(watched, open_page, {})
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("pause everything")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("v")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#detail-title")).to_have_text("config")
    assert page.evaluate("document.activeElement.id") == "detail-title"
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    assert page.evaluate("document.activeElement.closest('tbody').id") == "variables"
    page.keyboard.press("e")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(page.locator("#detail-title")).to_have_text("Event 1")
    page.keyboard.press("Escape")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.slice(0, 8)"))
    assert {"filter", "pause", "keys", "health-line", "Name", "Who wrot", "When", "Rate"} <= reached


def test_axe_finds_nothing_serious(
    watched: Callable[..., Watched], open_page: Callable[..., Any], looks: dict[str, Any]
) -> None:
    page = page_of_three_changes(watched, open_page, looks)

    def check(what: str) -> None:
        found = [
            f"{what}: {rule['id']}: {rule['nodes'][0]['html'][:200]}"
            for rule in axe.Axe().run(page).response["violations"]
            if rule["impact"] in ("serious", "critical")
        ]
        assert found == []

    check("the lists")
    page.keyboard.press("?")
    check("the keys")
    page.keyboard.press("Escape")
    for hash_ in ("#/variable/config", "#/event/1"):
        page.evaluate("(hash) => { location.hash = hash; }", hash_)
        expect(page.locator("#detail-body h3").last).to_be_visible()
        check(hash_)


def test_ten_thousand_variables_are_few_nodes(watched: Callable[..., Watched], open_page: Callable[..., Any]) -> None:
    """The nodes and what is kept have a bound; how long frames take is the bench's (bench/bench_page.py)."""
    service = watched(10000)
    page = open_page(service)
    expect(page.locator("#variables-count")).to_contain_text("10,005 variables")
    for i in range(20):
        service.do(f"touch({i * 150}, 150)")
    wait_for(lambda: page.evaluate("state.seq") >= 3000, "the events")
    counts = page.evaluate("['*', '#variables tr'].map((what) => document.querySelectorAll(what).length)")
    assert counts[0] < 1500
    assert 3 <= counts[1] < 40
    assert page.evaluate("state.events.length") <= 1100
    page.keyboard.press("v")
    page.keyboard.press("End")
    expect(page.locator("#variables tr:focus")).to_have_attribute("aria-rowindex", "10006")
    page.keyboard.press("/")
    page.keyboard.type("item00007")
    expect(page.locator("#variables tr")).to_have_count(1)
    expect(page.locator("#variables tr")).to_contain_text("0 → 1")


def test_a_drawing_touches_the_rows_that_changed(
    watched: Callable[..., Watched], open_page: Callable[..., Any]
) -> None:
    """Rows that others push down, or that stand still, stay as they are but for what tells the time."""
    service = watched(100)
    service.do("touch(0, 60)")
    page = open_page(service)
    first = page.locator("#variables tr").nth(0), page.locator("#rows tr").nth(0)
    expect(first[0]).to_contain_text("item00059")
    expect(first[1]).to_contain_text("item00059: 0 → 1")
    page.evaluate(
        """() => { window.touched = { variables: new Set(), rows: new Set() };
          const see = (records) => {
            for (const { target, addedNodes } of records) {
              const part = target.nodeType === Node.TEXT_NODE ? target.parentElement : target;
              if (part.closest('.c-when, .c-rate')) continue;
              const rows = part.tagName === 'TBODY' ? addedNodes : [part.closest('tr')];
              for (const row of rows) touched[part.closest('tbody').id].add(row);
            }
          };
          for (const id in touched)
            new MutationObserver(see).observe($(id), { childList: true, characterData: true, subtree: true }); }"""
    )
    service.do("touch(3, 2)")
    expect(first[0]).to_contain_text("item00004")
    expect(first[1]).to_contain_text("item00004: 1 → 2")
    assert page.evaluate("[touched.variables.size, touched.rows.size]") == [2, 2]


def test_the_slowest_frame_of_a_burst_is_not_long(
    watched: Callable[..., Watched], open_page: Callable[..., Any]
) -> None:
    """A burst draws what is in sight, not what came: far fewer drawings than events."""
    service = watched(500)
    page = open_page(service)
    page.evaluate(
        """() => { window.bound = 0;
          const bind = shown.events.bind; shown.events.bind = (...row) => { bound++; bind(...row); }; }"""
    )
    begun = time.monotonic()
    for _ in range(10):
        service.do("touch(0, 500)")
    wait_for(lambda: page.evaluate("state.seq") >= 5000, "the events")
    drawings = 4 * (time.monotonic() - begun) + 8
    assert page.evaluate("bound") <= drawings * page.evaluate("shown.events.nodes.size")

"""What the hub counts never falls, and nobody is said to have ended who only does not answer: over workers that are
played."""

import asyncio
import json
import re
from types import SimpleNamespace

import pytest

from memwatch._cli.found import at_address
from memwatch._hub import workers as hub_workers
from memwatch._hub.upstream import Gone, Late
from memwatch._hub.workers import OPENMETRICS, PLAIN, Workers

TEXTS = {
    PLAIN: "# TYPE x_total counter\n# HELP x_total X.\nx_total %d\n",
    OPENMETRICS: "# TYPE x counter\n# HELP x X.\nx_total %d\n# EOF\n",
}


class Played:
    """An exporter."""

    def __init__(self, epoch):
        self.n = 0
        self.status = 200
        self.wrong = None
        url = f"http://127.0.0.1:{9000 + int(epoch)}/"
        self.found = at_address(url)._replace(service="shop", epoch=epoch, said={"pid": int(epoch)})

    async def scrape(self, accept, *, values):
        """What Upstream.scrape gives."""
        if self.wrong:
            raise self.wrong
        return self.status, (TEXTS[accept] % self.n if self.status == 200 else "busy").encode()

    async def get(self, path, headers):
        """The status."""
        if self.wrong:
            raise self.wrong
        said = {"service": "shop", "pid": self.found.pid, "epoch": self.found.epoch}

        async def whole():
            return json.dumps(said if self.status == 200 else {"error": "busy"}).encode()

        connection = SimpleNamespace(epoch=self.found.epoch, close=self.close)
        return connection, SimpleNamespace(status=self.status, whole=whole)

    def close(self):
        """Of the connection."""


class House:
    """A hub's workers, and who is to be found."""

    def __init__(self, monkeypatch, urls=()):
        self.there = {}
        monkeypatch.setattr(hub_workers, "Upstream", lambda found: self.there[found.url])
        monkeypatch.setattr(
            hub_workers.files, "candidates", lambda _: [] if urls else [each.found for each in self.there.values()]
        )
        self.workers = Workers([], [at_address(url) for url in urls])

    def come(self, played):
        """There is one more."""
        self.there[played.found.url] = played
        return played

    async def scrape(self, accept=PLAIN):
        """What a client gets: the sum of the counter."""
        await self.workers.refresh()
        await self.workers.scrape(accept, values=True)
        text = self.workers.merged(accept, values=True, own=b"").decode()
        return sum(int(n) for n in re.findall(r"^x_total\S* (\d+)$", text, re.MULTILINE))


def played(test):
    """Runs it in a loop."""

    def run(monkeypatch):
        asyncio.run(test(monkeypatch))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@played
async def test_what_only_one_format_was_told_is_kept(monkeypatch):
    house = House(monkeypatch)
    one = house.come(Played("1"))
    one.n = 90
    assert await house.scrape() == 90  # the hub's own, each second
    one.n = 100
    assert await house.scrape(OPENMETRICS) == 100
    house.there.clear()
    assert await house.scrape(OPENMETRICS) == 100
    assert await house.scrape() == 100
    house.come(Played("2")).n = 3
    assert await house.scrape(OPENMETRICS) == 103


@played
async def test_a_scrape_that_is_refused_takes_nothing_away(monkeypatch):
    house = House(monkeypatch)
    one = house.come(Played("1"))
    one.n = 7
    assert await house.scrape() == 7
    one.status = 503
    assert await house.scrape() == 7
    assert [worker.up for worker in house.workers.workers.values()] == [False]
    one.wrong = Gone()
    assert await house.scrape() == 7


@pytest.mark.parametrize("accept", [PLAIN, OPENMETRICS])
def test_one_that_was_taken_for_dead_and_hangs_when_it_is_back(monkeypatch, accept):
    async def test():
        house = House(monkeypatch)
        one = house.come(Played("1"))
        one.n = 7
        assert await house.scrape(accept) == 7
        house.there.clear()
        assert await house.scrape(accept) == 7
        house.come(one)
        await house.workers.refresh()
        one.wrong = Late()
        assert await house.scrape(accept) == 7
        one.wrong, one.n = None, 8
        assert await house.scrape(accept) == 8

    asyncio.run(test())


@pytest.mark.parametrize("how", ["late", "busy"])
def test_one_of_an_address_that_does_not_answer_now_has_not_ended(monkeypatch, how):
    async def test():
        one = Played("1")
        house = House(monkeypatch, [one.found.url])
        house.come(one).n = 7
        assert await house.scrape() == 7
        one.status, one.wrong = (503, None) if how == "busy" else (200, Late())
        assert await house.scrape() == 7
        (worker,) = house.workers.workers.values()
        assert (worker.up, worker.found.service, house.workers.n_ended) == (False, "shop", {})
        one.wrong = Gone()
        assert await house.scrape() == 7
        assert (house.workers.workers, house.workers.n_ended) == ({}, {"shop": 1})

    asyncio.run(test())

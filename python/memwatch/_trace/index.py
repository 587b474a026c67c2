"""Which watches concern which code.

DESIGN  Engines share this: watches by the words that mention them, and for a code object the pairs of site and watch
that have to be checked. Most code shares no word with any watch and is told so by one set operation.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from types import CodeType, FrameType

from memwatch._native import core
from memwatch._trace.code import Kind, Site, names_of, scan, strings_of
from memwatch._trace.frames import is_own
from memwatch._trace.targets import ItemTarget, LocalTarget
from memwatch._trace.watch import Watch

Pair = tuple[Site, Watch]

_CHANGES_INSIDE = (Kind.ATTRIBUTE, Kind.ITEM, Kind.CALL)


class Entry:
    """What is checked at one place."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs

    def look_closer(self, frame: FrameType) -> None:
        for site, watch in self.pairs:
            watch.check(site, frame)

    def spot(self) -> core.Spot:
        """What the core calls this for where a glance is not certain."""
        glances = {id(watch): watch.glance for _, watch in self.pairs}
        return core.Spot(tuple(glances.values()), self.look_closer)


LOOK_CLOSER = Entry.look_closer.__code__
"""A thread that runs it may be about to report."""


def words_of(watches: Iterable[Watch]) -> frozenset[str]:
    """The words by which code can mention one of them."""
    return frozenset().union(*(watch.target.words for watch in watches))


def mentions(code: CodeType, words: frozenset[str]) -> bool:
    """Whether the code mentions one of the words, so that what is checked in it may change."""
    return not (words.isdisjoint(names_of(code)) and words.isdisjoint(strings_of(code)))


class Index:
    """The engine's watches. Callers hold the engine's lock."""

    def __init__(self) -> None:
        self._by_word: dict[str, dict[int, Watch]] = {}
        self.watches: dict[int, Watch] = {}
        self._scans: dict[int, tuple[weakref.ref[CodeType], list[Site]]] = {}
        """By the id of the code, as long as that lives."""

    def _sites(self, code: CodeType) -> list[Site]:
        key = id(code)
        known = self._scans.get(key)
        if known is None:
            scans = self._scans
            known = weakref.ref(code, lambda _: scans.pop(key, None)), scan(code)
            scans[key] = known
        return known[1]

    def add(self, watch: Watch) -> None:
        self.watches[id(watch)] = watch
        for word in watch.target.words:
            self._by_word.setdefault(word, {})[id(watch)] = watch

    def remove(self, watch: Watch) -> None:
        self.watches.pop(id(watch), None)
        for word in watch.target.words:
            watches = self._by_word.get(word, {})
            watches.pop(id(watch), None)
            if not watches:
                self._by_word.pop(word, None)

    def clear(self) -> None:
        self._by_word.clear()
        self.watches.clear()
        self._scans.clear()

    def pairs(self, code: CodeType) -> list[Pair]:
        """What has to be checked in this code, in ascending order of offset."""
        names, strings = names_of(code), strings_of(code)
        words = self._by_word.keys() & (names | strings)
        if not words or is_own(code):
            return []
        found = {key: watch for word in words for key, watch in self._by_word[word].items()}
        watches = sorted(found.values(), key=lambda watch: watch.region_id)
        return list(_chosen(self._sites(code), code, watches, names, strings))


def _chosen(
    sites: list[Site], code: CodeType, watches: list[Watch], names: set[str], strings: set[str]
) -> Iterable[Pair]:
    inside = {id(watch) for watch in watches if _may_change_inside(watch, code, names, strings)}
    for site in sites:
        reaches = site.kind in _CHANGES_INSIDE
        for watch in watches:
            if watch.target.binds(site) or (reaches and id(watch) in inside and watch.name not in site.hidden):
                yield site, watch


def _may_change_inside(watch: Watch, code: CodeType, names: set[str], strings: set[str]) -> bool:
    """Whether the code can change it by other means than binding it: in place, or by its name as a string."""
    target = watch.target
    if isinstance(target, ItemTarget):
        return target.sees(code, names | strings)
    if watch.inplace and target.sees(code, names):
        return True
    return watch.name in strings and not isinstance(target, LocalTarget)

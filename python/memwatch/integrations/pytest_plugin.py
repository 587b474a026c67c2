"""Which test changed this: a plugin of pytest, inactive without `--memwatch`.

    @pytest.mark.unchanged("package.module.CONFIG")

fails a test that changes the variable, and says from what to what, and for memory (arrays, bytearrays, ...) who wrote.
Values of fixtures that tests share (class, module, package, session) are watched, too: the summary names the test that
changed one.

DESIGN  What has a buffer is watched by a MemoryWatcher: it names the line. Anything else is compared with a copy from
before the test: it names the test. What can be neither watched nor copied is left alone.
"""

from __future__ import annotations

import copy
import importlib
from typing import Any, Iterator, Optional

import pytest

import memwatch

SHARED = ("class", "module", "package", "session")
PROPERTY = "memwatch"
SHORT = 200


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHORT else text[: SHORT - 3] + "..."


def resolve(path: str) -> tuple[Any, Any, str]:
    """The value that "package.module.NAME.attribute" names, what holds it, and under which name."""
    parts = path.split(".")
    for n in range(len(parts) - 1, 0, -1):
        try:
            holder: Any = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError as error:
            if error.name and ".".join(parts[:n]).startswith(error.name):
                continue
            raise
        for part in parts[n:-1]:
            holder = getattr(holder, part)
        return getattr(holder, parts[-1]), holder, parts[-1]
    raise ImportError(f"there is no module in {path!r}: it is package.module.NAME")


class Held:
    """One thing that should not change during a test."""

    def __init__(self, name: str, value: Any, plugin: Plugin, holder: Any = None, attribute: str = "") -> None:
        self.name, self._value = name, value
        self._holder, self._attribute = holder, attribute
        self._before: Any = None
        self._plugin = plugin
        self._region: Optional[int] = plugin.watch(value, name)
        self._copied = self._region is None
        if self._copied:
            try:
                self._before = copy.deepcopy(value)
                self._copied = bool(value == self._before)  # a value that is no equal of its copy says nothing
            except Exception:
                self._copied = False

    def changes(self) -> list[str]:
        """What changed since, as lines; empty when nothing did."""
        lines = []
        if self._holder is not None:
            now = getattr(self._holder, self._attribute, None)
            if now is not self._value and not self._equal(now, self._value):
                lines.append(f"{self.name}: bound to another value, {_short(self._value)} -> {_short(now)}")
        if self._region is not None:
            lines += self._plugin.events(self._region)
        elif self._copied and not self._equal(self._value, self._before):
            lines.append(f"{self.name}: {_short(self._before)} -> {_short(self._value)}")
        return lines

    @staticmethod
    def _equal(one: Any, other: Any) -> bool:
        try:
            return bool(one == other)
        except Exception:
            return True  # whoever cannot say says nothing

    def end(self) -> None:
        """The test is over."""
        if self._region is not None:
            self._plugin.watcher.unwatch(self._region)


class Plugin:
    """What is active with `--memwatch`."""

    def __init__(self) -> None:
        self.watcher = memwatch.MemoryWatcher(attribution_budget=1.0, window_ms=1)
        self._n = 0
        self._shared: dict[int, dict[str, Any]] = {}

    def watch(self, value: Any, name: str) -> Optional[int]:
        """The region of what has a buffer; None: it has none that can be watched."""
        self._n += 1
        try:
            return self.watcher.watch(value, f"{name[:200]}#{self._n}", values="full")
        except (TypeError, ValueError, BufferError, memwatch.Error):
            return None

    def events(self, region: int) -> list[str]:
        """The events of a region, as lines."""
        self.watcher.flush()
        found = []
        for event in self.watcher.history(region):
            name = event.variable_name.rpartition("#")[0]
            summary = event.summary.replace(event.variable_name, name, 1)
            found.append(f"{summary}, by {event.where}")
        return found

    # --- hooks ---

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Holds what the test should leave alone."""
        held = [Held(path, *self._named(path)) for path in _paths(item)]
        shared = [Held(f"fixture {name!r}", value, self) for name, value in _shared_fixtures(item)]
        try:
            yield
            changed = [line for each in held for line in each.changes()]
            for each in shared:
                lines = each.changes()
                if lines:
                    item.user_properties.append((PROPERTY, f"{each.name} changed by {item.nodeid}"))
                    item.add_report_section("call", "memwatch", "\n".join(lines))
                    item.user_properties += [(PROPERTY, f"    {line}") for line in lines]
            if changed:
                pytest.fail("changed, and is marked as unchanged:\n" + "\n".join(changed), pytrace=False)
        finally:
            for each in held + shared:
                each.end()

    def _named(self, path: str) -> tuple[Any, Plugin, Any, str]:
        try:
            value, holder, attribute = resolve(path)
        except (ImportError, AttributeError) as error:
            pytest.fail(f"unchanged({path!r}): {error}", pytrace=False)
        return value, self, holder, attribute

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Names the tests that changed what they share, also those that ran in processes of their own (xdist)."""
        lines = [
            text
            for reports in terminalreporter.stats.values()
            for report in reports
            if getattr(report, "when", "") == "call"
            for name, text in report.user_properties
            if name == PROPERTY
        ]
        if lines:
            terminalreporter.section("memwatch: shared fixtures that tests changed")
            for line in lines:
                terminalreporter.line(line)

    def pytest_unconfigure(self) -> None:
        """The end."""
        self.watcher.close()


def _paths(item: pytest.Item) -> list[str]:
    return [path for marker in item.iter_markers("unchanged") for path in marker.args]


def _shared_fixtures(item: pytest.Item) -> list[tuple[str, Any]]:
    """The values of the fixtures that the test uses and others may use after it."""
    info, values = getattr(item, "_fixtureinfo", None), getattr(item, "funcargs", {})
    found = []
    for name, value in values.items():
        definitions = info.name2fixturedefs.get(name) if info is not None else None
        if definitions and definitions[-1].scope in SHARED and value is not None:
            found.append((name, value))
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    """--memwatch"""
    group = parser.getgroup("memwatch")
    group.addoption(
        "--memwatch", action="store_true", help="say which test changes what it shares or should leave unchanged"
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker is known with and without the option."""
    config.addinivalue_line(
        "markers", "unchanged(path, ...): with --memwatch, fails if the test changes package.module.NAME"
    )
    if config.getoption("--memwatch"):
        config.pluginmanager.register(Plugin(), "memwatch-active")

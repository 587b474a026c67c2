"""`memwatch top` with textual: a table that scrolls and sorts."""

from __future__ import annotations

from typing import Any, Callable

from textual.app import App
from textual.widgets import DataTable, Footer, Static

from memwatch._cli.frame import shown
from memwatch._cli.rates import HEAD, Row

Sample = Callable[[], tuple[list[Row], str]]
_SORTS: dict[str, Callable[[Row], Any]] = {
    "rate": lambda row: (-row.rate, -row.last_ms),
    "last": lambda row: -row.last_ms,
    "name": lambda row: (row.name, row.watcher),
}


class Screen(App[None]):  # type: ignore[misc]  # the library's types are not followed
    """One table and one line."""

    TITLE = "memwatch top"
    BINDINGS = [  # noqa: RUF012  # the library's own form
        ("q", "quit", "end"),
        ("r", "sort('rate')", "by rate"),
        ("l", "sort('last')", "by last change"),
        ("n", "sort('name')", "by name"),
        ("p", "pause", "pause"),
    ]

    def __init__(self, sample: Sample, seconds: float) -> None:
        super().__init__()
        self._sample, self._seconds = sample, seconds
        self._order, self._paused = "rate", False

    def compose(self) -> Any:
        """The widgets."""
        yield Static("", id="losses", markup=False)
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        """Begins to look."""
        self.query_one(DataTable).add_columns(*HEAD)
        self.set_interval(self._seconds, self._look)
        self._look()

    def action_sort(self, order: str) -> None:
        """By another column."""
        self._order = order
        self._look()

    def action_pause(self) -> None:
        """Stops looking, or goes on."""
        self._paused = not self._paused

    def _look(self) -> None:
        if not self._paused:
            self.run_worker(self._ask, thread=True, exclusive=True)

    def _ask(self) -> None:
        """On a thread, so that keys are answered meanwhile."""
        rows, losses = self._sample()
        self.call_from_thread(self._show, rows, losses)

    def _show(self, rows: list[Row], losses: str) -> None:
        from rich.text import Text

        table = self.query_one(DataTable)
        place = table.cursor_row
        table.clear()
        for row in sorted(rows, key=_SORTS[self._order]):
            table.add_row(*(Text(shown(cell)) for cell in row.cells()))
        table.move_cursor(row=min(place, max(len(rows) - 1, 0)))
        rate = sum(row.rate for row in rows)
        self.query_one("#losses", Static).update(shown(f"{len(rows)} variables, {rate:.0f} changes/s, {losses}"))


def run_screen(sample: Sample, seconds: float) -> None:
    """Until q is typed."""
    Screen(sample, seconds).run()

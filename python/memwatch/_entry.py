"""What a watcher knows of a region beside the core."""

from __future__ import annotations

from memwatch._decode import Layout
from memwatch._event import ChangeEvent
from memwatch._typing import Any, Callable, NamedTuple, Optional, Union

Callback = Callable[[ChangeEvent], object]
Condition = Union[None, str, tuple[Any, ...], Callable[[ChangeEvent], object]]


class Again(NamedTuple):
    """How a region was watched, for a forked child to do the same."""

    obj: object
    name: str
    options: dict[str, Any]
    """Of the core's region_add, or of the adapter's track."""
    adapter: str = ""


class Entry:
    """What the watcher knows of a region beside the core."""

    __slots__ = ("adapter", "again", "bound", "callback", "layout", "when")

    def __init__(
        self,
        layout: Optional[Layout] = None,
        callback: Optional[Callback] = None,
        when: Optional[Callable[[ChangeEvent], object]] = None,
        adapter: Any = None,
        bound: Any = None,
    ) -> None:
        self.layout = layout
        self.callback = callback
        self.when = when
        self.adapter = adapter
        self.bound = bound
        """The name behind which this region lies, or whose binding it is."""
        self.again: Optional[Again] = None
        """How a forked child watches it, where it does."""

    @classmethod
    def of(cls, adapter: Any, region_id: int, callback: Optional[Callback]) -> Entry:
        """Of a region that an adapter watches, which may say how its values read."""
        layout_of = getattr(adapter, "layout_of", None)
        return cls(None if layout_of is None else layout_of(region_id), callback, adapter=adapter)

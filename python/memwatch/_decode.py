"""From a region's bytes to values: what the watched object was says how its bytes read."""

from __future__ import annotations

import math
import operator
import struct
import sys
from itertools import product

from memwatch import _form
from memwatch._typing import Any, Callable, Iterator, NamedTuple, Optional, Union

ELEMENTS_MAX = 64
_BLOCK = 4096  # bytes that are compared at once
_NUMBERS = frozenset("?bBhHiIlLqQnNefd")


class Element(NamedTuple):
    """One element that changed: its index, and what it was and is.

    The index is empty for a scalar; names of a structure's members, and indices inside them, stand at its end.
    """

    index: tuple[Union[int, str], ...]  # type: ignore[assignment]  # the word users look for; tuple.index is not missed
    old: Any
    new: Any


class Layout:
    """How a region's bytes read: items of a form, in a shape."""

    __slots__ = ("form", "format", "fortran_order", "is_array", "item_bytes", "shape")

    def __init__(
        self,
        format: str = "",
        item_bytes: int = 1,
        shape: tuple[int, ...] = (),
        fortran_order: bool = False,
        form: Optional[_form.Form] = None,
        is_array: bool = False,
    ) -> None:
        self.format = format
        self.item_bytes = item_bytes
        self.shape = shape
        self.fortran_order = fortran_order
        self.form = form or (_of_text(format, item_bytes) if format else _form.Raw(item_bytes))
        self.is_array = is_array
        """Whether its values are NumPy's arrays."""

    @classmethod
    def of(cls, obj: object) -> Optional[Layout]:
        """The layout of an object that says more than its buffer does; None when the event's own will do."""
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(obj, (numpy.ndarray, numpy.generic)):
            fortran = obj.ndim > 1 and not obj.flags.c_contiguous
            return _of_form(_form.of_dtype(obj.dtype), obj.shape, fortran, True)
        if "ctypes" in sys.modules:  # else the object is none of its
            return _of_ctypes(obj)
        return None

    @property
    def is_bytes(self) -> bool:
        """Whether the bytes themselves are the value."""
        return isinstance(self.form, _form.Raw)

    def value(self, data: bytes) -> Any:
        """The whole value: a number, an array, a record, a (nested) list, text, or the bytes."""
        if self.is_bytes or len(data) % self.item_bytes:
            return data
        if not self.shape:
            return self.form.value(data)
        array = self.array(data, sys.modules.get("numpy")) if self.is_array else None
        if array is not None:
            return array
        return _form.nested(self.form, self._in_c_order(data) if self.fortran_order else data, self.shape)

    def array(self, data: bytes, numpy: Any) -> Any:
        """The value as NumPy's array; None when it has no type for the items. Objects are their addresses."""
        dtype = None if numpy is None else self.form.dtype()
        if dtype is None:
            return None
        return numpy.frombuffer(data, dtype).reshape(self.shape, order="F" if self.fortran_order else "C")

    def _in_c_order(self, data: bytes) -> bytes:
        """The items as nested lists have them: the last index fastest."""
        size, strides = self.item_bytes, [math.prod(self.shape[:at]) for at in range(len(self.shape))]
        places = (sum(map(operator.mul, index, strides)) for index in product(*map(range, self.shape)))
        return b"".join(data[place * size : (place + 1) * size] for place in places)

    def index(self, position: int) -> tuple[int, ...]:
        """The index of the element at a position in memory order."""
        index = []
        for extent in self.shape if self.fortran_order else reversed(self.shape):
            position, at = divmod(position, extent)
            index.append(at)
        return tuple(index if self.fortran_order else reversed(index))


def _of_ctypes(obj: Any) -> Optional[Layout]:
    import ctypes

    from memwatch._form_ctypes import CTYPES, of_ctypes

    if not isinstance(obj, (ctypes.Array, *CTYPES)):
        return None
    kind: Any = type(obj)
    shape: tuple[int, ...] = ()
    while issubclass(kind, ctypes.Array):
        shape, kind = (*shape, kind._length_), kind._type_
    return _of_form(of_ctypes(kind), shape)


def _of_text(format: str, item_bytes: int) -> _form.Form:
    if format in _NUMBERS and struct.calcsize(format) == item_bytes:
        return _form.Number(_form.NATIVE, format, item_bytes)  # without what it takes to read other texts
    from memwatch._form_text import of_text

    return of_text(format, item_bytes)


def _of_form(form: _form.Form, shape: tuple[int, ...], fortran_order: bool = False, is_array: bool = False) -> Layout:
    plain = isinstance(form, (_form.Number, _form.Raw))  # the buffer's own format says as much
    return Layout("" if plain else form.text(), form.size, shape, fortran_order, form, is_array)


def read_shown(data: bytes) -> Any:
    """The value of a name from what was shown of it; the text itself when that is no literal, or was cut short."""
    from memwatch._literal import read  # here, because few programs need it

    return read(data.decode("utf-8", "replace"))


class Shown(Layout):
    """What was shown of an object, in place of its bytes."""

    __slots__ = ()

    def value(self, data: bytes) -> Any:
        return read_shown(data)


Reader = Callable[[int, int], Optional[tuple[bytes, bytes]]]
Piece = tuple[int, bytes, bytes]
"""Where it lies, and what it was and is."""


def elements_known(layout: Layout, changes: list[tuple[int, int]], pieces: list[Piece]) -> Iterator[Element]:
    """The elements in the changed ranges that differ, as far as the pieces show them, which are in order."""

    def read(at: int, to: int) -> Optional[tuple[bytes, bytes]]:
        for offset, old, new in pieces:
            if offset <= at and to <= offset + min(len(old), len(new)):
                return old[at - offset : to - offset], new[at - offset : to - offset]
        return None

    return elements(layout, list(_common(changes, pieces)), read)


def _common(changes: list[tuple[int, int]], pieces: list[Piece]) -> Iterator[tuple[int, int]]:
    """The parts of the ranges that the pieces show: the last range may span very much that they do not."""
    for at, old, new in pieces:
        for offset, length in changes:
            begin, end = max(offset, at), min(offset + length, at + min(len(old), len(new)))
            if begin < end:
                yield begin, end - begin


def elements(layout: Layout, changes: list[tuple[int, int]], read: Reader) -> Iterator[Element]:
    """The elements in the changed ranges that differ; `read(begin, end)` gives bytes before and after, or None.

    What cannot be read is passed over.
    """
    size, count, last = layout.item_bytes, 0, -1
    for offset, length in changes:
        first, end = max(offset // size, last + 1), (offset + length - 1) // size + 1
        for position, old, new in _differing(first, end, size, read):
            for path, before, after in layout.form.parts(old, new):
                index = (*layout.index(position), *path)
                yield Element(index, _as_array(before, layout), _as_array(after, layout))
                count += 1
                if count == ELEMENTS_MAX:
                    return
        last = max(last, end - 1)


def _as_array(value: Any, layout: Layout) -> Any:
    """A vector inside a NumPy array's item is an array, too."""
    return sys.modules["numpy"].array(value) if layout.is_array and type(value) is list else value


def _differing(first: int, end: int, size: int, read: Reader) -> Iterator[tuple[int, bytes, bytes]]:
    """The items from `first` to `end` that differ, with their bytes before and after."""
    step = max(_BLOCK // size, 1)
    for block in range(first, end, step):
        n = min(step, end - block)
        data = read(block * size, (block + n) * size)
        if data is None:
            yield from _one_by_one(block, n, size, read)
        elif data[0] != data[1]:
            for at in range(n):
                old, new = (each[at * size : (at + 1) * size] for each in data)
                if old != new:
                    yield block + at, old, new


def _one_by_one(first: int, n: int, size: int, read: Reader) -> Iterator[tuple[int, bytes, bytes]]:
    for position in range(first, first + n):
        data = read(position * size, (position + 1) * size)
        if data is not None and data[0] != data[1]:
            yield position, *data

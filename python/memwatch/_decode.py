"""From a region's bytes to values: what the watched object was says how its bytes read."""

from __future__ import annotations

import ctypes
import struct
import sys
from typing import Any, Callable, Iterator, NamedTuple, Optional, Union

ELEMENTS_MAX = 64


class Element(NamedTuple):
    """One element that changed: its index, and what it was and is.

    The index is empty for a scalar; field names of a structure stand at its end.
    """

    index: tuple[Union[int, str], ...]  # type: ignore[assignment]  # the word users look for; tuple.index is not missed
    old: Any
    new: Any


class Layout:
    """How a region's bytes read: by a NumPy dtype, a ctypes class, or a format of the struct module."""

    __slots__ = ("ctype", "dtype", "format", "fortran_order", "item_bytes", "shape")

    def __init__(
        self,
        format: str = "",
        item_bytes: int = 1,
        shape: tuple[int, ...] = (),
        fortran_order: bool = False,
        dtype: Any = None,
        ctype: Any = None,
    ) -> None:
        self.format = format
        self.item_bytes = item_bytes
        self.shape = shape
        self.fortran_order = fortran_order
        self.dtype = dtype
        self.ctype = ctype

    @classmethod
    def of(cls, obj: object) -> Optional[Layout]:
        """The layout of an object that says more than its buffer does; None when the event's own will do."""
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(obj, (numpy.ndarray, numpy.generic)):
            if obj.dtype.hasobject:
                return cls(item_bytes=obj.dtype.itemsize, shape=obj.shape)
            fortran = obj.ndim > 1 and not obj.flags.c_contiguous
            return cls("", obj.dtype.itemsize, obj.shape, fortran, dtype=obj.dtype)
        if isinstance(obj, (ctypes.Structure, ctypes.Union, ctypes._SimpleCData)):
            return cls("", ctypes.sizeof(obj), (), ctype=type(obj))
        return None

    @property
    def is_bytes(self) -> bool:
        """Whether the bytes themselves are the value."""
        return self.dtype is None and self.ctype is None and not _is_number_format(self.format)

    def value(self, data: bytes) -> Any:
        """The whole value: a number, an array, a ctypes object, a (nested) list, or the bytes."""
        if self.ctype is not None:
            return self._ctypes_value(data)
        if self.dtype is not None:
            return self._numpy_value(data)
        if self.is_bytes:
            return data
        if not self.shape:
            return struct.unpack(self.format, data)[0]
        return self._listed(data)

    def item(self, data: bytes) -> Any:
        """One element's value."""
        if self.ctype is not None:
            return self._ctypes_value(data)
        if self.dtype is not None:
            return _plain(sys.modules["numpy"].frombuffer(data, self.dtype)[0])
        return data if self.is_bytes else struct.unpack(self.format, data)[0]

    def index(self, position: int) -> tuple[int, ...]:
        """The index of the element at a position in memory order."""
        index = []
        for extent in self.shape if self.fortran_order else reversed(self.shape):
            position, at = divmod(position, extent)
            index.append(at)
        return tuple(index if self.fortran_order else reversed(index))

    def _ctypes_value(self, data: bytes) -> Any:
        value = self.ctype.from_buffer_copy(data)
        return value.value if isinstance(value, ctypes._SimpleCData) else value

    def _numpy_value(self, data: bytes) -> Any:
        array = sys.modules["numpy"].frombuffer(data, self.dtype)
        if not self.shape:
            return _plain(array[0])
        return array.reshape(self.shape, order="F" if self.fortran_order else "C")

    def _listed(self, data: bytes) -> Any:
        items = [item[0] for item in struct.iter_unpack(self.format, data)]
        if len(self.shape) < 2 or self.fortran_order:
            return items
        for extent in reversed(self.shape[1:]):
            items = [items[at : at + extent] for at in range(0, len(items), extent)]
        return items


def _is_number_format(format: str) -> bool:
    return len(format.lstrip("@=<>!")) == 1 and format[-1] in "bBhHiIlLqQnNefd?c"


def _plain(value: Any) -> Any:
    """A NumPy scalar as the Python number it stands for, where there is one."""
    return value.item() if value.dtype.kind in "biufc" and value.dtype.itemsize <= 16 else value


Reader = Callable[[int, int], Optional[tuple[bytes, bytes]]]


def elements(layout: Layout, changes: list[tuple[int, int]], read: Reader) -> Iterator[Element]:
    """The elements in the changed ranges that differ; `read(begin, end)` gives bytes before and after, or None."""
    size, count, last = layout.item_bytes, 0, -1
    for offset, length in changes:
        for position in range(max(offset // size, last + 1), (offset + length - 1) // size + 1):
            data = read(position * size, (position + 1) * size)
            if data is None:
                return
            last = position
            if data[0] != data[1]:
                for element in _parts(layout, layout.index(position), *data):
                    yield element
                    count += 1
                    if count == ELEMENTS_MAX:
                        return


def _parts(layout: Layout, index: tuple[int, ...], old: bytes, new: bytes) -> Iterator[Element]:
    """An element, or for a structure its fields that differ."""
    before, after = layout.item(old), layout.item(new)
    if layout.dtype is not None and layout.dtype.names:
        yield from _numpy_fields(layout.dtype, index, before, after)
    elif layout.ctype is not None and issubclass(layout.ctype, ctypes.Structure):
        yield from _ctypes_fields(layout.ctype, index, before, after)
    else:
        yield Element(index, before, after)


def _numpy_fields(dtype: Any, index: tuple[Union[int, str], ...], old: Any, new: Any) -> Iterator[Element]:
    for name in dtype.names:
        field, before, after = dtype.fields[name][0], old[name], new[name]
        if before.tobytes() == after.tobytes():
            continue
        if field.names:
            yield from _numpy_fields(field, (*index, name), before, after)
        else:
            plain = field.subdtype is None
            yield Element((*index, name), *((_plain(before), _plain(after)) if plain else (before, after)))


def _ctypes_fields(kind: Any, index: tuple[Union[int, str], ...], old: Any, new: Any) -> Iterator[Element]:
    for name, field, *bits in (entry for base in reversed(kind.__mro__) for entry in vars(base).get("_fields_", ())):
        before, after = getattr(old, name), getattr(new, name)
        at = getattr(kind, name)
        begin, end = at.offset, at.offset + ctypes.sizeof(field)
        if (before == after) if bits else (bytes(old)[begin:end] == bytes(new)[begin:end]):
            continue
        if isinstance(before, ctypes.Structure):
            yield from _ctypes_fields(type(before), (*index, name), before, after)
        elif isinstance(before, ctypes.Array):
            yield Element((*index, name), list(before), list(after))
        else:
            yield Element((*index, name), before, after)

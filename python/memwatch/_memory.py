"""Memory that owns its pages, and what a buffer's memory is backed by."""

from __future__ import annotations

import ctypes
import math
import mmap
from typing import TYPE_CHECKING, Any, Iterator, Sequence, Union

if TYPE_CHECKING:
    import numpy


class _Pages(mmap.mmap):
    """Anonymous pages of our own: unlike a file's, they cannot shrink under a reader."""


def buffer(size: int) -> memoryview:
    """`size` writable bytes, zeroed, on pages of their own: no neighbour's write costs them their author.

    A forked child has a copy, as of any other object.
    """
    if size < 1:
        raise ValueError(f"buffer({size}): a buffer has at least one byte")
    if hasattr(mmap, "MAP_PRIVATE"):
        return memoryview(_Pages(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    return memoryview(_Pages(-1, size))


def empty(shape: Union[int, Sequence[int]], dtype: Any = float) -> numpy.ndarray[Any, Any]:
    """A zeroed NumPy array on pages of its own."""
    import numpy

    extents = (shape,) if isinstance(shape, int) else tuple(shape)
    element = numpy.dtype(dtype)
    if element.hasobject:
        raise ValueError(f"empty(..., {element}): elements that are Python objects cannot live on pages of their own")
    size = math.prod(extents) * element.itemsize
    if size < 1:
        raise ValueError(f"empty({shape!r}, {element}): there are no bytes to watch")
    pages: numpy.ndarray[Any, Any] = numpy.frombuffer(buffer(size), dtype=element)
    return pages.reshape(extents)


def is_file_backed(obj: object) -> bool:
    """Whether the object's bytes may lie in a mapped file, which somebody else can truncate."""
    return any(isinstance(owner, mmap.mmap) and not isinstance(owner, _Pages) for owner in _owners(obj))


def _owners(obj: object) -> Iterator[object]:
    """The object and what its memory belongs to: a view's array, an array's buffer, a ctypes object's source."""
    pending, seen = [obj], 0
    while pending and seen < 64:
        owner = pending.pop()
        seen += 1
        yield owner
        if isinstance(owner, memoryview):
            pending.append(owner.obj)
        elif isinstance(owner, (ctypes._SimpleCData, ctypes.Structure, ctypes.Union, ctypes.Array)):
            pending.append(owner._b_base_)
            objects = owner._objects
            pending.extend(objects.values() if isinstance(objects, dict) else [objects])
        elif not isinstance(owner, (bytes, bytearray, mmap.mmap, type(None))):
            pending.append(getattr(owner, "base", None))

"""Memory that owns its pages, and whose memory stays."""

from __future__ import annotations

import array
import math
import mmap

from memwatch import _check
from memwatch._typing import TYPE_CHECKING, Any, Sequence, Union

if TYPE_CHECKING:
    import numpy


def buffer(size: int) -> memoryview:
    """`size` writable bytes, zeroed, on pages of their own: no neighbour's write costs them their author.

    A forked child has a copy, as of any other object.
    """
    _check.size(size, f"buffer({size!r})")
    if size < 1:
        raise ValueError(f"buffer({size}): a buffer has at least one byte")
    flags = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    try:
        return memoryview(mmap.mmap(-1, size, **flags))
    except (OSError, OverflowError) as error:
        raise MemoryError(f"buffer({size}): the system has no {size} bytes for it: {error}") from None


def empty(shape: Union[int, Sequence[int]], dtype: Any = float) -> numpy.ndarray[Any, Any]:
    """A zeroed NumPy array on pages of its own."""
    import numpy

    extents = (shape,) if not isinstance(shape, (tuple, list)) else tuple(shape)
    for extent in extents:
        _check.size(extent, f"empty({shape!r})")
    element = numpy.dtype(dtype)
    if element.hasobject:
        raise ValueError(f"empty(..., {element}): elements that are Python objects cannot live on pages of their own")
    size = math.prod(extents) * element.itemsize
    if size < 1:
        raise ValueError(f"empty({shape!r}, {element}): there are no bytes to watch")
    pages: numpy.ndarray[Any, Any] = numpy.frombuffer(buffer(size), dtype=element)
    return pages.reshape(extents)


def is_kept(obj: object) -> bool:
    """Whether the object's bytes cannot vanish while its buffer is exported.

    These types refuse to be resized then, and nobody but Python frees them. An array of NumPy or ctypes may be resized
    all the same, or lie in memory of others.
    """
    owner = obj.obj if isinstance(obj, memoryview) else obj
    return type(owner) in (bytes, bytearray, array.array)

"""Whose bytes a value is: what the core can watch of it, or why it cannot be watched, with what would help.

DESIGN  Classes are asked, not objects, as everywhere where names are looked at; only `__array_interface__` and DLPack
run code of the value's, once, when it is given to the core. A `bytearray` or `array.array` of ordinary size behind a
name is not handed to the core: the export would make its owner's `append` fail. It is compared.
"""

from __future__ import annotations

import array
import sys
from types import FunctionType

from memwatch._trace.values import BUFFER_LIMIT, MISSING, class_attribute
from memwatch._typing import Any, Optional

_CPU = 1  # DLPack's number of the device whose memory this process can read


def view_of(value: object) -> Optional[memoryview]:
    """The object's buffer; None when it has none, or a class written in Python makes it."""
    if type(class_attribute(type(value), "__buffer__")) is FunctionType:
        return None
    try:
        return memoryview(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        return None


def has_bytes_that_change(value: object) -> bool:
    """Whether the core can watch it as it is."""
    view = view_of(value)
    return view is not None and not view.readonly and view.nbytes > 0 and view.contiguous


def exported(value: Any) -> Any:
    """What has a buffer with the value's bytes: itself, or an array over a tensor's memory; None when nothing has."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(type(value), numpy.ndarray):
        return value  # also of a dtype that memoryview refuses
    if view_of(value) is not None:
        return value
    kind = type(value)
    if numpy is None or issubclass(kind, type):
        return None
    try:
        if _has(kind, "__array_interface__"):
            found = numpy.asarray(value)
        elif _has(kind, "__dlpack__") and _has(kind, "__dlpack_device__") and value.__dlpack_device__()[0] == _CPU:
            found = numpy.from_dlpack(value)
        else:
            return None
    except (TypeError, ValueError, RuntimeError, BufferError, AttributeError):
        return None
    return found if _owner_keeps(found) else None


def _owner_keeps(found: Any) -> bool:
    """Whether the array lies over somebody else's memory, and is no copy."""
    return not found.flags.owndata


def why_not(value: object) -> Optional[str]:
    """Why what a name holds cannot be watched although it changes; None when it can, or does not change."""
    kind = type(value)
    if issubclass(kind, type) or exported(value) is not None:
        return None
    if _has(kind, "__array__") or _has(kind, "__dataframe__") or _has(kind, "__dlpack__"):
        return (
            f"{an(kind)} keeps its values in arrays of its own: watch what `.to_numpy()` gives, where that is no copy, "
            "or the array that it was made from; track='binding' watches the name alone"
        )
    return None


def an(kind: type) -> str:
    """The class with its article."""
    name = kind.__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _has(kind: type, name: str) -> bool:
    return class_attribute(kind, name) is not MISSING


def behind_name(value: object) -> Optional[object]:
    """What the core watches for a name that holds the value; None when comparing it is enough, or all that is right."""
    kind = type(value)
    if issubclass(kind, (bytes, type)):
        return None
    if issubclass(kind, (bytearray, array.array)):
        view = view_of(value)
        return value if view is not None and view.nbytes > BUFFER_LIMIT else None
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, numpy.generic):
        return None
    found = exported(value)
    view = None if found is None else view_of(found)
    return None if found is None or (view is not None and view.nbytes == 0) else found


def item_of(container: Any, key: Any) -> Any:
    """A container's item as a buffer in the container's own memory; None when it is an object of its own."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(type(container), numpy.ndarray):
        item = container[key]
        if not issubclass(type(item), numpy.ndarray):
            keys = key if isinstance(key, tuple) else (key,)
            item = container[(*keys, Ellipsis)]
        if not numpy.may_share_memory(item, container):
            raise ValueError("this index makes a copy: watch the array, or a slice of it")
        return item
    ctypes = sys.modules.get("ctypes")
    arrays = (memoryview,) if ctypes is None else (memoryview, ctypes.Array)
    if issubclass(type(container), arrays):
        item = container[key]
        inner = arrays if ctypes is None else (*arrays, ctypes.Structure, ctypes.Union)
        return item if issubclass(type(item), inner) else None
    return None

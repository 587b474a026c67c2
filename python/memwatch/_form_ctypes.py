"""The form of a ctypes class's items. A module of its own, for who has such an object: ctypes takes its time."""

from __future__ import annotations

import ctypes

from memwatch._form import NATIVE, Array, Bits, Chars, Field, Form, Number, Pointer, Raw, Struct
from memwatch._typing import Any, Iterator

CTYPES = (ctypes.Structure, ctypes.Union, ctypes._SimpleCData, ctypes._Pointer, ctypes._CFuncPtr)  # type: ignore[attr-defined]
_POINTERS = "zZPOX"  # char *, wchar_t *, void *, PyObject *, BSTR


def of_ctypes(kind: Any) -> Form:
    """The form of a ctypes class's instances. No instance is made with the user's code, and none is asked."""
    size = ctypes.sizeof(kind)
    if issubclass(kind, ctypes.Array):
        return _ctypes_array(kind)
    if issubclass(kind, (ctypes.Structure, ctypes.Union)):
        return Struct(list(_ctypes_fields(kind)), size)
    if not issubclass(kind, ctypes._SimpleCData):
        return Pointer() if size == Pointer.size else Raw(size)
    letter = kind._type_
    order = ">" if memoryview(kind.from_buffer_copy(bytes(size))).format[:1] == ">" else NATIVE
    if letter in _POINTERS:
        return Pointer()
    if letter in "cu":
        return Chars(order, size, 1)
    return Number(order, "h" if letter == "v" else letter, size)  # v: Windows' VARIANT_BOOL


def _ctypes_array(kind: Any) -> Form:
    shape = []
    while issubclass(kind, ctypes.Array):
        shape.append(kind._length_)
        kind = kind._type_
    return Array(of_ctypes(kind), shape)


def _ctypes_fields(kind: Any) -> Iterator[Field]:
    for base in reversed(kind.__mro__):
        for name, form, *bits in vars(base).get("_fields_", ()):
            at = vars(base)[name]
            inner = of_ctypes(form)
            if bits and isinstance(inner, Number):
                inner = Bits(inner, at.size & 0xFFFF, at.size >> 16)
            yield Field(name, at.offset, inner)

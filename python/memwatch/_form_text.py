"""The form that a format's text says. A module of its own, imported with the first such text: `re` takes its time."""

from __future__ import annotations

import ctypes
import re
import struct
from functools import lru_cache

from memwatch._form import NATIVE, Array, Bits, Chars, Date, Field, Form, Number, Pointer, Raw, Struct
from memwatch._typing import Optional

_TOKEN = re.compile(
    r"(?P<order>[@=<>!^])?\s*(?:\((?P<shape>[\d,\s]+)\))?(?P<order2>[@=<>!^])?(?P<count>-?\d+)?"
    r"(?P<type>T\{|X\{\}|&|Z[fdg]|[Mm]8(?:\[[^\]]*\])?|[a-zA-Z?])(?:\[(?P<low>\d+):(?P<bits>\d+)\])?"
)
_NAME = re.compile(r":([^:]*):")
_SIZES = {"c": 1, "b": 1, "B": 1, "?": 1, "h": 2, "H": 2, "e": 2, "i": 4, "I": 4, "f": 4, "q": 8, "Q": 8, "d": 8}
_SIZES |= {"Zf": 8, "Zd": 16, "g": ctypes.sizeof(ctypes.c_longdouble), "Zg": 2 * ctypes.sizeof(ctypes.c_longdouble)}


class _Parser:
    """Reads one format from left to right; ValueError for what is none."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._order = text, 0, "@"

    def one(self) -> Form:
        """The whole text: an item, or a structure without a name when there are several."""
        fields, size = self._fields("")
        if len(fields) == 1 and not fields[0].name and fields[0].offset == 0 and fields[0].form.size == size:
            return fields[0].form
        if not fields or self._at != len(self._text):
            raise ValueError(f"{self._text!r} is no format")
        return Struct([Field(name or f"f{i}", at, form) for i, (name, at, form) in enumerate(fields)], size)

    def _fields(self, closing: str) -> tuple[list[Field], int]:
        fields: list[Field] = []
        at = size = 0
        while self._at < len(self._text) and not (closing and self._text.startswith(closing, self._at)):
            form, align, padding = self._item()
            if form is not None:
                at += -at % align
                fields.append(Field(self._name(), at, form))
            at += padding if form is None else form.size
            size = max(size, at)
        if not self._text.startswith(closing, self._at):
            raise ValueError(f"{self._text!r} is not closed")
        self._at += len(closing)
        return fields, size

    def _name(self) -> str:
        found = _NAME.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found[1]

    def _item(self) -> tuple[Optional[Form], int, int]:
        """An item and its alignment; None for padding, and how much."""
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            raise ValueError(f"{self._text[self._at :]!r} is no format")
        self._at = found.end()
        self._order = found["order2"] or found["order"] or self._order
        count, letter = int(found["count"] or 1), found["type"]
        if letter == "x" and not found["shape"]:
            return None, 1, count
        form = self._type(letter, count if letter in "spwu" else 1)
        if found["bits"] and isinstance(form, Number):
            form = Bits(form, int(found["low"]), int(found["bits"]))
        align = form.size if self._order == "@" and isinstance(form, (Number, Pointer)) else 1
        if found["count"] and letter not in "spwu":
            form = Array(form, [count])
        if found["shape"]:
            form = Array(form, [int(extent) for extent in found["shape"].split(",")])
        return form, max(align, 1), 0

    def _type(self, letter: str, count: int) -> Form:
        order = ">" if self._order in ">!" else "<" if self._order == "<" else NATIVE
        if letter == "T{":
            outer = self._order
            fields, size = self._fields("}")
            self._order = outer
            return Struct([Field(name or f"f{i}", at, form) for i, (name, at, form) in enumerate(fields)], size)
        if letter == "&":
            self._item()  # what it points to is none of our business
            return Pointer()
        if letter in ("X{}", "P", "O", "z", "Z"):
            return Pointer(order)
        if letter in "spc":
            return Chars(order, 1, count)
        if letter in "wu":
            return Chars(order, 4 if letter == "w" else 2, count)
        if letter[0] in "Mm":
            return Date(order, letter)
        if letter in "lLnN":
            native = self._order in "@^"
            return Number(order, letter, struct.calcsize(letter) if native or letter in "nN" else 4)
        if letter not in _SIZES:
            raise ValueError(f"{letter!r} is no format")
        return Number(order, letter, _SIZES[letter])


@lru_cache(maxsize=1024)
def of_text(text: str, item_bytes: int) -> Form:
    """The form of items of that many bytes by their format; Raw where it is not known, or says another size."""
    body = text.lstrip("@=<>!^")
    order = ">" if text[:1] in (">", "!") else NATIVE
    if len(body) == 1 and body in "lLnNuw" and item_bytes in (2, 4, 8):  # their size is the machine's: ask the item
        return Chars(order, item_bytes, 1) if body in "uw" else Number(order, body, item_bytes)
    try:
        form = _Parser(text).one()
    except (ValueError, RecursionError):
        return Raw(item_bytes)
    if isinstance(form, Struct) and form.size < item_bytes:
        return form.padded(item_bytes)
    return form if form.size == item_bytes else Raw(item_bytes)

"""How the bytes of one item read: a number, text, an address, a structure of these.

DESIGN  A form comes from a NumPy dtype, a ctypes class, or a format's text, and decodes alike whichever it was. What
the core, feeds and recordings keep of it is the text: the format of a buffer as PEP 3118 has it, sizes and byte order
always said, with three additions for what that cannot say:

    -4x       four bytes back: the members of a union lie over each other, so do bit fields
    <I[3:5]   a bit field of 5 bits from bit 3 on, in a number of that kind
    <M8[ms]   a date, <m8[ms] a span of time, as NumPy writes them

Decoding never follows a pointer: what stood in the bytes may lead nowhere by now. It is shown as an Address.
"""

from __future__ import annotations

import math
import struct
import sys
from itertools import product

from memwatch._typing import Any, Callable, Iterator, NamedTuple, Sequence, Union

NATIVE = "<" if sys.byteorder == "little" else ">"
Path = tuple[Union[int, str], ...]


class Address(int):
    """A pointer that stood in the bytes; where it leads is not looked at."""

    def __repr__(self) -> str:
        return f"<address {int(self):#x}>"


class Record:
    """A structure's or a union's members: `record.left`, `record["left"]`, in their order when iterated.

    Compares equal to a record, or a tuple, of the same values.
    """

    __slots__ = ("_items",)

    def __init__(self, items: dict[str, Any]) -> None:
        self._items = items

    def __getattr__(self, name: str) -> Any:
        if name != "_items":
            if name in self._items:
                return self._items[name]
            for inner in self._items.values():  # an anonymous member's members are its structure's, as in C
                if isinstance(inner, Record) and name in inner._items:
                    return inner._items[name]
        raise AttributeError(f"there is no member {name!r}")

    def __getitem__(self, key: Union[int, str]) -> Any:
        return self._items[key] if isinstance(key, str) else tuple(self._items.values())[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Record):
            return self._items == other._items
        return tuple(self) == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._items))

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._items]

    def __reduce__(self) -> tuple[Any, ...]:
        return Record, (self._items,)

    def __repr__(self) -> str:
        return f"({', '.join(f'{name}={value!r}' for name, value in self._items.items())})"


class Form:
    """One item's type."""

    size = 0

    def value(self, data: bytes) -> Any:
        """What `size` bytes are."""
        raise NotImplementedError

    def values(self, data: bytes) -> list[Any]:
        """What many items in a row are."""
        return [self.value(data[at : at + self.size]) for at in range(0, len(data), self.size)]

    def join(self, values: list[Any]) -> Any:
        """A row of items as one value: text, of characters."""
        return values

    def parts(self, old: bytes, new: bytes) -> Iterator[tuple[Path, Any, Any]]:
        """What differs, as (path, old, new): the item, or its members."""
        yield (), self.value(old), self.value(new)

    def text(self) -> str:
        """The format."""
        raise NotImplementedError

    def dtype(self) -> Any:
        """What NumPy calls it; None when it has no name for it. Objects are addresses."""
        return None


class Raw(Form):
    """Bytes that nobody says more of."""

    def __init__(self, size: int) -> None:
        self.size = size

    def value(self, data: bytes) -> bytes:
        return data

    def text(self) -> str:
        return f"{self.size}x"

    def dtype(self) -> Any:
        return f"V{self.size}"


class Number(Form):
    """An integer, a bool, a float or a complex number, by the letter that `struct` and PEP 3118 have for it."""

    def __init__(self, order: str, letter: str, size: int) -> None:
        self.order, self.letter, self.size = order, letter, size
        # By size, not by letter: "l" has another one on each machine.
        standard = {1: "b", 2: "h", 4: "i", 8: "q"}.get(size, "") if letter in "bhilqn" else ""
        standard = {1: "B", 2: "H", 4: "I", 8: "Q"}.get(size, "") if letter in "BHILQN" else standard
        standard = letter if letter in ("?", "e", "f", "d") else standard
        self._struct = struct.Struct(order + standard) if standard else None
        self._letter = standard

    def __reduce__(self) -> tuple[Any, ...]:
        return Number, (self.order, self.letter, self.size)

    def value(self, data: bytes) -> Any:
        if self._struct is not None:
            return self._struct.unpack(data)[0]
        if self.letter == "g" or (self.letter == "Zg" and "numpy" in sys.modules):
            return self._long_double(data)
        half = Number(self.order, self.letter[1], self.size // 2)
        return complex(half.value(data[: half.size]), half.value(data[half.size :]))

    def _long_double(self, data: bytes) -> Any:
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            return numpy.frombuffer(data, self.dtype())[0]
        import ctypes  # here, because few programs need it

        if self.order == NATIVE and self.size == ctypes.sizeof(ctypes.c_longdouble):
            return ctypes.c_longdouble.from_buffer_copy(data).value
        return data

    def values(self, data: bytes) -> list[Any]:
        if self._struct is None:
            return super().values(data)
        return list(struct.unpack(f"{self.order}{len(data) // self.size}{self._letter}", data))

    def text(self) -> str:
        return self.order + (self._letter or self.letter)

    def dtype(self) -> Any:
        kind = "?" if self.letter == "?" else "c" if self.letter[0] == "Z" else "f" if self.letter in "efdg" else ""
        kind = kind or ("i" if self.letter in "bhilqn" else "u")
        return "?" if kind == "?" else f"{self.order}{kind}{self.size}"


class Chars(Form):
    """A run of characters, of one byte or of four (UCS-4), without the zeros at its end."""

    def __init__(self, order: str, width: int, length: int) -> None:
        self._order, self._width, self._length = order, width, length
        self.size = width * length

    def value(self, data: bytes) -> Any:
        if self._width == 1:
            return data.rstrip(b"\0") if self._length != 1 else data
        text = "".join(self._character(data[at : at + self._width]) for at in range(0, len(data), self._width))
        return text.rstrip("\0") if self._length != 1 else text

    def _character(self, data: bytes) -> str:
        code = int.from_bytes(data, "little" if self._order == "<" else "big")
        return chr(code) if code <= sys.maxunicode else "\N{REPLACEMENT CHARACTER}"

    def join(self, values: list[Any]) -> Any:
        if self._length != 1:
            return values
        return b"".join(values).rstrip(b"\0") if self._width == 1 else "".join(values).rstrip("\0")

    def text(self) -> str:
        if self._width == 1:
            return "c" if self._length == 1 else f"{self._length}s"
        count = "" if self._length == 1 else str(self._length)
        return f"{self._order}{count}{'w' if self._width == 4 else 'u'}"

    def dtype(self) -> Any:
        if self._width == 1:
            return f"S{self._length}"
        return f"{self._order}U{self._length}" if self._width == 4 else None


class Pointer(Form):
    """A pointer, a reference to a Python object, a function's address."""

    size = struct.calcsize("P")

    def __init__(self, order: str = NATIVE) -> None:
        self._order = order

    def value(self, data: bytes) -> Address:
        return Address(int.from_bytes(data, "little" if self._order == "<" else "big"))

    def text(self) -> str:
        return ("" if self._order == NATIVE else self._order) + "P"

    def dtype(self) -> Any:
        return f"{self._order}u{self.size}"


class Date(Form):
    """NumPy's dates and spans of time. Without NumPy they read as numbers of their unit."""

    size = 8

    def __init__(self, order: str, code: str) -> None:
        self._order, self._code = order, code

    def value(self, data: bytes) -> Any:
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return int.from_bytes(data, "little" if self._order == "<" else "big", signed=True)
        return numpy.frombuffer(data, self._order + self._code)[0]

    def text(self) -> str:
        return self._order + self._code

    def dtype(self) -> Any:
        return self._order + self._code


class Bits(Form):
    """A bit field: `n` bits from bit `low` on, in an integer that it may share with others."""

    def __init__(self, number: Number, low: int, n: int) -> None:
        self._number, self._low, self._n = number, low, n
        self.size = number.size

    def value(self, data: bytes) -> Any:
        word = int.from_bytes(data, "little" if self._number.order == "<" else "big")
        bits = word >> self._low & (1 << self._n) - 1
        if self._number.letter == "?":
            return bool(bits)
        signed = self._number.letter in "bhilqn" and bits >> (self._n - 1)
        return bits - (1 << self._n) if signed else bits

    def text(self) -> str:
        return f"{self._number.text()}[{self._low}:{self._n}]"


class Array(Form):
    """Items in a row inside an item."""

    def __init__(self, item: Form, shape: Sequence[int]) -> None:
        self._item, self._shape = item, tuple(shape)
        self.size = item.size * math.prod(self._shape)

    def value(self, data: bytes) -> Any:
        return nested(self._item, data, self._shape)

    def parts(self, old: bytes, new: bytes) -> Iterator[tuple[Path, Any, Any]]:
        size = self._item.size
        if not isinstance(self._item, Struct):  # a vector is one value
            yield (), self.value(old), self.value(new)
            return
        for at, index in zip(range(0, self.size, size), product(*map(range, self._shape))):
            before, after = old[at : at + size], new[at : at + size]
            if before != after:
                for path, was, now in self._item.parts(before, after):
                    yield (*index, *path), was, now

    def text(self) -> str:
        return f"({','.join(map(str, self._shape))}){self._item.text()}"

    def dtype(self) -> Any:
        item = self._item.dtype()
        return None if item is None else (item, self._shape)


class Field(NamedTuple):
    """A member, and where it lies."""

    name: str
    offset: int
    form: Form


class Struct(Form):
    """A structure or a union: members at their offsets, which may overlap."""

    def __init__(self, fields: list[Field], size: int) -> None:
        self._fields, self.size = fields, size

    def value(self, data: bytes) -> Record:
        return Record({name: form.value(data[at : at + form.size]) for name, at, form in self._fields})

    def parts(self, old: bytes, new: bytes) -> Iterator[tuple[Path, Any, Any]]:
        for name, at, form in self._fields:
            before, after = old[at : at + form.size], new[at : at + form.size]
            if before == after:
                continue
            if isinstance(form, Bits) and form.value(before) == form.value(after):
                continue
            for path, was, now in form.parts(before, after):
                yield (name, *path), was, now

    def padded(self, size: int) -> Struct:
        """The same with bytes at its end that no member has."""
        return Struct(self._fields, size)

    def text(self) -> str:
        parts, end = [], 0
        for name, at, form in self._fields:
            parts.append(_step(at - end))
            parts.append(f"{form.text()}:{name.replace(':', '_')}:")
            end = at + form.size
        return f"T{{{''.join(parts)}{_step(self.size - end)}}}"

    def dtype(self) -> Any:
        formats = [field.form.dtype() for field in self._fields]
        if any(each is None for each in formats) or not self._fields:
            return None
        return {
            "names": [field.name for field in self._fields],
            "formats": formats,
            "offsets": [field.offset for field in self._fields],
            "itemsize": self.size,
        }


def _step(n: int) -> str:
    """The bytes to the next member."""
    return "" if n == 0 else "x" if n == 1 else f"{n}x"


def nested(item: Form, data: bytes, shape: tuple[int, ...]) -> Any:
    """Items in C order as nested lists; rows of characters as text."""
    items = item.values(data)
    join: Callable[[list[Any]], Any] = item.join
    for extent in reversed(shape[1:]):
        items = [join(items[at : at + extent]) for at in range(0, len(items), extent)]
        join = list
    return join(items)


# --- from a NumPy dtype -----------------------------------------------------------------------------------------------

_LETTERS = {
    "b": {1: "?"},
    "i": {1: "b", 2: "h", 4: "i", 8: "q"},
    "u": {1: "B", 2: "H", 4: "I", 8: "Q"},
    "f": {2: "e", 4: "f", 8: "d"},
    "c": {8: "Zf", 16: "Zd"},
}


def of_dtype(dtype: Any) -> Form:
    """The form of a NumPy dtype's items."""
    order = {"=": NATIVE, "|": NATIVE}.get(dtype.byteorder, dtype.byteorder)
    kind, size = dtype.kind, dtype.itemsize
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return Array(of_dtype(base), shape)
    if dtype.names is not None:
        fields = [Field(name, dtype.fields[name][1], of_dtype(dtype.fields[name][0])) for name in dtype.names]
        return Struct(fields, size)
    if kind in _LETTERS:
        letter = _LETTERS[kind].get(size) or {"f": "g", "c": "Zg"}.get(kind)
        return Number(order, letter, size) if letter else Raw(size)
    if kind in "Mm":
        return Date(order, dtype.str[1:]) if dtype.isnative or order in "<>" else Raw(size)
    if kind in "SU" and size:
        width = 4 if kind == "U" else 1
        return Chars(order, width, size // width)
    return Pointer() if kind == "O" else Raw(size)

"""What a name held, and whether it holds something else now, without running the user's code.

DESIGN  `freeze(value)` takes a bounded copy of what can change in place: list, dict, set, deque, bytearray and the
attributes of plain objects; everything else is its own copy. `same(frozen, value)` compares element by element: by
identity first, by value only for the exact builtin scalars and for plain data (plain.py), so that no `__eq__`,
`__hash__`, `__repr__`, `__copy__` or property of the user ever runs. `show(value)` is a repr with the same promise and
a bounded length. Of a container longer than the limit, `WHOLE` for what a name holds, the length and as many items from
both its ends are compared; a change in its middle that keeps the length is not seen. An event shows up to `LIMIT`.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from itertools import islice
from operator import is_
from types import BuiltinFunctionType, CodeType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType

from memwatch._typing import Any, Final, Optional, Union

from .plain import is_compared, is_enum, is_shown

LIMIT = 1000
"""Items of a container that an event has, and that are followed inside another."""
WHOLE = 100_000
"""Items that are compared of what a name holds."""
BUFFER_LIMIT = LIMIT * 8
"""Bytes of a bytearray or an array.array that are copied and compared; longer ones are the core's."""
DEPTH = 8
"""Levels that `deep=True` follows."""
SHOWN = 1000
"""Characters of a shown value."""


class _Missing:
    """What a name without a value holds."""

    def __repr__(self) -> str:
        return "<unbound>"


MISSING: Final = _Missing()

_SCALARS = frozenset({int, float, complex, str, bytes, bool, type(None), type(Ellipsis), type(NotImplemented), range})
_LISTS = (list, deque)
_OPAQUE = (type, ModuleType, FunctionType, BuiltinFunctionType, CodeType)


class Frozen:
    """A bounded copy of something that can change in place."""

    __slots__ = ("items", "keys", "length", "limit", "type", "value")

    def __init__(
        self, type_: type, limit: int, length: int, keys: Optional[list[Any]], items: list[Any], value: Any
    ) -> None:
        self.type = type_
        self.limit = limit
        self.length = length
        self.keys = keys
        self.items = items
        self.value = value
        """The copy as an event shows it: a list, dict, set or bytes; Attributes for an object."""


class Attributes(dict[str, Any]):
    """The attributes that an object had."""

    def __init__(self, type_: type, attributes: dict[str, Any]) -> None:
        super().__init__(attributes)
        self.type = type_


def _ends(items: Any, length: int, limit: int) -> list[Any]:
    """The items, or the first and the last of very many."""
    if length <= limit:
        return list(items)
    half = limit // 2
    return [*islice(items, half), *reversed(list(islice(reversed(items), half)))]


class _View:
    """A list seen without what a subclass makes of iteration."""

    def __init__(self, value: Any, base: Any) -> None:
        self._value, self._base = value, base

    def __iter__(self) -> Any:
        return self._base.__iter__(self._value)

    def __reversed__(self) -> Any:
        return self._base.__reversed__(self._value)


# Classes are asked through `type` itself: a metaclass may compute the same attributes, with the user's code.
_mro_of: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_dict_of: Callable[[type], Any] = type.__dict__["__dict__"].__get__
_flags_of: Callable[[type], int] = type.__dict__["__flags__"].__get__
_arguments_of: Callable[[Any], Any] = BaseException.__dict__["args"].__get__
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that a class statement made


def class_attribute(kind: type, name: str) -> object:
    """What the class or its bases have under that name; MISSING."""
    for base in _mro_of(kind):
        found = _dict_of(base).get(name, MISSING)
        if found is not MISSING:
            return found
    return MISSING


def instance_attributes(value: object) -> Optional[dict[str, Any]]:
    """The object's own dictionary; None when it has none, or its class computes one."""
    descriptor = class_attribute(type(value), "__dict__")
    if type(descriptor) not in (GetSetDescriptorType, MemberDescriptorType):
        return None
    attributes = descriptor.__get__(value)  # type: ignore[attr-defined]
    return attributes if type(attributes) is dict else None


def slot_attributes(value: object) -> dict[str, Any]:
    """What the object's `__slots__` hold."""
    found: dict[str, Any] = {}
    for base in _mro_of(type(value)):
        if not _flags_of(base) & _HEAP_TYPE:
            continue
        for name, descriptor in _dict_of(base).items():
            if type(descriptor) is MemberDescriptorType and name not in found:
                try:
                    found[name] = descriptor.__get__(value)
                except AttributeError:
                    continue
    return found


def _is_plain(value: object) -> bool:
    """Something that keeps its state in attributes, as instances of classes written in Python do."""
    kind = type(value)
    if issubclass(kind, _OPAQUE):
        return False
    return bool(_flags_of(kind) & _HEAP_TYPE) or class_attribute(kind, "__dict__") is not MISSING


def _shown(items: list[Any]) -> list[Any]:
    """Of the items those that an event has."""
    return _ends(items, len(items), LIMIT)


def _freeze_list(value: Any, base: Any, limit: int) -> Frozen:
    length = base.__len__(value)
    items = _ends(_View(value, base), length, limit)
    return Frozen(type(value), limit, length, None, items, base(_shown(items)))


def _freeze_dict(value: dict[Any, Any], limit: int) -> Frozen:
    base: Any = OrderedDict if issubclass(type(value), OrderedDict) else dict  # the former keeps an order of its own
    length = dict.__len__(value)
    keys = _ends(_View(value, base), length, limit)
    items = [item for _, item in _ends(base.items(value), length, limit)]
    return Frozen(type(value), limit, length, keys, items, _dict_copy(value, _shown(keys), _shown(items)))


def _dict_copy(value: dict[Any, Any], keys: list[Any], items: list[Any]) -> Any:
    if type(value) is dict and len(value) <= LIMIT:
        return value.copy()
    if all(type(key) in _SCALARS for key in keys):
        return dict(zip(keys, items))
    return list(zip(keys, items))  # a dict of these keys would call their __hash__


def _freeze_set(value: set[Any], limit: int) -> Frozen:
    length = set.__len__(value)
    items = list(islice(set.__iter__(value), limit))
    return Frozen(type(value), limit, length, None, items, set(value) if length <= LIMIT else items[:LIMIT])


def _freeze_object(value: object, limit: int) -> Frozen:
    attributes: dict[str, Any] = {}
    if issubclass(type(value), BaseException):
        attributes["args"] = _arguments_of(value)
    attributes.update(instance_attributes(value) or {})
    attributes.update(slot_attributes(value))
    names, items = list(islice(attributes, limit)), list(islice(attributes.values(), limit))
    if len(attributes) > LIMIT:
        attributes = dict(islice(attributes.items(), LIMIT))
    return Frozen(type(value), limit, len(names), names, items, Attributes(type(value), attributes))


def _freeze_buffer(value: Any, limit: int) -> Frozen:
    copy = value[: BUFFER_LIMIT if type(value) is bytearray else BUFFER_LIMIT // value.itemsize]
    shown = bytes(copy) if type(value) is bytearray else copy
    return Frozen(type(value), limit, len(value), None, [bytes(copy)], shown)


def freeze(value: object, limit: int = LIMIT) -> Optional[Frozen]:
    """A bounded copy of what can change in place; None for what cannot, or cannot be seen to."""
    kind = type(value)
    if kind in _SCALARS:
        return None
    if kind is bytearray or kind is array:
        return _freeze_buffer(value, limit)
    if issubclass(kind, tuple):
        return None  # named or not: what it holds is its value
    # The class is asked, never the object: `isinstance` would read a `__class__` that a proxy computes.
    if issubclass(kind, dict):
        return _freeze_dict(value, limit)  # type: ignore[arg-type]
    for base in _LISTS:
        if issubclass(kind, base):
            return _freeze_list(value, base, limit)
    if issubclass(kind, set):
        return _freeze_set(value, limit)  # type: ignore[arg-type]
    # Of plain data the classes in C are heap types from some version of Python on, as if they had attributes.
    return _freeze_object(value, limit) if _is_plain(value) and not is_compared(value) else None


def _same_items(olds: list[Any], news: Iterable[Any], depth: int) -> bool:
    news = news if isinstance(news, list) else list(news)
    if len(olds) != len(news):
        return False
    if all(map(is_, olds, news)):
        return True
    return all(same_value(old, new, depth) for old, new in zip(olds, news) if old is not new)


def _same_plain(old: object, new: object) -> bool:
    try:
        return bool(old == new) or bool(old != old and new != new)
    except ArithmeticError:  # a signalling NaN
        return False


def same_value(old: object, new: object, depth: int = 2) -> bool:
    """Whether two objects count as the same value. Not the same object, another type, a user's class: they do not."""
    if old is new:
        return True
    kind = type(old)
    if kind is not type(new):
        return False
    if kind in _SCALARS:
        return bool(old == new) or (old != old and new != new)
    if is_compared(old):
        return _same_plain(old, new)
    if depth <= 0:
        return False
    if kind is frozenset:
        return len(old) == len(new) <= LIMIT and _same_set(list(old), list(new))  # type: ignore[arg-type, call-overload]
    if issubclass(kind, tuple):
        olds: list[Any] = list(tuple.__iter__(old))  # type: ignore[arg-type]
        news: list[Any] = list(tuple.__iter__(new))  # type: ignore[arg-type]
        return len(olds) <= LIMIT and _same_items(olds, news, depth - 1)
    if kind in (list, dict, set, deque, bytearray, array, OrderedDict, defaultdict):
        frozen = freeze(old)
        return frozen is not None and same(frozen, new, depth - 1)
    return False


def _same_set(olds: list[Any], news: list[Any]) -> bool:
    """Sets of equal size, whatever their order."""
    known = set(map(id, olds))
    rest = [item for item in news if id(item) not in known]
    scalars = {(type(item), item) for item in olds if type(item) in _SCALARS}
    return all(type(item) in _SCALARS and (type(item), item) in scalars for item in rest)


def same(frozen: Frozen, value: object, depth: int = 1) -> bool:
    """Whether the object holds what it held when it was frozen."""
    if frozen.type is not type(value):
        return False
    if frozen.type is list and frozen.length <= frozen.limit:  # the common case, without a copy
        return len(value) == frozen.length and (  # type: ignore[arg-type]
            all(map(is_, frozen.items, value)) or _same_items(frozen.items, list(value), depth)  # type: ignore[call-overload]
        )
    now = freeze(value, frozen.limit)
    if now is None or now.length != frozen.length:
        return False
    if issubclass(frozen.type, set):
        return all(map(is_, frozen.items, now.items)) or _same_set(frozen.items, now.items)
    return (frozen.keys is None or _same_items(frozen.keys, now.keys or [], depth)) and _same_items(
        frozen.items, now.items, depth
    )


class Deep:
    """A bounded copy of a whole structure: containers and plain objects down to DEPTH levels and LIMIT items."""

    def __init__(self, value: object) -> None:
        self._left = LIMIT
        self._ids: list[int] = []
        self._parts: list[tuple[object, Frozen]] = []
        self._add(value, DEPTH)

    def _add(self, value: object, depth: int) -> None:
        children: Iterable[object]
        if issubclass(type(value), tuple):
            children = tuple.__iter__(value)  # type: ignore[arg-type]
        else:
            frozen = freeze(value) if id(value) not in self._ids else None
            if frozen is None:
                return
            self._ids.append(id(value))
            self._parts.append((value, frozen))
            children = frozen.items
        for child in children:
            if depth <= 0 or self._left <= 0:
                return
            self._left -= 1
            self._add(child, depth - 1)

    def unchanged(self) -> bool:
        return all(same(frozen, part) for part, frozen in self._parts)


# --- showing ----------------------------------------------------------------------------------------------------------


_BRACKETS: dict[type, tuple[str, str]] = {list: ("[", "]"), tuple: ("(", ")"), set: ("{", "}")}


class _Shower:
    def __init__(self, limit: int) -> None:
        self._left = limit
        self._parts: list[str] = []
        self._active: list[int] = []

    def text(self, value: object) -> str:
        self._show(value, 4)
        return "".join(self._parts)

    def _put(self, text: str) -> None:
        if len(text) > self._left:
            text = text[: max(0, self._left)] + "…" if self._left > 0 else ""
        self._left -= len(text)
        self._parts.append(text)

    def _show(self, value: object, depth: int) -> None:
        kind = type(value)
        if kind in (str, bytes):
            head = value[: self._left + 1]  # type: ignore[index]
            self._put(repr(head))
        elif kind is int:
            self._put(_show_int(value))  # type: ignore[arg-type]
        elif kind in _SCALARS or value is MISSING:
            self._put(repr(value))
        elif kind is bytearray:
            self._put(f"bytearray({bytes(memoryview(value)[: self._left + 1])!r})")  # type: ignore[arg-type]
        elif id(value) in self._active or depth <= 0:
            self._put("...")
        else:
            self._active.append(id(value))
            self._show_structure(value, kind, depth - 1)
            self._active.pop()

    def _show_structure(self, value: Any, kind: type, depth: int) -> None:
        if kind is Attributes and issubclass(value.type, BaseException):
            self._put(_type_name(value.type))
            self._show(dict.get(value, "args", ()), depth + 1)
        elif kind is Attributes and is_enum(value.type):
            self._put(f"{type.__getattribute__(value.type, '__qualname__')}.{dict.get(value, '_name_')}")
        elif kind is Attributes:
            self._put(f"<{_type_name(value.type)}")
            self._show_pairs(((f" {name}=", item) for name, item in dict.items(value)), depth, "")
            self._put(">")
        elif kind in (list, tuple, set, frozenset, deque):
            self._show_items(value, kind, depth)
        elif kind is array:
            head = value[: self._left + 1]
            self._put(repr(head.tounicode() if head.typecode in "uw" else head.tolist()))
        elif issubclass(kind, tuple):
            self._show_named(value, kind, depth)
        elif issubclass(kind, BaseException):
            self._put(_type_name(kind))
            self._show(_arguments_of(value), depth + 1)
        elif kind in (dict, OrderedDict, defaultdict):
            self._put("{" if kind is dict else f"{kind.__name__}({{")
            self._show_mapping(value, depth)
            self._put("}" if kind is dict else "})")
        else:
            self._put(_show_object(value, kind))

    def _show_items(self, value: Iterable[object], kind: type, depth: int) -> None:
        opening, closing = _BRACKETS.get(kind, (f"{kind.__name__}([", "])"))
        if kind is set and not value:
            opening, closing = "set(", ")"
        if kind is tuple and len(value) == 1:  # type: ignore[arg-type]
            closing = ",)"
        self._put(opening)
        self._show_pairs((("", item) for item in value), depth, ", ")
        self._put(closing)

    def _show_named(self, value: Any, kind: type, depth: int) -> None:
        """A named tuple; another class of tuples without names."""
        fields = class_attribute(kind, "_fields")
        items = list(tuple.__iter__(value))
        names = [f"{name}=" for name in fields if type(name) is str] if type(fields) is tuple else []
        self._put(_type_name(kind) + "(")
        self._show_pairs(zip(names if len(names) == len(items) else [""] * len(items), items), depth, ", ")
        self._put(")")

    def _show_mapping(self, value: dict[object, object], depth: int) -> None:
        for index, (key, item) in enumerate(dict.items(value)):
            if self._left <= 0:
                return
            self._put(", " if index else "")
            self._show(key, depth)
            self._put(": ")
            self._show(item, depth)

    def _show_pairs(self, pairs: Iterable[tuple[str, object]], depth: int, separator: str) -> None:
        for index, (prefix, item) in enumerate(pairs):
            if self._left <= 0:
                return
            self._put((separator if index else "") + prefix)
            self._show(item, depth)


def _show_int(value: int) -> str:
    return repr(value) if value.bit_length() <= 2000 else f"<int of {value.bit_length()} bits>"


def _type_name(kind: type) -> str:
    """The class's name, asked of `type` itself: a metaclass may have its own ideas."""
    get: Callable[..., Any] = type.__getattribute__
    module = get(kind, "__module__")
    name = str(get(kind, "__qualname__"))
    return name if module in ("builtins", "__main__") or type(module) is not str else f"{module}.{name}"


def _show_object(value: object, kind: type) -> str:
    if kind is FunctionType:
        return f"<function {value.__qualname__}>"  # type: ignore[attr-defined]
    if kind is type:
        return f"<class {_type_name(value)}>"  # type: ignore[arg-type]
    if is_shown(value):
        return repr(value)
    return f"<{_type_name(kind)} object at {id(value):#x}>"


def show(value: object, limit: int = SHOWN) -> str:
    """A repr of at most about `limit` characters that runs no code of the user."""
    return _Shower(limit).text(value)


def shown_bytes(value: object) -> Optional[bytes]:
    """The value as an event carries it; None for no value."""
    if type(value) in (float, bool, type(None)):
        return repr(value).encode()
    return None if value is MISSING else show(value).encode("utf-8", "backslashreplace")


Snapshot = Union[Frozen, Deep, None]

"""What modules that `import memwatch` brings have from `typing`, which with what it brings takes as long as they do.

DESIGN  Annotations are strings, so nothing of it is needed while a program runs: type checkers read `typing`, an
interpreter has stand-ins. `typing.get_type_hints()` finds these in a module, and makes of them what `typing` has,
but for `Any`: there it is `object`, which says the same of an argument.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, ClassVar, Final, NamedTuple, Optional, Protocol, Union
else:
    from collections import namedtuple
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from functools import reduce
    from operator import or_

    Any = object

    class _Subscripted:
        """ClassVar[int] is int."""

        def __class_getitem__(cls, item):
            return item

    ClassVar = Final = _Subscripted

    class Optional:
        """Optional[int] is int | None."""

        def __class_getitem__(cls, item):
            return item | None

    class Union:
        """Union[int, str] is int | str."""

        def __class_getitem__(cls, items):
            return reduce(or_, items)

    class Protocol:
        """A class like others: nobody asks whether an object is one."""

    class _NamedTuples(type):
        """Makes a named tuple of a class statement, its annotations and its methods."""

        def __new__(cls, name, bases, namespace):
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            fields = namespace["__annotations__"]
            defaults = [namespace.pop(field) for field in fields if field in namespace]
            made = namedtuple(name, fields, defaults=defaults, module=namespace["__module__"])
            for attribute in namespace.keys() - {"__module__", "__qualname__"}:
                setattr(made, attribute, namespace[attribute])
            return made

    class NamedTuple(metaclass=_NamedTuples):
        """What typing.NamedTuple makes, made by collections.namedtuple."""


__all__ = [
    "TYPE_CHECKING",
    "Any",
    "Callable",
    "ClassVar",
    "Final",
    "Iterator",
    "Mapping",
    "NamedTuple",
    "Optional",
    "Protocol",
    "Sequence",
    "Union",
]

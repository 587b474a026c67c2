"""Classes of the standard library and of NumPy whose objects are plain data, such as a date or a Decimal.

They cannot change in place. What they are shown and compared by is theirs: no code of the user's runs. A class counts
only when its module has it under its name; a module that nobody has imported has no objects here.
"""

from __future__ import annotations

import sys

_COMPARED = {  # by code in C, which reads both objects and nothing else
    "datetime": ("date", "timedelta"),
    "decimal": ("Decimal",),
}
_SHOWN = {
    **_COMPARED,
    "datetime": ("date", "timedelta", "timezone"),
    "fractions": ("Fraction",),
    "ipaddress": ("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network"),
    "pathlib": ("PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
    "uuid": ("UUID",),
    "zoneinfo": ("ZoneInfo",),
}
_ZONED = ("datetime", "time")  # a time zone may be an object of the user's
_OPEN = ("object_", "void", "generic", "flexible")  # NumPy's that hold other objects, or are no values


def _name_of(kind: type) -> str:
    """Asked of `type` itself: a metaclass may have its own ideas."""
    name: str = type.__getattribute__(kind, "__name__")
    return name


def _is_of(kind: type, classes: dict[str, tuple[str, ...]]) -> bool:
    name = _name_of(kind)
    for module, names in classes.items():
        if name in names and getattr(sys.modules.get(module), name, None) is kind:
            return True
    return False


def _is_zoned(value: object, kind: type) -> bool:
    """A date with a time, or a time, whose zone is none or of the standard library."""
    module = sys.modules.get("datetime")
    name = _name_of(kind)
    if name not in _ZONED or getattr(module, name, None) is not kind:
        return False
    zone = value.tzinfo  # type: ignore[attr-defined]
    return zone is None or _is_of(type(zone), _SHOWN)


def _is_numpy(kind: type) -> bool:
    numpy = sys.modules.get("numpy")
    generic = getattr(numpy, "generic", None)
    name = _name_of(kind)
    return (
        isinstance(generic, type)
        and issubclass(kind, generic)
        and name not in _OPEN
        and getattr(numpy, name, None) is kind
    )


def is_enum(kind: type) -> bool:
    """Whether it is an enumeration, whose members have names."""
    enum = getattr(sys.modules.get("enum"), "Enum", None)
    return isinstance(enum, type) and issubclass(kind, enum)


def is_shown(value: object) -> bool:
    """Whether its repr runs no code of the user's."""
    kind = type(value)
    return _is_of(kind, _SHOWN) or _is_zoned(value, kind) or _is_numpy(kind)


def is_compared(value: object) -> bool:
    """Whether comparing it with another of its class runs no code of the user's."""
    kind = type(value)
    return _is_of(kind, _COMPARED) or _is_zoned(value, kind) or _is_numpy(kind)

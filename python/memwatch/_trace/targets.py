"""What a name is: how it is read, and which sites of which code can change it.

DESIGN  A target reads a name's present value without running code of the user (a container type that is not builtin
excepted, where the user asked for its item), and judges sites: `binds` says whether an instruction can rebind it,
`sees` whether code can reach what it holds, `made_by` whether a change found right after a site was that site's doing
for certain. Targets hold no state of the watch; they never keep an object alive that weak references can be made to.
"""

from __future__ import annotations

import weakref
from itertools import islice
from types import CellType, CodeType, FrameType, GetSetDescriptorType, MemberDescriptorType, ModuleType

from memwatch._native import core
from memwatch._trace.code import Kind, Path, Site
from memwatch._trace.frames import local_value, local_values, slot_of, slot_value
from memwatch._trace.values import LIMIT, MISSING, class_attribute, instance_attributes
from memwatch._typing import Any, Callable, Final, Optional, Union

ELSEWHERE: Final = object()
"""What a frame's local reads as in any other frame: nothing can be said."""


def peek_attribute(obj: object, name: str) -> object:
    """An attribute that is kept in the object, its slots or its class; MISSING for a property or none at all."""
    kind = type(obj)
    if kind is ModuleType:
        return obj.__dict__.get(name, MISSING)
    descriptor = class_attribute(kind, name)
    if type(descriptor) is MemberDescriptorType:
        try:
            return descriptor.__get__(obj)
        except AttributeError:
            return MISSING
    found = (instance_attributes(obj) or {}).get(name, MISSING)
    if found is not MISSING or descriptor is MISSING:
        return found
    return MISSING if class_attribute(type(descriptor), "__get__") is not MISSING else descriptor


def resolve(path: Optional[Path], frame: Optional[FrameType]) -> object:
    """What a path of names leads to in the frame; MISSING when that cannot be told without the user's code."""
    if path is None or frame is None:
        return MISSING
    found = local_value(frame, path[0])
    if found is MISSING:
        found = frame.f_globals.get(path[0], MISSING)
    for name in path[1:]:
        if found is MISSING:
            break
        found = peek_attribute(found, name)
    return found


class Target:
    """The interface; the words are the names by which code can mention it."""

    noun = "name"
    namespace: Optional[dict[str, Any]] = None
    name = ""
    frame: Optional[FrameType] = None
    words: frozenset[str] = frozenset()

    def read(self, frame: Optional[FrameType]) -> object:
        """Its value as seen from the frame that runs; MISSING when it has none."""
        raise NotImplementedError

    def glance(self) -> core.Glance:
        """The core's quick look at the same value; one that is never certain where the core cannot read it."""
        return core.Glance("unknown")

    def binds(self, site: Site) -> bool:
        raise NotImplementedError

    def sees(self, code: CodeType, mentioned: set[str]) -> bool:
        """Whether code with these words can change in place what the target holds."""
        return not self.words.isdisjoint(mentioned)

    def made_by(self, site: Site, frame: Optional[FrameType]) -> bool:
        raise NotImplementedError


class NamespaceTarget(Target):
    """A global, or a name of a module, a class body or exec'd code: a key of a dictionary of names."""

    def __init__(self, namespace: dict[str, Any], name: str) -> None:
        self.namespace = namespace
        self.name = name
        self.words = frozenset((name,))

    def read(self, frame: Optional[FrameType]) -> object:
        assert self.namespace is not None
        return dict.get(self.namespace, self.name, MISSING)

    def glance(self) -> core.Glance:
        return core.Glance("namespace", self.namespace, self.name)

    def binds(self, site: Site) -> bool:
        return site.kind in (Kind.NAME, Kind.ATTRIBUTE) and site.name == self.name

    def sees(self, code: CodeType, mentioned: set[str]) -> bool:
        return self.name in code.co_names  # a local of the same name is another variable

    def made_by(self, site: Site, frame: Optional[FrameType]) -> bool:
        if site.joined or frame is None:
            return False
        if site.kind is Kind.NAME:
            return frame.f_globals is self.namespace or frame.f_locals is self.namespace
        owner = resolve(site.owner, frame) if site.kind is Kind.ATTRIBUTE else None
        return type(owner) is ModuleType and owner.__dict__ is self.namespace


class LocalTarget(Target):
    """A local variable of one frame. Only that frame's code can bind it. Keeps the frame until it ends."""

    def __init__(self, frame: FrameType, name: str) -> None:
        self.frame = frame
        self.name = name
        self.words = frozenset((name,))
        self.slot = slot_of(frame, name) if name not in frame.f_code.co_cellvars else None

    def read(self, frame: Optional[FrameType]) -> object:
        if self.frame is None or (frame is not None and frame is not self.frame):
            return ELSEWHERE
        if frame is not None and self.slot is not None:
            return slot_value(frame, self.slot)
        return local_value(self.frame, self.name)

    def glance(self) -> core.Glance:
        if self.frame is None or self.slot is None:
            return core.Glance("unknown")
        return core.Glance("local", self.frame, self.slot)

    def binds(self, site: Site) -> bool:
        return site.kind in (Kind.FAST, Kind.CELL) and site.name == self.name and self.name not in site.hidden

    def sees(self, code: CodeType, mentioned: set[str]) -> bool:
        return self.frame is not None and code is self.frame.f_code

    def made_by(self, site: Site, frame: Optional[FrameType]) -> bool:
        return site.kind in (Kind.FAST, Kind.CELL)


class CellTarget(Target):
    """A variable that a function shares with the functions inside it."""

    def __init__(self, cell: CellType, name: str) -> None:
        self._cell = cell
        self.name = name
        self.words = frozenset((name,))

    def read(self, frame: Optional[FrameType]) -> object:
        try:
            return self._cell.cell_contents
        except ValueError:
            return MISSING

    def glance(self) -> core.Glance:
        return core.Glance("cell", self._cell)

    def binds(self, site: Site) -> bool:
        return site.kind is Kind.CELL and site.name == self.name

    def sees(self, code: CodeType, mentioned: set[str]) -> bool:
        return self.name in code.co_cellvars or self.name in code.co_freevars

    def made_by(self, site: Site, frame: Optional[FrameType]) -> bool:
        return site.kind is Kind.CELL and not site.joined


class _Held:
    """A reference that does not keep its object alive where the object allows it."""

    def __init__(self, obj: object) -> None:
        self._get: Union[weakref.ref[Any], Callable[[], object]]
        self.holder: object
        """The weak reference, else the object."""
        try:
            self.holder = self._get = weakref.ref(obj)
        except TypeError:
            self.holder, self._get = obj, lambda: obj

    def get(self) -> Optional[object]:
        return self._get()


class AttributeTarget(Target):
    """An attribute of one object."""

    noun = "attribute"

    def __init__(self, obj: object, name: str, properties: bool) -> None:
        self._held = _Held(obj)
        self._properties = properties
        self._is_class = isinstance(obj, type)
        self.name = name
        self.words = frozenset((name,))

    def read(self, frame: Optional[FrameType]) -> object:
        obj = self._held.get()
        if obj is None:
            return MISSING
        if self._properties:
            return getattr(obj, self.name, MISSING)
        if self._is_class:
            return class_attribute(obj, self.name)  # type: ignore[arg-type]
        return peek_attribute(obj, self.name)

    def glance(self) -> core.Glance:
        if self._properties:
            return core.Glance("unknown")
        return core.Glance("class" if self._is_class else "attribute", self._held.holder, self.name)

    def binds(self, site: Site) -> bool:
        return site.kind is Kind.ATTRIBUTE and site.name == self.name

    def sees(self, code: CodeType, mentioned: set[str]) -> bool:
        return self.name in code.co_names

    def made_by(self, site: Site, frame: Optional[FrameType]) -> bool:
        return site.kind is Kind.ATTRIBUTE and resolve(site.owner, frame) is self._held.get()


class ItemTarget(Target):
    """An item, or a slice, of one container. Code is told by the names by which the container was known."""

    noun = "item"

    def __init__(self, container: object, key: object, names: frozenset[str]) -> None:
        self._held = _Held(container)
        self._key = key
        kind = type(container)
        self._get: Callable[[Any, Any], object] = (
            dict.__getitem__ if issubclass(kind, dict) else list.__getitem__ if issubclass(kind, list) else _get_item
        )
        self.name = repr(key) if type(key) in (str, int, slice) else type(key).__name__
        self.words = names | {key} if type(key) is str else names

    def read(self, frame: Optional[FrameType]) -> object:
        container = self._held.get()
        if container is None:
            return MISSING
        try:
            return self._get(container, self._key)
        except LookupError:
            return MISSING

    def glance(self) -> core.Glance:
        container = self._held.holder
        if type(self._key) in (str, int) and type(container) in (dict, list):
            return core.Glance("item", container, self._key)
        return core.Glance("unknown")

    def binds(self, site: Site) -> bool:
        return False

    def made_by(self, site: Site, frame: Optional[FrameType]) -> bool:
        return site.kind in (Kind.ITEM, Kind.CALL) and resolve(site.owner, frame) is self._held.get()


def _get_item(container: Any, key: object) -> object:
    return container[key]


def is_computed(obj: object, name: str) -> bool:
    """Whether reading the attribute would run code: a property, or `__getattr__`."""
    found = class_attribute(type(obj), name)
    if found is MISSING or type(found) in (MemberDescriptorType, GetSetDescriptorType):
        return False
    return class_attribute(type(found), "__set__") is not MISSING


class ObjectTarget(Target):
    """What an object holds, whatever its names. Keeps the object."""

    noun = "object"

    def __init__(self, obj: object, names: frozenset[str]) -> None:
        self._obj = obj
        self.words = names

    def read(self, frame: Optional[FrameType]) -> object:
        return self._obj

    def glance(self) -> core.Glance:
        return core.Glance("object", self._obj)

    def binds(self, site: Site) -> bool:
        return False

    def made_by(self, site: Site, frame: Optional[FrameType]) -> bool:
        return False


def names_of_object(obj: object, frame: Optional[FrameType]) -> set[str]:
    """The names by which code around the frame can know the object: variables, attributes of local objects; where there
    are none, variables that hold a list, tuple or dict with the object in it."""
    if frame is None:
        return set()
    local = local_values(frame)
    found = {name for names in (local, frame.f_globals) for name, value in names.items() if value is obj}
    for owner in local.values():
        if type(owner) is not ModuleType:
            found.update(name for name, value in (instance_attributes(owner) or {}).items() if value is obj)
    if not found:
        found = {name for names in (local, frame.f_globals) for name, value in names.items() if _has(value, obj)}
    return found


def _has(container: Any, obj: object) -> bool:
    """Whether the object is among the first items of a builtin container."""
    if type(container) is dict:
        container = container.values()
    elif type(container) not in (list, tuple):
        return False
    return any(item is obj for item in islice(container, LIMIT))

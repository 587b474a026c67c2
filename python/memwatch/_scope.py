"""watch_name, watch_attr, watch_item and all(): from the names around a frame to what watches them.

DESIGN  Values whose bytes can change go to the native core, everything else to the trace adapter. `all()` looks at
classes only: it calls no property, no `__repr__`, no `__eq__` of the user. With `refresh=True` a follower runs with the
trace adapter's sweep: it watches names that appear, and buffers that a name is bound to anew.
"""

from __future__ import annotations

import errno
import sys
import weakref
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from types import (
    BuiltinFunctionType,
    FrameType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)

from memwatch._bound import BINDING, Bound
from memwatch._buffers import behind_name, has_bytes_that_change, item_of, view_of, why_not
from memwatch._conditions import Judge, judge
from memwatch._errors import Error
from memwatch._trace.frames import CO_OPTIMIZED, cell_of, is_dead, local_value, local_values, user_frame
from memwatch._trace.targets import (
    AttributeTarget,
    CellTarget,
    ItemTarget,
    LocalTarget,
    NamespaceTarget,
    Target,
    is_computed,
    names_of_object,
)
from memwatch._trace.values import (
    DEPTH,
    MISSING,
    class_attribute,
    freeze,
    instance_attributes,
    same_value,
    slot_attributes,
)
from memwatch._typing import Any, Optional, Union

Globs = Union[str, Iterable[str], None]

_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, MethodDescriptorType, WrapperDescriptorType)
_SHELL_NAMES = ("In", "Out", "_", "__", "___", "_i*", "_[0-9]*", "_oh", "_dh", "_ih", "exit", "quit", "get_ipython")
_NAME_BYTES = 255
_TRACE_OPTIONS = ("track", "cmp", "copy", "deep", "when", "stack_depth")
_MEMORY_OPTIONS = ("max_rate", "metric")
_ITEMS = "[...]"  # of a name that is traced and comes to hold a buffer later


# --- one at a time ----------------------------------------------------------------------------------------------------


def watch_name(
    watcher: Any,
    frame: Optional[FrameType],
    name: str,
    *,
    alias: Optional[str] = None,
    callback: Optional[Callable[[Any], object]] = None,
    values: Optional[str] = None,
    **options: Any,
) -> int:
    """Watches a variable that the frame can see: a local, a variable of an enclosing function, or a global."""
    _check_options("watch_name", options)
    if type(name) is not str:
        raise TypeError(f"the name must be a string, not {type(name).__name__}; for an object use watch()")
    target = name_target(_frame(frame), name)
    return _track(watcher, target, alias or name, callback, values, options)


def watch_attr(
    watcher: Any,
    obj: object,
    attr: str,
    *,
    alias: Optional[str] = None,
    properties: bool = False,
    callback: Optional[Callable[[Any], object]] = None,
    values: Optional[str] = None,
    **options: Any,
) -> int:
    """Watches an attribute. One that is computed (a property) is read only with `properties=True`."""
    _check_options("watch_attr", options)
    if type(attr) is not str:
        raise TypeError(f"the attribute must be a string, not {type(attr).__name__}")
    target = attribute_target(obj, attr, properties)
    if target.read(None) is MISSING:
        raise ValueError(f"the {type(obj).__name__} object has no attribute {attr!r} that is kept in it")
    name = alias or f"{_name_of(obj)}.{attr}"
    return _track(watcher, target, name, callback, values, options)


def watch_item(
    watcher: Any,
    container: object,
    key: object,
    *,
    alias: Optional[str] = None,
    names: Iterable[str] = (),
    callback: Optional[Callable[[Any], object]] = None,
    values: Optional[str] = None,
    **options: Any,
) -> int:
    """Watches an item or a slice. `names`: further names by which code that changes the container knows it."""
    _check_options("watch_item", options)
    if class_attribute(type(container), "__getitem__") is MISSING:
        raise TypeError(f"objects of the type {type(container).__name__} have no items")
    if type(key) is slice and options.get("track") == "binding":
        raise ValueError("a slice is a new object each time: watch it with track='value'")
    known = names_of_object(container, user_frame(sys._getframe(1)))
    target = ItemTarget(container, key, frozenset(known | set(names)))
    held = target.read(None)
    if held is MISSING:
        raise ValueError(f"the {type(container).__name__} object has no item {target.name}")
    if type(container) in (str, bytes, range) or (type(container) is tuple and freeze(held) is None):
        raise ValueError(
            f"items of a {type(container).__name__} never change: watch the name or the attribute that it is bound to, "
            "with watch_name or watch_attr"
        )
    name = alias or f"{_name_of(container)}[{target.name}]"
    item = item_of(container, key)
    if item is not None:
        return _watch_item_of_buffer(watcher, item, name, callback, values, options)
    _refuse_made_anew(target, container)
    return _track(watcher, target, name, callback, values, options)


def _track(
    watcher: Any,
    target: Target,
    name: str,
    callback: Optional[Callable[[Any], object]],
    values: Optional[str],
    options: Any,
) -> int:
    """Has the name traced, and the buffers behind it watched by the core."""
    given = {option: value for option, value in options.items() if value is not None}
    when = given.pop("when", None)
    native = {option: given.pop(option) for option in _MEMORY_OPTIONS if option in given}
    value = target.read(target.frame)
    if given.get("track") == "binding" or "cmp" in given or "copy" in given:
        _refuse_native(native)
        return _trace(watcher, target, name, callback, values, judge(when, value), given)
    refusal = why_not(value)
    if refusal is not None:
        raise TypeError(refusal)
    own = behind_name(value) is not None
    if not own:
        _refuse_native(native)
    arguments = {"callback": callback, "values": values, **native}
    if own and when is not None:
        arguments["when"] = (lambda event: when(target.read(None))) if callable(when) else when
    bound = Bound(watcher, name if own else f"{name}{_ITEMS}", bool(given.get("deep")), arguments)
    traced = name + BINDING if own else name
    found = _trace(watcher, target, traced, callback, values, None if own else judge(when, value), given)
    bound.binding_id = found
    try:
        bound.follow(value)
        watcher._adapter_named("trace").attach(found, bound)
    except BaseException:
        bound.end()
        watcher.unwatch(found)
        raise
    return bound.region_id


def _trace(
    watcher: Any,
    target: Target,
    name: str,
    callback: Optional[Callable[[Any], object]],
    values: Optional[str],
    when: Optional[Judge],
    options: Any,
) -> int:
    adapter = watcher._adapter_named("trace")
    region_id: int = watcher._track_with(adapter, target, name, callback=callback, when=when, values=values, **options)
    return region_id


def _refuse_native(options: dict[str, Any]) -> None:
    for option in options:
        raise TypeError(
            f"{option} is for memory: watch() takes it, and names that hold an array or another buffer; of other names "
            "every change is an event, and numbers are exported without being asked for"
        )


def _check_options(function: str, options: dict[str, Any]) -> None:
    if "name" in options:
        raise TypeError(f"{function}() takes the region's name as alias=, not as name=")
    for option in options:
        if option not in _TRACE_OPTIONS and option not in _MEMORY_OPTIONS:
            raise TypeError(
                f"{function}() got an unexpected keyword argument {option!r}: it takes "
                f"{', '.join((*_TRACE_OPTIONS, *_MEMORY_OPTIONS))}, alias, callback and values"
            )


def _watch_item_of_buffer(
    watcher: Any,
    item: object,
    name: str,
    callback: Optional[Callable[[Any], object]],
    values: Optional[str],
    options: Any,
) -> int:
    """An item in its container's memory: the core watches those bytes."""
    given = {option: value for option, value in options.items() if value is not None and option != "deep"}
    for option in given:
        if option not in (*_MEMORY_OPTIONS, "when"):
            raise TypeError(f"{option} is for names that are traced: this item is watched as memory, as by watch()")
    region_id: int = watcher.watch(item, name, callback=callback, values=values, **given)
    return region_id


def _refuse_made_anew(target: Target, container: object) -> None:
    first, again = target.read(None), target.read(None)
    if first is not again and not same_value(first, again, DEPTH):
        kind = type(container).__name__
        raise TypeError(
            f"the {kind} object makes this item anew at each access, so that it cannot be told from another one: watch "
            "what it is made from; for a column of a table what its `.to_numpy()` gives, where that is no copy"
        )


def _frame(frame: Optional[FrameType]) -> FrameType:
    found = user_frame(frame)
    if found is None:
        raise RuntimeError("no Python frame calls this: there are no names to watch")
    return found


def _name_of(obj: object) -> str:
    """The first name by which the caller knows the object, else its class."""
    if type(obj) is ModuleType:
        return str(obj.__dict__.get("__name__", "module"))
    return min(names_of_object(obj, user_frame(sys._getframe(2))), default=type(obj).__name__)


def name_target(frame: FrameType, name: str) -> Target:
    """What the name means in the frame; ValueError when it means nothing there."""
    code = frame.f_code
    if name in code.co_cellvars or name in code.co_freevars:
        cell = cell_of(frame, name)
        if cell is not None:
            return CellTarget(cell, name)
        return LocalTarget(frame, name)
    if code.co_flags & CO_OPTIMIZED:
        if name in code.co_varnames:
            return LocalTarget(frame, name)
    elif type(frame.f_locals) is dict and name in frame.f_locals:
        return NamespaceTarget(frame.f_locals, name)
    if name in frame.f_globals:
        return NamespaceTarget(frame.f_globals, name)
    raise ValueError(f"no variable {name!r} here: bind it first, or watch_attr(obj, name) for an attribute")


def attribute_target(obj: object, attr: str, properties: bool = False) -> Target:
    if type(obj) is ModuleType:
        return NamespaceTarget(obj.__dict__, attr)
    if is_computed(obj, attr) and not properties:
        raise ValueError(f"{attr!r} is computed by its class: pass properties=True to have it called at each check")
    return AttributeTarget(obj, attr, properties)


# --- all at once ------------------------------------------------------------------------------------------------------


class WatchedNames(dict[str, int]):
    """What all() watches: region ids by name. `skipped` says why not the others."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<{len(self)} names watched, {len(self.skipped)} skipped>"


class Rules:
    """Which names all() takes."""

    def __init__(self, include: Globs, exclude: Globs, min_size: Optional[int], max_size: Optional[int]) -> None:
        self._include = _globs(include)
        self._exclude = _globs(exclude)
        self._min_size = min_size
        self._max_size = max_size

    def why_not(self, name: str, value: object, shell: bool) -> Optional[str]:
        """Why the name is skipped; None when it is not."""
        if name.startswith("__") and name.endswith("__"):
            return "dunder name"
        if len(name.encode("utf-8", "replace")) > _NAME_BYTES:
            return "name too long"
        if self._include is not None and not _matches(name, self._include):
            return "not included"
        if self._exclude is not None and _matches(name, self._exclude):
            return "excluded"
        if shell and _matches(name, _SHELL_NAMES):
            return "the interactive shell's own"
        return _why_not_kind(type(value)) or self._why_not_size(value)

    def _why_not_size(self, value: object) -> Optional[str]:
        if self._min_size is None and self._max_size is None:
            return None
        size = size_of(value)
        if self._min_size is not None and size < self._min_size:
            return f"smaller than min_size ({size} bytes)"
        if self._max_size is not None and size > self._max_size:
            return f"larger than max_size ({size} bytes)"
        return None


def _globs(globs: Globs) -> Optional[tuple[str, ...]]:
    if globs is None or isinstance(globs, str):
        return None if globs is None else (globs,)
    if not isinstance(globs, Iterable):
        raise TypeError(f"{globs!r} is no glob: include and exclude are names such as 'cache.*', or a list of such")
    return tuple(globs)


def _matches(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _why_not_kind(kind: type) -> Optional[str]:
    if issubclass(kind, ModuleType):
        return "module"
    if issubclass(kind, _FUNCTIONS):
        return "function"
    if issubclass(kind, type):
        return "class"
    module = type.__getattribute__(kind, "__module__")
    if type(module) is str and (module == "memwatch" or module.startswith("memwatch.")):
        return "memwatch's own"
    return None


def size_of(value: object) -> int:
    """Bytes: of the buffer where there is one, else of the object itself without what it refers to."""
    view = view_of(value)
    if view is not None:
        return view.nbytes
    for kind in (str, bytes, int, list, tuple, dict, set, frozenset):
        if issubclass(type(value), kind):
            return int(kind.__sizeof__(value))
    return object.__sizeof__(value)


class _Scope:
    """Names and what they hold, again and again: the follower asks a second time."""

    def __init__(
        self, origin: str, names: Callable[[], Optional[dict[str, Any]]], target: Callable[[str], Target]
    ) -> None:
        self.origin = origin
        self.names = names
        """None once the scope has ended."""
        self.target = target


def _local_scope(frame: FrameType) -> _Scope:
    held: list[FrameType] = [frame]

    def names() -> Optional[dict[str, Any]]:
        # The list's reference and the caller's argument are ours; a frame that has ended has no others.
        if not held or is_dead(held[0], 1):
            held.clear()
            return None
        return local_values(held[0])

    return _Scope("locals", names, lambda name: name_target(held[0], name))


def _namespace_scope(origin: str, namespace: dict[str, Any]) -> _Scope:
    return _Scope(origin, namespace.copy, lambda name: NamespaceTarget(namespace, name))


def _object_scope(obj: object) -> _Scope:
    def names() -> dict[str, Any]:
        return {**(instance_attributes(obj) or {}), **slot_attributes(obj)}

    return _Scope("object", names, lambda name: attribute_target(obj, name))


def _scopes(scope: object, frame: FrameType, obj: object) -> list[_Scope]:
    locals_ = _local_scope(frame) if frame.f_code.co_flags & CO_OPTIMIZED else None
    if locals_ is None and type(frame.f_locals) is dict:
        locals_ = _namespace_scope("locals", frame.f_locals)
    globals_ = _namespace_scope("globals", frame.f_globals)
    if scope is None:
        return [globals_] if locals_ is None or frame.f_locals is frame.f_globals else [locals_, globals_]
    if type(scope) is not str:
        return [_object_scope(scope)]
    if scope == "locals":
        return [locals_] if locals_ is not None else []
    if scope == "globals":
        return [globals_]
    if scope == "object":
        return [_object_scope(_first_argument(frame) if obj is None else obj)]
    kind, _, name = scope.partition(":")
    if kind == "module" and name in sys.modules:
        return [_namespace_scope(scope, sys.modules[name].__dict__)]
    if kind == "module":
        raise ValueError(f"no module {name!r} is imported")
    raise ValueError(f"scope must be 'locals', 'globals', 'module:NAME', 'object' or an object, not {scope!r}")


def _first_argument(frame: FrameType) -> object:
    code = frame.f_code
    if not code.co_argcount:
        raise ValueError("scope='object' outside of a method needs obj=: which object's attributes?")
    return local_value(frame, code.co_varnames[0])


class _Collector:
    """Watches what the rules take; the same for the first time and for each time that a follower looks again."""

    def __init__(self, watcher: Any, scopes: list[_Scope], rules: Rules, arguments: dict[str, Any]) -> None:
        self._watcher = weakref.ref(watcher)
        self._scopes = scopes
        self._rules = rules
        self._arguments = arguments
        self.result = WatchedNames()
        self._native: dict[str, int] = {}
        """By name: the id of the object that the core watches for it."""

    def collect(self) -> bool:
        """False when there is nothing left to follow."""
        watcher = self._watcher()
        if watcher is None:
            return False
        alive = False
        taken: set[str] = set()
        with watcher._adapter_named("trace").batch():
            for scope in self._scopes:
                names = scope.names()
                if names is None:
                    continue
                alive = True
                shell = "get_ipython" in names
                for name, value in names.items():
                    if type(name) is str and name not in taken:
                        taken.add(name)
                        self._take(watcher, scope, name, value, shell)
        return alive

    def _take(self, watcher: Any, scope: _Scope, name: str, value: object, shell: bool) -> None:
        if name in self.result:
            if self._native.get(name, id(value)) == id(value):
                return
            watcher.unwatch(self.result.pop(name))  # bound to another buffer, or to something else
            del self._native[name]
        why_not = self._rules.why_not(name, value, shell)
        if why_not is None:
            why_not = self._watch(watcher, scope, name, value)
        if why_not is not None:
            self.result.skipped[name] = why_not
        else:
            self.result.skipped.pop(name, None)

    def _watch(self, watcher: Any, scope: _Scope, name: str, value: object) -> Optional[str]:
        """Why it could not be watched; None when it is."""
        callback, values = self._arguments.get("callback"), self._arguments["values"]
        try:
            if has_bytes_that_change(value):
                self.result[name] = watcher.watch(value, name=name, callback=callback, values=values)
                self._native[name] = id(value)
            else:
                options = dict(self._arguments["options"])
                self.result[name] = _track(watcher, scope.target(name), name, callback, values, options)
        except (ValueError, TypeError, OSError) as error:
            return str(error)
        return None


def watch_all(
    watcher: Any,
    frame: Optional[FrameType] = None,
    *,
    scope: object = None,
    obj: object = None,
    include: Globs = None,
    exclude: Globs = None,
    min_size: Optional[int] = None,
    max_size: Optional[int] = None,
    refresh: bool = False,
    callback: Optional[Callable[[Any], object]] = None,
    values: Optional[str] = None,
    **options: Any,
) -> WatchedNames:
    """Watches every variable of the frame: its locals and its module's globals, or what `scope` says."""
    if watcher._core.closed:
        raise Error(errno.EPIPE, "the watcher is closed")
    _check_options("all", options)
    scopes = _scopes(scope, _frame(frame), obj)
    rules = Rules(include, exclude, min_size, max_size)
    arguments = {"callback": callback, "values": values, "options": options}
    collector = _Collector(watcher, scopes, rules, arguments)
    collector.collect()
    if refresh:
        watcher._adapter_named("trace").follow(collector.collect)
    return collector.result

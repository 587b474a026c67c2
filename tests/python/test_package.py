"""Contracts: what the package says of itself agrees with what it is."""

import ast
import importlib
import inspect
import pickle
import re
import types
import typing
from pathlib import Path

import pytest

import memwatch
from memwatch import _config, _native
from memwatch._entry import Again

PACKAGE = Path(memwatch.__file__).parent
ROOT = PACKAGE.parent.parent
core = _native.core


def surface(name):
    """What the extension's stub declares: names of the module, and of each class."""
    tree = ast.parse((PACKAGE / f"{name}.pyi").read_text())
    module, classes = set(), {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            classes[node.name] = {
                item.name for item in node.body if isinstance(item, ast.FunctionDef) and not item.name.startswith("__")
            }
        elif isinstance(node, ast.FunctionDef):
            module.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            module.add(node.target.id)
    return module, classes


@pytest.mark.skipif(not core.NATIVE, reason="the extensions' surface")
@pytest.mark.parametrize("name", ["_core", "_core_exporter", "_core_recorder"])
def test_the_typed_surface_is_the_extensions(name):
    if name.rpartition("_")[2] in _native.missing:
        pytest.skip(_native.missing[name.rpartition("_")[2]])
    extension = importlib.import_module(f"memwatch.{name}")
    module, classes = surface(name)
    assert {name for name in dir(extension) if not name.startswith("__")} == module | set(classes)
    for name, members in classes.items():
        assert {member for member in vars(getattr(extension, name)) if not member.startswith("__")} == members, name


def test_the_version_is_one():
    project = (ROOT / "pyproject.toml").read_text()
    assert f'\nversion = "{memwatch.__version__}"\n' in project
    assert memwatch.__version__ == core.VERSION


def test_everything_exported_is_there():
    for name in memwatch.__all__:
        assert getattr(memwatch, name) is not None
    assert memwatch.__all__ == sorted(memwatch.__all__)


def test_every_option_is_an_argument_and_a_variable():
    parameters = set(inspect.signature(memwatch.MemoryWatcher).parameters) - {"adapter"}
    assert parameters == set(_config.OPTIONS)


def test_everything_public_has_a_docstring():
    for name in memwatch.__all__:
        public = getattr(memwatch, name)
        assert inspect.getdoc(public), name
        for attribute, member in vars(public).items() if inspect.isclass(public) else ():
            if not attribute.startswith("_") and (callable(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{name}.{attribute}"


def test_the_architecture_names_files_that_exist():
    text = (PACKAGE / "architecture.md").read_text()
    named = set(re.findall(r"`((?:native|exporter|recorder|python|tests|docs)/[\w./-]+\.[a-z]+)`", text))
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists()]
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "exporter/src").rglob("*.c")}
    assert sources - named == set()


#: What only some programs need: a program that has no use for it does not wait for it.
FEW = {"asyncio", "base64", "contextlib", "copy", "ctypes", "dataclasses", "difflib", "dis", "enum", "fnmatch"}
FEW |= {"importlib", "inspect", "json", "logging", "pathlib", "re", "signal", "socket", "sqlite3", "subprocess"}
FEW |= {"tempfile", "tokenize", "traceback", "typing", "urllib", "warnings"}
OURS = {"_doctor", "_follow", "_history", "_log_events", "_pure", "_recorded", "_scope", "_serve", "_sigterm", "_stats"}
OURS |= {"adapters", "_trace.code", "integrations.asgi", "testing"}


def test_the_import_brings_nothing_that_few_programs_need(run_python):
    """Beside what `threading` brings, which is another with each Python."""
    code = f"""
import sys
sys.path.insert(0, {str(PACKAGE.parent)!r})
import threading
before = set(sys.modules)
import memwatch
print(*sorted(set(sys.modules) - before))
"""
    run = run_python(code, options=("-S", "-I"))
    assert run.returncode == 0, run.stderr
    brought = set(run.stdout.split())
    assert "memwatch._watcher" in brought
    assert brought & (FEW | {f"memwatch.{name}" for name in OURS}) == set()


#: Annotations that name what only type checkers import.
CHECKED_ONLY = {"ChangeEvent.__init__", "MemoryWatcher.blame", "MemoryWatcher.get_stats", "MemoryWatcher.log_events"}
CHECKED_ONLY |= {"MemoryWatcher.serve", "empty"}


def functions():
    """Every public function with annotations, and its name."""
    for name in memwatch.__all__:
        public = getattr(memwatch, name)
        for attribute, member in vars(public).items() if inspect.isclass(public) else ():
            function = member.fget if isinstance(member, property) else member
            if inspect.isfunction(function) and function.__module__.startswith("memwatch."):
                yield f"{name}.{attribute}", function
        if inspect.isfunction(public):
            yield name, public


def test_annotations_say_their_types_to_who_asks():
    hints = {name: typing.get_type_hints(function) for name, function in functions() if name not in CHECKED_ONLY}
    assert len(hints) > 100
    watch = hints["MemoryWatcher.watch"]
    assert watch["name"] == typing.Optional[str]
    assert watch["precise"] == typing.Union[bool, str]
    assert watch["return"] is int
    assert watch["metadata"] is object
    assert hints["ChangeEvent.where"]["return"] is memwatch.Where


@pytest.mark.parametrize("kind", [memwatch.Frame, memwatch.Change, Again])
def test_named_tuples_are_those_of_typing(kind):
    def described(kind):
        hints = typing.get_type_hints(kind)
        return kind.__name__, kind.__module__, kind._fields, kind._field_defaults, hints, kind.__mro__[1:]

    body = {"__annotations__": kind.__annotations__, "__module__": kind.__module__, **kind._field_defaults}
    typed = types.new_class(kind.__name__, (typing.NamedTuple,), {}, lambda namespace: namespace.update(body))
    assert described(kind) == described(typed)
    example = kind(*range(len(kind._fields)))
    assert pickle.loads(pickle.dumps(example)) == example
    assert kind.__doc__ and kind.__doc__ in inspect.getdoc(kind)


def test_numbers_need_no_more_of_python_once_it_is_imported(run_python):
    """A process that has given up its rights may no longer read Python's own files."""
    run = run_python("""
import array, ctypes, sys
import memwatch
class Unreadable:
    def find_spec(self, name, path=None, target=None):
        if not name.startswith("memwatch"):
            raise ModuleNotFoundError(f"no module named {name!r}")
sys.meta_path.insert(0, Unreadable())
told = []
with memwatch.MemoryWatcher() as watcher:
    watcher.set_callback(lambda event: told.append(str(event)))
    things = {"buffer": memwatch.buffer(4096), "bytes": bytearray(64), "numbers": array.array("d", [0.0] * 9)}
    things["c"] = (ctypes.c_int * 4)()
    for name, thing in things.items():
        watcher.watch(thing, name)
        thing[1] = 1
    assert watcher.flush()
    assert len(told) == 4 and {name for name in things if name in " ".join(told)} == set(things), told
    assert len([event.to_dict() for event in watcher.events(since=0, timeout=0)]) == 4
    watcher.get_stats(regions=True)
    assert watcher.value_at("numbers", seq=0) is not None and watcher.history("bytes") and watcher.unwatch("buffer")
""")
    assert (run.stderr, run.returncode) == ("", 0)


def test_what_is_imported_when_it_is_asked_for(run_python):
    names = ", ".join(f"memwatch.{name}" for name in memwatch.__all__)
    run = run_python(f"import memwatch; {names}, memwatch.x")
    assert "module 'memwatch' has no attribute 'x'" in run.stderr


def test_the_architecture_names_every_file():
    """A header beside its .c is named by it."""
    trees = [ROOT / name for name in ("native", "exporter/src", "exporter/include", "recorder", "python/ext")]
    text = (PACKAGE / "architecture.md").read_text()
    files = [path for tree in trees for path in tree.rglob("*.[ch]")]
    files += [path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "_built.py")]
    assert len(files) > 200
    unnamed = {path for path in files if not re.search(rf"\b{path.stem}\.(c|h|py)\b", text)}
    assert not sorted(str(path.relative_to(ROOT)) for path in unnamed)

"""Programs made at random that bind names in every way: each binding is an event with its value and its line.

The programs say themselves what they bind: `note()` at the end of each line keeps what the names hold then.
"""

import asyncio
import random
import sys

import pytest

from memwatch._scope import attribute_target
from memwatch._trace.targets import CellTarget, ItemTarget, NamespaceTarget

N_PROGRAMS = 25
NAMES = ["g", "c", "o.a", "d['k']", "li[1]"]

PRELUDE = """
import asyncio
class Thing: pass
class Context:
    def __init__(self, value, swallow=False): self.value, self.swallow = value, swallow
    def __enter__(self): return self.value
    def __exit__(self, *error): return self.swallow
    async def __aenter__(self):
        await asyncio.sleep(0)
        return self.value
    async def __aexit__(self, *error): return False
def same(x):
    return x
def generated(x):
    yield 1
    return x
async def awaited(x):
    await asyncio.sleep(0)
    return x
async def at_once(x):
    return x
async def each(x):
    yield x
g, o, d, li = 0, Thing(), {"k": 0}, [0, 0]
o.a = 0
"""


class Program:
    """Source of one program: a function, a generator and a coroutine over the same names."""

    def __init__(self, seed):
        self._random = random.Random(seed)
        self._last = 0
        self.lines = PRELUDE.split("\n")
        self.lines += ["def make(note):", "    c = 0"]
        for kind, header, end in [("f", "def f():", []), ("g", "def gen():", ["yield"]), ("a", "async def co():", [])]:
            body = ["global g", "nonlocal c", *self._block(3, kind), *end]
            self.lines += ["    " + header, *("        " + line for line in body)]
        self.lines.append("    return f, gen, co")

    def _binding(self, kind):
        self._last += 1
        value, name = self._last * 1000 + 7, self._random.choice(NAMES)
        simple = [
            f"{name} = {value}", f"{name} = same({value})", f"{name} = [{value} for _ in range(1)][0]",
            f"{name}, _ = {value}, 0", f"{name} = {value} if same(1) else 0",
        ]  # fmt: skip
        compound = [f"with Context({value}) as {name}", f"for {name} in ({value},)"]
        if name in ("g", "c"):
            compound.append(f"if ({name} := {value})")
        if kind == "g":
            simple += [f"{name} = yield", f"{name} = yield from generated({value})", f"{name} = (yield {value})"]
        if kind == "a":
            simple += [f"{name} = await awaited({value})", f"{name} = await at_once({value})"]
            compound += [f"async with Context({value}) as {name}", f"async for {name} in each({value})"]
        form = self._random.choice(simple + compound)
        return f"{form}{'; ' if form in simple else ': '}note()"

    def _block(self, depth, kind, loop=False):
        lines = []
        for _ in range(self._random.randint(1, 4)):
            choice = self._random.random()
            inner = ["    " + line for line in self._block(depth - 1, kind, loop)] if depth and choice > 0.5 else None
            if inner is None:
                lines.append(self._binding(kind))
            elif choice < 0.6:
                lines += [f"if same({self._random.randint(0, 1)}):", *inner]
            elif choice < 0.7:
                lines += [f"for i{depth} in range({self._random.randint(0, 3)}):", *inner]
            elif choice < 0.8:
                lines += ["try:", *inner, "    raise ValueError", "except ValueError:", "    " + self._binding(kind)]
            elif choice < 0.9:
                lines += ["with Context(1, swallow=True):", *inner, "    raise ValueError"]
            else:
                lines += [
                    f"match same({self._random.randint(0, 1)}):",
                    "    case 1:",
                    *("    " + line for line in inner),
                ]
        return lines


def run(make, note):
    function, generate, work = make(note)
    function()
    generator = generate()
    try:
        next(generator)
        for number in range(60):
            generator.send(1_000_000 + number)
    except StopIteration:
        pass
    asyncio.run(work())


@pytest.mark.parametrize("seed", range(N_PROGRAMS))
def test_every_binding_is_an_event(traced, events, seed):
    names = {"__name__": "program"}
    exec(compile("\n".join(Program(seed).lines), "<program>", "exec"), names)
    bound = []
    functions = []

    def note():
        held = {"g": names["g"], "o.a": names["o"].a, "d['k']": names["d"]["k"], "li[1]": names["li"][1]}
        held["c"] = cell_of(functions[0]).cell_contents
        line = sys._getframe(1).f_lineno
        bound.extend((name, value, line) for name, value in held.items() if value != last[name])
        last.update(held)

    def make(note):
        functions.extend(names["make"](note))
        targets = {
            "g": NamespaceTarget(names, "g"), "c": CellTarget(cell_of(functions[0]), "c"),
            "o.a": attribute_target(names["o"], "a"), "d['k']": ItemTarget(names["d"], "k", frozenset("d")),
            "li[1]": ItemTarget(names["li"], 1, frozenset(["li"])),
        }  # fmt: skip
        for name, target in targets.items():
            traced.adapter.track(target, {"name": name})
        return functions

    last = dict.fromkeys(NAMES, 0)
    run(make, note)
    assert len(bound) > 3
    for name in NAMES:
        expected = [(value, line) for bound_name, value, line in bound if bound_name == name]
        assert [(event.new_object, event.line) for event in events if event.name == name] == expected


def cell_of(function):
    return function.__closure__[function.__code__.co_freevars.index("c")]

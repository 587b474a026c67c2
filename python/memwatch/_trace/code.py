"""Which instructions of a code object can change what a name holds.

DESIGN  Bytecode is read, never source. `scan(code)` lists the code's *sites*: the instructions that bind or delete a
name, store an attribute or an item, or call something. A target (see `targets.py`) picks those that concern it. The
monitoring engine then asks for one callback at the instruction after a site, the settrace engine for one after the
site's line. What a site stores into is found by following the stack symbolically through straight-line code: its
`owner` is the path of names (`("self", "items")`), or None where that cannot be told; it decides whether an answer may
be called exact.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from enum import Enum
from types import CodeType

from memwatch._typing import NamedTuple, Optional

Path = tuple[str, ...]


class Kind(Enum):
    """What an instruction may change."""

    FAST = "a local variable"
    NAME = "a global, or a name of a module, class body or exec'd code"
    CELL = "a variable of an enclosing function"
    ATTRIBUTE = "an attribute"
    ITEM = "an item, or an in-place operator"
    CALL = "anything"


class Site(NamedTuple):
    """One instruction that can change something. `after` is the offset at which it has."""

    kind: Kind
    name: str
    owner: Optional[Path]
    after: int
    line: int
    joined: bool
    """Other code also reaches `after` without running this instruction."""
    hidden: frozenset[str]
    """Locals that an inlined comprehension uses for itself at this point (3.12+)."""


class Instruction(NamedTuple):
    offset: int
    op: str
    arg: int
    after: int


# Methods of builtin containers that change them: a call of one names its object as what it changes.
MUTATORS = frozenset(
    ("append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse", "update", "setdefault", "popitem")
    + ("add", "discard", "appendleft", "extendleft", "popleft", "rotate", "difference_update", "intersection_update")
    + ("symmetric_difference_update", "move_to_end", "__setitem__", "__delitem__", "__iadd__")
)
_CALLS = frozenset({"CALL", "CALL_KW", "CALL_FUNCTION_EX"})
_LOADS = frozenset(
    ("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_NAME", "LOAD_GLOBAL", "LOAD_DEREF", "LOAD_CLASSDEREF")
)
_LOADS_OF_TWO = frozenset({"LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW"})
_INPLACE = range(13, 26)  # the arguments of BINARY_OP that are the in-place operators; 26, from 3.14 on, reads an item
_IGNORED = frozenset({"CACHE", "EXTENDED_ARG"})
_NO_INSTRUCTIONS: frozenset[str] = frozenset()


def names_of(code: CodeType) -> set[str]:
    """The names that the code mentions."""
    return {*code.co_names, *code.co_varnames, *code.co_cellvars, *code.co_freevars}


def strings_of(code: CodeType) -> set[str]:
    """The string constants of the code: what `setattr(obj, "name", 1)` mentions, and `vars(obj).update(name=1)`."""
    found = {const for const in code.co_consts if type(const) is str}
    for const in code.co_consts:
        if type(const) is tuple:
            found.update(item for item in const if type(item) is str)
    return found


def slot_names(code: CodeType) -> tuple[str, ...]:
    """Names of a frame's slots: locals, then the cells that are no arguments, then the enclosing functions'."""
    own = tuple(name for name in code.co_cellvars if name not in code.co_varnames)
    return code.co_varnames + own + code.co_freevars


def instructions(code: CodeType) -> Iterator[Instruction]:
    """The code's instructions without caches, arguments complete."""
    raw = code.co_code
    pending: Optional[tuple[int, str, int]] = None
    extended = 0
    for offset in range(0, len(raw), 2):
        op, arg = dis.opname[raw[offset]], raw[offset + 1] | extended
        extended = arg << 8 if op == "EXTENDED_ARG" else 0
        if op in _IGNORED:
            continue
        if pending is not None:
            yield Instruction(*pending, offset)
        pending = (offset, op, arg)
    if pending is not None:
        yield Instruction(*pending, len(raw))


class _Lines:
    """Line numbers by offset."""

    def __init__(self, code: CodeType) -> None:
        self._ranges = list(code.co_lines())
        self._at = 0
        self._first = code.co_firstlineno

    def line(self, offset: int) -> int:
        """Offsets must be asked for in ascending order."""
        while self._at < len(self._ranges) - 1 and offset >= self._ranges[self._at][1]:
            self._at += 1
        return (self._ranges[self._at][2] if self._ranges else None) or self._first


class _Stack:
    """The value stack as far as straight-line code tells: a path of names, or None for what is not one."""

    def __init__(self) -> None:
        self._items: list[Optional[Path]] = []

    def clear(self) -> None:
        self._items.clear()

    def push(self, item: Optional[Path]) -> None:
        self._items.append(item)

    def pop(self) -> Optional[Path]:
        return self._items.pop() if self._items else None

    def peek(self, depth: int) -> Optional[Path]:
        """`depth` 1 is the top."""
        return self._items[-depth] if 0 < depth <= len(self._items) else None

    def swap(self, depth: int) -> None:
        while len(self._items) < depth:
            self._items.insert(0, None)
        self._items[-1], self._items[-depth] = self._items[-depth], self._items[-1]

    def apply(self, effect: int) -> None:
        """An instruction of which only the net effect is known: what it leaves on top is unknown."""
        for _ in range(-effect):
            self.pop()
        for _ in range(effect):
            self.push(None)
        if self._items:
            self._items[-1] = None


class _Scanner:
    def __init__(self, code: CodeType) -> None:
        self._code = code
        self._slots = slot_names(code)
        self._lines = _Lines(code)
        self._joins = set(dis.findlabels(code.co_code))  # type: ignore[arg-type]
        self._stack = _Stack()
        self._hidden: dict[str, int] = {}
        self._instructions = list(instructions(code))

    def run(self) -> list[Site]:
        sites: list[Site] = []
        for index, instruction in enumerate(self._instructions):
            if instruction.offset in self._joins:
                self._stack.clear()
            if instruction.op == "LOAD_FAST_AND_CLEAR":
                self._hidden[self._slots[instruction.arg]] = self._comprehension_end(index)
            sites.extend(self._sites(instruction))
            self._follow(instruction)
        return sites

    def _comprehension_end(self, index: int) -> int:
        """Where the inlined comprehension that begins here gives the local back."""
        for instruction in self._instructions[index:]:
            if instruction.op == "FOR_ITER":
                return instruction.after + 2 * instruction.arg
            if instruction.op == "END_ASYNC_FOR":
                return instruction.after
        return 0

    def _site(self, kind: Kind, name: str, owner: Optional[Path], instruction: Instruction) -> Site:
        offset, after = instruction.offset, instruction.after
        hidden = frozenset(name for name, end in self._hidden.items() if after <= end) or _NO_INSTRUCTIONS
        return Site(kind, name, owner, after, self._lines.line(offset), after in self._joins, hidden)

    def _sites(self, instruction: Instruction) -> Iterator[Site]:
        op, arg = instruction.op, instruction.arg
        stack = self._stack
        if op in ("STORE_FAST", "DELETE_FAST"):
            yield self._site(Kind.FAST, self._slots[arg], None, instruction)
        elif op in ("STORE_FAST_LOAD_FAST", "STORE_FAST_STORE_FAST"):
            yield self._site(Kind.FAST, self._slots[arg >> 4], None, instruction)
            if op == "STORE_FAST_STORE_FAST":
                yield self._site(Kind.FAST, self._slots[arg & 15], None, instruction)
        elif op in ("STORE_NAME", "DELETE_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"):
            yield self._site(Kind.NAME, self._code.co_names[arg], None, instruction)
        elif op in ("STORE_DEREF", "DELETE_DEREF"):
            yield self._site(Kind.CELL, self._slots[arg], None, instruction)
        elif op in ("STORE_ATTR", "DELETE_ATTR"):
            yield self._site(Kind.ATTRIBUTE, self._code.co_names[arg], stack.peek(1), instruction)
        elif op in ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE"):
            yield self._site(Kind.ITEM, "", stack.peek(3 if op == "STORE_SLICE" else 2), instruction)
        elif op == "BINARY_OP" and arg in _INPLACE:
            yield self._site(Kind.ITEM, "", stack.peek(2), instruction)
        elif op in _CALLS:
            yield self._site(Kind.CALL, *self._callee(instruction), instruction)

    def _callee(self, instruction: Instruction) -> tuple[str, Optional[Path]]:
        """The called method's name and its object, for the methods that change their object."""
        if instruction.op == "CALL_FUNCTION_EX":
            return "", None
        n_keywords = 1 if instruction.op == "CALL_KW" else 0
        for slot in (1, 2):
            path = self._stack.peek(instruction.arg + n_keywords + slot)
            if path and len(path) > 1 and path[-1] in MUTATORS:
                return path[-1], path[:-1]
        return "", None

    def _follow(self, instruction: Instruction) -> None:
        """What the instruction does to the stack."""
        op, arg, stack = instruction.op, instruction.arg, self._stack
        if op in _LOADS:
            self._load(op, arg)
        elif op in _LOADS_OF_TWO:
            stack.push((self._slots[arg >> 4],))
            stack.push((self._slots[arg & 15],))
        elif op == "STORE_FAST_LOAD_FAST":
            stack.pop()
            stack.push((self._slots[arg & 15],))
        elif op in ("LOAD_ATTR", "LOAD_METHOD"):
            self._load_attribute(op, arg)
        elif op == "COPY":
            stack.push(stack.peek(arg))
        elif op == "SWAP":
            stack.swap(arg)
        elif op.startswith(("STORE_", "DELETE_", "POP_TOP")):
            for _ in range(-_effect(instruction)):
                stack.pop()
        elif op not in ("RESUME", "NOP", "PRECALL", "KW_NAMES"):
            stack.apply(_effect(instruction))

    def _load(self, op: str, arg: int) -> None:
        if op == "LOAD_GLOBAL":
            if arg & 1:
                self._stack.push(None)
            self._stack.push((self._code.co_names[arg >> 1],))
        elif op == "LOAD_NAME":
            self._stack.push((self._code.co_names[arg],))
        else:
            self._stack.push((self._slots[arg],))

    def _load_attribute(self, op: str, arg: int) -> None:
        shifted = op == "LOAD_ATTR" and _ATTRIBUTE_FLAG
        name = self._code.co_names[arg >> 1 if shifted else arg]
        base = self._stack.pop()
        path = None if base is None else (*base, name)
        if op == "LOAD_METHOD" or (shifted and arg & 1):
            self._stack.push(path)
        self._stack.push(path)


def _has_attribute_flag() -> bool:
    """Whether LOAD_ATTR's argument carries a method flag in its lowest bit, as from 3.12 on."""
    return "LOAD_METHOD" not in dis.opmap or dis.opmap["LOAD_METHOD"] > 255


_ATTRIBUTE_FLAG = _has_attribute_flag()


def _effect(instruction: Instruction) -> int:
    code = dis.opmap[instruction.op]
    if instruction.op in ("CALL", "PRECALL"):
        return -(instruction.arg + 1)  # callee, self or NULL, and the arguments, for one result
    arg = instruction.arg if code >= dis.HAVE_ARGUMENT else None
    try:
        return dis.stack_effect(code, arg, jump=False)
    except ValueError:
        return 0


def scan(code: CodeType) -> list[Site]:
    """The code's sites in ascending order of offset."""
    return _Scanner(code).run()

"""Checks the layers: which folder may see which, and that no files include, import or call one another in a circle.

A file of C and its header are one unit. It sees another by an include, and by each function and variable of it that it
names. A module of Python sees another by an import, wherever it stands, but for those that only a type checker follows.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Each folder, and what it may see beside itself. The one place where layers are told.
LAYERS: dict[str, set[str]] = {
    "native/src": {"native/src/worker", "native/src/fault", "native/src/base"},
    "native/src/worker": {"native/src/base"},
    "native/src/fault": {"native/src/base"},
    "native/src/base": set(),
    "exporter/src": {f"exporter/src/{name}" for name in ("http", "feeds", "metrics", "text")},
    "exporter/src/http": {"exporter/src", "exporter/src/text"},
    "exporter/src/feeds": {"exporter/src", "exporter/src/http", "exporter/src/text"},
    "exporter/src/metrics": {"exporter/src", "exporter/src/feeds", "exporter/src/http", "exporter/src/text"},
    "exporter/src/text": set(),
    "recorder/src": set(),
}
TREES = ("native/src", "exporter/src", "recorder/src")
PACKAGE = ROOT / "python" / "memwatch"

NOT_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
INCLUDE = re.compile(r'^#\s*include "([^"]+)"', re.M)
#: A function at the left margin: what stands before its name, and the name.
FUNCTION = re.compile(r"^(?!typedef|struct \w+ \{|enum|extern|#)([\w \t*]*?)\b(?!__)(\w+)\((?=[^;]*?\)\s*\n\{)", re.M)
VARIABLE = re.compile(r"^extern [^;(]*?(\w+)(?:\[[^;]*)?;", re.M)
TAG = re.compile(r"\b(?:struct|enum|union)\s+\w+")
NAME = re.compile(r"\b[A-Za-z_]\w*\b")

Graph = dict[str, set[str]]


def code_of(path: Path) -> str:
    return NOT_CODE.sub(" ", path.read_text(encoding="utf-8"))


def unit_of(path: Path) -> str:
    return str(path.relative_to(ROOT).with_suffix(""))


def c_units(top: str) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted((ROOT / top).rglob("*.[ch]")):
        found.setdefault(unit_of(path), []).append(path)
    return found


def c_graph(top: str) -> Graph:
    """Returns which unit sees which below a folder."""
    units = c_units(top)
    code = {unit: "".join(code_of(path) for path in paths) for unit, paths in units.items()}
    owners: dict[str, str] = {}
    statics: dict[str, set[str]] = {}
    for unit, text in code.items():
        functions = FUNCTION.findall(text)
        statics[unit] = {name for before, name in functions if "static" in before}
        owners.update({name: unit for before, name in functions if "static" not in before})
        owners.update(dict.fromkeys(VARIABLE.findall(text), unit))
    graph: Graph = {unit: set() for unit in units}
    for unit, paths in units.items():
        names = set(NAME.findall(TAG.sub(" ", code[unit]))) - statics[unit]
        graph[unit] |= {owners[name] for name in names & owners.keys()}
        for path in paths:
            for name in INCLUDE.findall(path.read_text(encoding="utf-8")):
                for folder in (path.parent, ROOT / top):
                    if unit_of((folder / name).resolve()) in units:
                        graph[unit].add(unit_of((folder / name).resolve()))
                        break
        graph[unit].discard(unit)
    return graph


def imports(tree: ast.AST) -> list[ast.ImportFrom | ast.Import]:
    """Returns the imports of a module, without those below `if TYPE_CHECKING`."""
    found: list[ast.ImportFrom | ast.Import] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        found += imports(node)
    return found


def python_graph() -> Graph:
    """Returns which module of the package imports which."""
    modules = {path: ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    names = {name.removesuffix(".__init__") for name in modules.values()}
    graph: Graph = {}
    for path, dotted in modules.items():
        package = dotted.rpartition(".")[0]
        dotted = dotted.removesuffix(".__init__")
        seen: set[str] = set()
        for node in imports(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                seen |= {alias.name for alias in node.names}
                continue
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            full = ".".join(part for part in (base, node.module) if part)
            seen |= {f"{full}.{alias.name}" if f"{full}.{alias.name}" in names else full for alias in node.names}
        graph[dotted] = (seen & names) - {dotted}
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """Returns each set of units that see one another: the strongly connected parts of more than one (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(unit: str) -> None:
        index[unit] = low[unit] = len(index)
        stack.append(unit)
        for other in sorted(graph[unit]):
            if other not in index:
                visit(other)
                low[unit] = min(low[unit], low[other])
            elif other in stack:
                low[unit] = min(low[unit], index[other])
        if low[unit] == index[unit]:
            part = stack[stack.index(unit) :]
            del stack[stack.index(unit) :]
            if len(part) > 1:
                found.append(sorted(part))

    for unit in sorted(graph):
        if unit not in index:
            visit(unit)
    return found


def layer_complaints(graph: Graph) -> list[str]:
    found = []
    for unit in sorted(graph):
        folder = str(Path(unit).parent)
        may = LAYERS[folder] | {folder}
        found += [
            f"{unit}: sees {other}, which its layer must not (scripts/lint_layers.py)"
            for other in sorted(graph[unit])
            if str(Path(other).parent) not in may
        ]
    return found


def main() -> int:
    found = []
    for top in TREES:
        graph = c_graph(top)
        found += layer_complaints(graph)
        for circle in circles(graph):
            inside = set(circle)
            ties = [f"{unit} -> {other}" for unit in circle for other in sorted(graph[unit] & inside)]
            found.append(f"{top}: a circle: {', '.join(ties)}")
    graph = python_graph()
    for circle in circles(graph):
        inside = set(circle)
        ties = [f"{unit} -> {other}" for unit in circle for other in sorted(graph[unit] & inside)]
        found.append(f"python/memwatch: a circle: {', '.join(ties)}")
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

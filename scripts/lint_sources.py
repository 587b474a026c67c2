"""Checks what no linter knows: each .c says what it is, no file grows past its limit, nothing is left open."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINES_MAX = 600
COLUMNS_MAX = 120
LEFT_OPEN = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
SOURCE_DIRS = ["native", "exporter", "recorder", "python", "examples", "bench", "tests", "scripts"]
SUFFIXES = {".c", ".h", ".py", ".js"}

#: No identifiers: a formatter takes them for what they are in C++, and so does every header that C++ includes.
KEYWORDS = re.compile(
    r"\b(class|delete|export|explicit|friend|mutable|namespace|new|operator|private|protected|public|template|this|throw"
    r"|try|catch|typename|using|virtual)\b"
)
NOT_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|^#\s*include[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S | re.M)
# A folder includes itself, those named here, and headers of exporter/src itself.
LAYERS = {
    "exporter/src/text": set(),
    "exporter/src/http": {"text"},
    "exporter/src/feeds": {"http", "text"},
    "exporter/src/metrics": {"feeds", "http", "text"},
}
INCLUDE = re.compile(r'^#include "(?:(\w+)/)?[\w.]+"', re.MULTILINE)


def includes_upwards(path: Path, text: str) -> list[str]:
    """Folders that a file of a lower layer may not include."""
    allowed = LAYERS.get(str(path.parent.relative_to(ROOT)))
    if allowed is None:
        return []
    return [
        f"1: includes {folder}/, which is above it"
        for folder in INCLUDE.findall(text)
        if folder and folder not in allowed
    ]


def sources() -> list[Path]:
    found = (path for top in SOURCE_DIRS for path in (ROOT / top).rglob("*") if path.suffix in SUFFIXES)
    return sorted(path for path in found if path.is_file() and path != Path(__file__).resolve())


def keywords(text: str) -> list[str]:
    """Returns the keywords of C++ in a piece of C, each with its line."""
    code = NOT_CODE.sub(lambda match: "\n" * match[0].count("\n"), text)
    return [f"{n}: {word}" for n, line in enumerate(code.splitlines(), 1) for word in KEYWORDS.findall(line)]


def complaints(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    found = [f"{n}: left open: {line.strip()}" for n, line in enumerate(lines, 1) if LEFT_OPEN.search(line)]
    if len(lines) > LINES_MAX:
        found.append(f"{len(lines)}: longer than {LINES_MAX} lines: is there a second room in it?")
    found += includes_upwards(path, text)
    if path.suffix == ".c" and not text.startswith("/*"):
        found.append("1: opens without saying what it does, which thread runs it, what it owns")
    if path.suffix in {".c", ".h"}:  # ruff sees to those of Python
        wide = [n for n, line in enumerate(lines, 1) if len(line.expandtabs(8)) > COLUMNS_MAX]
        found += [f"{n}: wider than {COLUMNS_MAX} columns" for n in wide]
        if path.name != "watch.h" or "__cplusplus" not in text:  # which has a part in C++
            found += [f"{complaint}: a keyword of C++ as a name" for complaint in keywords(text)]
    return found


def main() -> int:
    found = [f"{path.relative_to(ROOT)}:{complaint}" for path in sources() for complaint in complaints(path)]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Writes docs/reference.md from the tables of options: reference.py [--check]"""

import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))

from memwatch import MemoryWatcher, _config, _serve  # noqa: E402

HEAD = """# Every option

Written by `scripts/reference.py` from the tables in the sources; a test holds it to them.

## MemoryWatcher

An argument wins over its environment variable. Sizes may be written `64k`, `64 MiB`, `1g` there.

| option | default | unit | range | environment variable | what for |
|---|---|---|---|---|---|
"""


def defaults() -> dict[str, str]:
    """The core's defaults, as base.h has them."""
    text = (ROOT / "native/src/base/base.h").read_text(encoding="utf-8")
    return dict(re.findall(r"^#define (\w+) (.+?)(?: +/\*.*)?$", text, re.MULTILINE))


def default_text(name: str, known: dict[str, str]) -> str:
    shift = re.fullmatch(r"\(UINT64_C\((\d+)\) << 20\)", known.get(name, name))
    return f"{shift[1]} MiB" if shift else known.get(name, name)


def range_text(option: _config.Option) -> str:
    if option.high:
        return f"{option.low:g} to {option.high:.10g}"
    return f"from {option.low:g}" if option.low else ""


def watcher_rows() -> str:
    known = defaults()
    return "".join(
        f"| `{name}` | {default_text(option.default, known)} | {option.unit} | {range_text(option)} "
        f"| `MEMWATCH_{name.upper()}` | {option.about} |\n"
        for name, option in _config.OPTIONS.items()
    )


def serve_rows() -> str:
    """The options of serve(), from the comments beside them."""
    source = inspect.getsource(_serve.ServeOptions)
    rows = re.findall(r"^    (\w+): (.+?)(?:  # (.+))?$", source, re.MULTILINE)
    return "".join(f"| `{name}` | {about or 'see above'} |\n" for name, _, about in rows)


def options_of(function: object) -> str:
    """The options of a function's docstring: lines that begin with a name and two blanks."""
    text = inspect.getdoc(function) or ""
    text = text[text.index("callback        ") :]
    rows: list[tuple[str, str]] = []
    for line in text.splitlines():
        found = re.fullmatch(r"(\w+) {2,}(.+)", line)
        if found:
            rows.append((found[1], found[2]))
        elif rows and line.startswith(" "):
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {line.strip()}")
    return "".join(f"| `{name}` | {about} |\n" for name, about in rows)


def text() -> str:
    return (
        HEAD
        + watcher_rows()
        + "\n## watch()\n\n| option | what for |\n|---|---|\n"
        + options_of(MemoryWatcher.watch)
        + "\n## serve()\n\n`host` is `127.0.0.1` and `port` 10764, or any free one where that is in use.\n\n"
        + "| option | what for |\n|---|---|\n"
        + serve_rows()
        + "\n## C\n\nThe same options are members of `struct memwatch_options`, `memwatch_region_options` and\n"
        + "`memwatch_exporter_options`; their comments in "
        + "[memwatch.h](../native/include/memwatch/memwatch.h) and\n"
        + "[exporter.h](../exporter/include/memwatch/exporter.h) are the reference.\n"
    )


def main() -> int:
    target = ROOT / "docs/reference.md"
    if "--check" in sys.argv:
        return 0 if target.read_text(encoding="utf-8") == text() else 1
    target.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

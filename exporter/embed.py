"""Writes the live page's files, those of page/ beside this script, into a C header: embed.py OUTPUT"""

import sys
from pathlib import Path


def c_array(path: Path) -> str:
    name = "page_" + path.name.replace(".", "_").replace("-", "_")
    data = path.read_bytes()
    rows = (", ".join(map(str, data[i : i + 32])) for i in range(0, len(data), 32))
    return f"static const unsigned char {name}[{len(data)}] = {{\n\t" + ",\n\t".join(rows) + "\n};\n"


def main(output: str) -> None:
    files = sorted((Path(__file__).parent / "page").iterdir())
    text = "/* Written by exporter/embed.py. */\n" + "".join(map(c_array, files))
    target = Path(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_text() != text:
        target.write_text(text)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1])

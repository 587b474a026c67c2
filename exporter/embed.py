"""Writes the live page's files, those of page/ beside this script, into a C header: embed.py OUTPUT"""

import sys
from pathlib import Path

PAGE = Path(__file__).parent / "page"

#: What is served, and of which files. The scripts are one script, in this order: each uses what stands before it, and
#: the last one begins.
SERVED = {
    "page_index_html": ["index.html"],
    "page_style_css": ["style.css"],
    "page_app_js": [
        "text.js",
        "decode.js",
        "who.js",
        "chart.js",
        "rows.js",
        "state.js",
        "health.js",
        "feed.js",
        "bytes.js",
        "view.js",
        "variable.js",
        "app.js",
    ],
}


def c_array(name: str, files: list[str]) -> str:
    data = b"\n".join((PAGE / file).read_bytes() for file in files)
    rows = (", ".join(map(str, data[i : i + 32])) for i in range(0, len(data), 32))
    return f"static const unsigned char {name}[{len(data)}] = {{\n\t" + ",\n\t".join(rows) + "\n};\n"


def main(output: str) -> None:
    unserved = {path.name for path in PAGE.iterdir()} - {file for files in SERVED.values() for file in files}
    if unserved:
        sys.exit(f"exporter/embed.py does not say where these belong: {', '.join(sorted(unserved))}")
    text = "/* Written by exporter/embed.py. */\n" + "".join(c_array(*item) for item in SERVED.items())
    target = Path(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_text() != text:
        target.write_text(text)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1])

#!/usr/bin/env python3
"""Writes the dashboards in grafana/ from the code in boards/. With --check: only says which files differ."""

import argparse
import json
import sys
from pathlib import Path

from boards.fleet import fleet
from boards.overview import overview
from boards.variable import variable
from grafana_foundation_sdk.cog.encoder import JSONEncoder

GRAFANA = Path(__file__).resolve().parent / "grafana"


def files() -> dict[Path, str]:
    """What each file should hold."""
    made = [overview(), variable(), fleet()]
    plain = [json.loads(JSONEncoder().encode(board)) for board in made]
    return {
        GRAFANA / f"{board['uid'].removeprefix('memwatch-')}.json": json.dumps(
            board, indent=1, ensure_ascii=False, sort_keys=True
        )
        + "\n"
        for board in plain
    }


def differing() -> list[Path]:
    """The files that are not what the code makes."""
    return [path for path, text in files().items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        for path in (stale := differing()):
            print(f"{path.relative_to(GRAFANA.parent.parent)} differs from what dashboards/build.py makes")
        return 1 if stale else 0
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

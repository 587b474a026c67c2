"""Runs at the start of a program under `memwatch run`, before anything of the program does.

DESIGN  Its folder stands first in PYTHONPATH, so that Python finds it in place of the machine's own sitecustomize.
It takes the folder out again, restores the environment unless children are to be followed, runs the machine's own,
and begins to watch. The program then starts as it always does, by the interpreter itself.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _restore(plan: dict[str, Any], here: str) -> None:
    """The path and the environment as they were."""
    sys.path[:] = [each for each in sys.path if os.path.abspath(each or ".") != here]
    sys.path_importer_cache.pop(here, None)
    if plan["children"]:
        return
    del os.environ["MEMWATCH_RUN"]
    if plan["pythonpath"] is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = plan["pythonpath"]


def _run_the_own() -> None:
    """The sitecustomize that this one stood in front of."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


def _begin(plan: dict[str, Any]) -> None:
    """Watches; where that cannot be, the program runs as it is."""
    sys.path.append(plan["package"])
    try:
        from memwatch._cli import inside
    except Exception as error:
        print(f"memwatch: not watched, {sys.executable} cannot import memwatch: {error}", file=sys.stderr)
        return
    finally:
        sys.path.remove(plan["package"])
    try:
        inside.begin(plan)
    except Exception as error:
        print(f"memwatch: not watched: {error!r}", file=sys.stderr)


def _main() -> None:
    import json

    plan = json.loads(os.environ["MEMWATCH_RUN"])
    _restore(plan, os.path.dirname(os.path.abspath(__file__)))
    try:
        _run_the_own()
    finally:
        _begin(plan)


if "MEMWATCH_RUN" in os.environ:
    _main()

"""The package without its extension, on a system that has neither fork nor the signals of POSIX, as Windows.

The whole of it runs in processes from which tests/without.py hides what is missing there.
"""

import os
import subprocess
import sys

from tests.conftest import ROOT, run_python

ENVIRON = {"PYTHONPATH": f"{ROOT}/python:{ROOT}"}
PASSING = [f"tests/python/test_{name}.py" for name in ("polling", "scope", "trace_options", "adapters")]
OF_THE_EXTENSION = "mprotect or stand_in or same_keys"
OF_SPEED = "milliseconds"


def run_without(code, *arguments):
    """Runs a program that has less."""
    return run_python("import tests.without\n" + code, *arguments, environ=ENVIRON, timeout=120)


def test_tests_of_what_needs_no_extension_pass():
    options = [
        "-p",
        "tests.without",
        "-p",
        "pytest_timeout",
        "-p",
        "no:faulthandler",
        "-p",
        "no:cacheprovider",
        "-q",
        "-k",
        f"not ({OF_THE_EXTENSION} or {OF_SPEED})",
    ]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *PASSING],
        cwd=ROOT,
        env={**os.environ, **ENVIRON, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # they ask for what is hidden
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:]


def test_every_module_can_be_imported():
    run = run_without(
        """
import importlib, pkgutil
import memwatch
for module in pkgutil.walk_packages(memwatch.__path__, "memwatch."):
    if "_core" in module.name or module.name.endswith(("__main__", "top_screen")):
        continue
    importlib.import_module(module.name)
"""
    )
    assert run.returncode == 0, run.stderr


def test_readmes_first_program():
    program = (ROOT / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    run = run_without(program + "\nwatcher.flush(30)\nwatcher.close()\n")
    assert (run.returncode, run.stdout.splitlines()[:1]) == (0, ["data: b'Hello' -> b'Jello'"]), run.stderr


def test_commands_that_look_for_watchers_find_none():
    for command, status in (["ps"], 1), (["discover"], 0), (["tail"], 1), (["doctor"], 4), (["--help"], 0):
        run = run_without("import runpy\nrunpy.run_module('memwatch', run_name='__main__')", *command)
        assert (run.returncode, "Traceback" in run.stderr) == (status, False), (command, run.stderr)

"""memwatch run: the program is its own, and what it does to its variables is seen."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import memwatch
from memwatch._cli import plan

ROOT = Path(__file__).resolve().parent.parent.parent

SETTINGS = """
limit = 10
data = bytearray(4)
nested = type("Nested", (), {"inner": 1})()


def change(value):
    global limit, data
    limit = value
    data[0] = value
    data = bytearray(8)
    data[1] = value
    nested.inner = value
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "settings.py").write_text(SETTINGS)
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path


def shell(*arguments, python=(), **options):
    return subprocess.run(
        [sys.executable, *python, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False, **options
    )  # fmt: skip


def both(*arguments, watch="settings:limit", python=(), **options):
    """What a program does by itself, and what it does when it is watched."""
    alone = shell(*arguments, python=python, **options)
    options_of_run = ["--quiet", "--no-serve", "--watch", watch, "--"]
    watched = shell("-m", "memwatch", "run", *options_of_run, *arguments, python=python, **options)
    return alone, watched


def run(folder, text, *arguments):
    (folder / "script.py").write_text(text)
    return shell("-m", "memwatch", "run", "--no-serve", *arguments, "--", "script.py")


# --- the program is its own -------------------------------------------------------------------------------------------

REPORT = """
import atexit, os, sys, __main__
import settings
atexit.register(print, "last")
atexit.register(print, "first")
print(sys.argv, sys.orig_argv[1:], sys.path, sys.flags, __name__, __file__, sorted(vars(__main__)))
print({key: value for key, value in os.environ.items() if "PYTHON" in key or "MEMWATCH" in key})
print(sys.stdin.read(), __spec__, __main__ is sys.modules["__main__"], os.getppid() == int(os.environ["PARENT"]))
settings.change(5)
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize("form", [["script.py"], ["-m", "script"], ["./script.py"]])
def test_what_a_program_sees_of_itself(folder, form):
    (folder / "script.py").write_text(REPORT)
    environ = {**os.environ, "PARENT": str(os.getpid()), "PYTHONHASHSEED": "0"}
    alone, watched = both(*form, "7", "--watch", "-m", "--", input="lines\n", env=environ)
    assert (alone.returncode, alone.stderr) == (7, "")
    assert re.sub("0x[0-9a-f]+", "", watched.stdout) == re.sub("0x[0-9a-f]+", "", alone.stdout)
    assert (watched.returncode, watched.stderr) == (7, "")


@pytest.mark.parametrize(
    "text",
    [
        "import settings\ndef f():\n    settings.change(3)\n    1 / 0\nf()",
        "raise SystemExit('a sentence')",
        "import os; os._exit(9)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
        "import os; os.abort()",
        "def broken(:",
    ],
)
def test_how_a_program_ends(folder, text):
    (folder / "script.py").write_text(text)
    alone, watched = both("script.py", watch="script:f*")
    assert (watched.returncode, watched.stdout, watched.stderr) == (alone.returncode, alone.stdout, alone.stderr)


def test_the_flags_of_the_interpreter_are_kept(folder):
    (folder / "script.py").write_text("import sys; print(sys.flags, sys.warnoptions, sys._xoptions)")
    alone, watched = both("script.py", python=("-W", "error", "-O", "-X", "dev"))
    assert watched.stdout == alone.stdout


def test_the_machines_own_sitecustomize_runs(folder):
    own = folder / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import sys; sys.customized = True")
    (folder / "script.py").write_text(
        "import os, sys, sitecustomize\n"
        "print(sys.customized, sitecustomize.__file__, sys.path, os.environ['PYTHONPATH'])"
    )
    alone, watched = both("script.py", env={**os.environ, "PYTHONPATH": str(own)})
    assert alone.stdout == watched.stdout and "True" in alone.stdout


def test_a_signal_of_the_shell_reaches_the_program_itself(folder):
    (folder / "script.py").write_text(
        "import signal, sys\nsignal.signal(signal.SIGUSR1, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\nsignal.pause()"
    )
    command = [sys.executable, "-m", "memwatch", "run", "-q", "--no-serve", "--watch", "script:a", "script.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == 5


REGRTEST = (
    "test_int test_list test_dict test_bytes test_array test_struct test_string test_heapq test_bisect test_textwrap"
)


@pytest.mark.timeout(600)
def test_the_tests_of_cpython_itself(folder):
    """Ten modules of them, alone and watched: the same results."""
    try:
        import test.regrtest
        import test.test_int  # noqa: F401
    except ImportError:
        pytest.skip("this Python comes without its tests (libpython3-testsuite)")

    def results(done):
        lines = (done.stdout + done.stderr).splitlines()
        return [line for line in lines if "test_" in line or line.startswith("Result")]

    (folder / "tests").mkdir()
    watch = "test.test_int:*,test.test_list:*,json:*"
    alone, watched = both("-m", "test", "--tempdir", "tests", *REGRTEST.split(), watch=watch)
    # What is slow has its time behind it, and stands in the next one's line once more.
    strip = re.compile(r"^\d+:\d+:\d+ | -- test_\w+ passed|( in)?( \d+(\.\d+)? (ms|sec|min)\b)+|load avg: \S+")
    cut = [[strip.sub("", line) for line in results(done)] for done in (alone, watched)]
    assert cut[0] == cut[1]
    assert (alone.returncode, watched.returncode) == (0, 0)


# --- what is watched --------------------------------------------------------------------------------------------------

LATER = "import settings, time\nsettings.change(5)\nsettings.change(6)\n"


def test_rebinding_is_followed(folder):
    done = run(folder, LATER, "--print", "-q", "--watch", "settings:limit", "--watch", "settings:data")
    assert "settings.limit: 10 -> 5  by change (settings.py:9)" in done.stderr
    assert "settings.limit: 5 -> 6  by change (settings.py:9)" in done.stderr
    for line in (r"b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00' -> b'\\x00\\x05", r"by change \(settings.py:12\)"):
        assert re.search(line, done.stderr), done.stderr


def test_all_of_a_module_and_attributes_of_its_objects(folder):
    done = run(folder, LATER, "--print", "-q", "--all", "settings", "--watch", "settings:nested.inner")
    assert "settings.nested.inner: 1 -> 5" in done.stderr
    assert "settings.limit: 10 -> 5" in done.stderr
    assert "settings.change" not in done.stderr


def test_the_script_itself_is_called_by_its_files_name(folder):
    text = "import time\nfor count in range(100):\n    time.sleep(0.02)\n"
    done = run(folder, text, "--print", "-q", "--watch", "script:count")
    assert "script.count: <unbound> -> 0  by <module> (script.py:2)" in done.stderr
    assert "script.count: 98 -> 99  by <module> (script.py:2)" in done.stderr


def test_a_name_that_never_comes_is_told_at_the_end(folder):
    done = run(folder, LATER, "-q", "--watch", "settings:limits")
    assert done.stderr == (
        "memwatch: settings:limits was never found: no module of that name was imported, or it has no such variable\n"
    )


CHILDREN = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import settings; settings.change(7)"], check=True)
"""


@pytest.mark.parametrize("follow", [False, True])
def test_children_are_followed_where_it_is_asked_for(folder, follow):
    options = ["--follow-children"] if follow else []
    done = run(folder, CHILDREN, "--print", "-q", "--watch", "settings:limit*", *options)
    assert ("settings.limit: 10 -> 7" in done.stderr) == follow, done.stderr


DESCENDANT = """
import os, subprocess, sys
sys.path.insert(0, os.getcwd())
if sys.argv[1:]:
    sys.exit(subprocess.run([*sys.argv[1].split(), sys.executable, *sys.argv[2:], "child.py"]).returncode)
import settings
settings.change(7)
print(settings.limit, "memwatch" in sys.modules)
"""


def test_children_of_children_are_followed(folder):
    (folder / "child.py").write_text(DESCENDANT)
    text = "import subprocess, sys\nsubprocess.run([sys.executable, 'child.py', ''], check=True)"
    done = run(folder, text, "--print", "-q", "--follow-children", "--watch", "settings:limit")
    assert done.returncode == 0 and "settings.limit: 10 -> 7" in done.stderr, done.stderr
    assert done.stdout.split()[:2] == ["7", "True"]


@pytest.mark.parametrize("way", [["", "-I"], ["", "-E"], ["", "-S"], ["", "-I", "-S"], ["env -i"]], ids=" ".join)
def test_a_child_that_keeps_the_environment_out_is_as_it_is_alone(folder, way):
    (folder / "child.py").write_text(DESCENDANT)
    text = f"import subprocess, sys\nsys.exit(subprocess.run([sys.executable, 'child.py', *{way!r}]).returncode)"
    done = run(folder, text, "--print", "-q", "--follow-children", "--watch", "settings:limit")
    assert done.returncode == 0 and done.stdout.split()[:2] == ["7", "False"], (done.stdout, done.stderr)
    assert "settings.limit: 10 -> 7" not in done.stderr and "Traceback" not in done.stderr


def test_it_is_served_and_recorded(folder):
    if memwatch._native.missing.keys() & {"exporter", "recorder"}:
        pytest.skip("no exporter or no recorder here")
    text = """
import settings, subprocess, sys
settings.change(5)
print(subprocess.run([sys.executable, "-m", "memwatch", "ps", "mine", "--json"], capture_output=True, text=True).stdout)
"""
    (folder / "script.py").write_text(text)
    arguments = ["--service", "mine", "--port", "0", "--record", "kept.mw", "--watch", "settings:limit"]
    done = shell("-m", "memwatch", "run", *arguments, "script.py")
    assert json.loads(done.stdout)["service"] == "mine"
    assert re.search(r"memwatch: watching in process \d+, http://127.0.0.1:\d+/#", done.stderr)
    kept = shell("-m", "memwatch", "history", "kept.mw").stdout
    assert "settings.limit: 10 -> 5" in kept


# --- what is typed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["script.py"], "nothing to watch"),
        (["--watch", "settings.limit", "script.py"], "did you mean settings:limit?"),
        (["--watch", ":x", "script.py"], "MODULE:VARIABLE"),
        (["--watch", "settings:limit"], "no program"),
        (["--watch", "settings:limit", "--", "--verbose"], "stands where the program should"),
        (["--watch", "settings:limit", "-m"], "needs a module"),
    ],
)
def test_misuse(folder, arguments, sentence):
    done = shell("-m", "memwatch", "run", *arguments)
    assert done.returncode == 2 and sentence in done.stderr, done.stderr


def test_a_program_that_is_not_there(folder):
    done = shell("-m", "memwatch", "run", "--watch", "settings:limit", "nosuch.py")
    assert done.returncode == 1 and "there is no file nosuch.py" in done.stderr


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("[watcher]\nwindow_ms = = 3", 2, "Invalid value"),
        ("[wacher]\n", 1, "there is no 'wacher'"),
        ("\n[watcher]\nwindow = 5", 3, "has no 'window'"),
        ("[watcher]\nbackend = 'uffd'\nwindow_ms = 'soon'", 3, "'soon' is none of ms"),
        ("[watcher]\nhistory_budget = '3 parsecs'", 2, "'3 parsecs' is none of bytes"),
        ("[watcher]\n\nwindow_ms = 0", 3, "from 1 to 10000"),
        ("[exporter]\nport = 'x'", 2, "port"),
        ("[exporter]\nport = 99999", 2, "it is a number from 0 to 65535"),
        ("[exporter]\n\nheartbeat_ms = -5", 3, "not below 0"),
        ("[exporter]\nprot = 1", 2, "has no 'prot'"),
        ("[[variables]]\nvalues = 'full'", 1, "what to watch"),
        ("[[variables]]\nwatch = 'a:b'\n[[variables]]\n\nwatch = 'a.b'", 5, "did you mean a:b?"),
        ("[[variables]]\nwatch = 'a:b'\n# so\nvalues = 'secret'", 4, "values"),
        ("[[variables]]\nwatch = 'a:b'\nwhen = ['outside', 1]", 3, "when"),
        ("[[variables]]\nwatch = 'a:b'\nwen = 'changed'", 3, "has no 'wen'"),
        ("[[variables]]\nwatch = 'a:b'\nmax_rate = -1", 3, "max_rate"),
        ("[variables]\nwatch = 'a:b'", 1, "[[variables]]"),
        ("watcher = 3\n", 1, "is a table"),
        ("x = " + 2000 * "[", 1, "cannot be read"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_line(folder, text, line, sentence):
    (folder / "m.toml").write_text(text)
    done = shell("-m", "memwatch", "run", "--config", "m.toml", "script.py")
    assert done.returncode == 1
    assert done.stderr.startswith(f"memwatch: m.toml:{line}: ") and sentence in done.stderr, done.stderr


def test_policies_and_conditions_of_a_file(folder):
    (folder / "m.toml").write_text(
        "[[variables]]\nwatch = 'settings:*'\nexclude = 'data*'\n"
        "[[variables]]\nwatch = 'settings:limit'\nwhen = ['gt', 5]\n"
        "[[variables]]\nwatch = 'settings:nested'\nvalues = 'none'\n"
    )
    done = run(folder, LATER, "--print", "-q", "--config", "m.toml")
    assert "settings.limit: 5 -> 6" in done.stderr and "settings.limit: 10 -> 5" not in done.stderr
    assert "data" not in done.stderr


def test_the_example_is_understood_and_runs(folder):
    example = ROOT / "examples" / "memwatch.toml"
    found = plan.read(str(example))
    assert [entry["watch"][0][0] for entry in found["variables"]] == ["service_demo", "service_demo", "settings"]
    (folder / "script.py").write_text("import settings; settings.rate = 5\n")
    done = shell("-m", "memwatch", "run", "-q", "--config", example, "--watch", "settings:limit", "--", "script.py")
    assert done.returncode == 0 and "was never found" in done.stderr

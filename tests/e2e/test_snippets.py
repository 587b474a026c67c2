"""Every fenced block of every page is run or checked. PAGES says how; a block that is not in it fails."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Union

import pytest
import yaml  # type: ignore[import-untyped]

import memwatch
from memwatch.__main__ import parser

from .conftest import ROOT, WAIT_S, free_port, get, wait_for

pytestmark = pytest.mark.timeout(3 * WAIT_S)


class Elsewhere(NamedTuple):
    """The block is read from the page, or the command is run, by another test."""

    test: str


class NotRun(NamedTuple):
    """The block cannot be run here."""

    reason: str


Check = Callable[[str, Path], None]
How = Union[Check, Elsewhere, NotRun]

# --- running ----------------------------------------------------------------------------------------------------------

#: What a command of a page needs and a test cannot have. Each notes its arguments; some do a little more.
STAND_INS = {
    "docker": 'case "$1" in exec) shift 2; exec "$@";; esac',
    "curl": """case "$*" in *http://127.0.0.1:*) PATH=/usr/bin:/bin exec curl "$@";; esac
echo '{"syscalls": []}' >default.json""",
}


def environment(folder: Path) -> dict[str, str]:
    """The memwatch of these tests is found as it is after an installation, and finds no watcher but its own."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    python = shlex.quote(sys.executable)
    for name, body in {
        **{name: f'echo "{name} $*" >>"{folder}/asked"\n{body}' for name, body in STAND_INS.items()},
        "memwatch": f'exec {python} -m memwatch "$@"',
        "python": f'exec {python} "$@"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    (folder / "run").mkdir(mode=0o700, exist_ok=True)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "XDG_RUNTIME_DIR": str(folder / "run")}


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def shell(text: str, folder: Path) -> str:
    return run(["bash", "-euc", text], folder)


def python(text: str, folder: Path, before: str = "", after: str = "") -> str:
    program = "\n".join(map(textwrap.dedent, (before, text, after)))
    (folder / "program.py").write_text(program)
    return run([sys.executable, "-W", "error", "program.py"], folder)


def need(*tools: str) -> None:
    for tool in tools:
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")


# --- the command line -------------------------------------------------------------------------------------------------


def parses(text: str, _: Path) -> None:
    """Each command is one that memwatch understands."""
    for line in text.strip().splitlines():
        _program, *words = shlex.split(line.replace("…", "file.ndjson"), comments=True)
        parser().parse_args(words)


def runs_programs(text: str, folder: Path) -> None:
    """`memwatch run` with a script, a module and a server, which is a program beside Python."""
    (folder / "app").mkdir()
    (folder / "app/__init__.py").touch()
    (folder / "app/settings.py").write_text("limit = 10\n")
    (folder / "app/__main__.py").write_text("import app.settings\n")
    (folder / "script.py").write_text("import app.settings\napp.settings.limit = 11\n")
    shutil.copy2(ROOT / "examples/memwatch.toml", folder)
    environment(folder)
    server = folder / "bin/gunicorn"
    server.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, '.')\nimport app.settings\n")
    server.chmod(0o755)
    shell(text, folder)


def asks_docker(text: str, folder: Path) -> None:
    shell(text.replace("memwatch ps", "memwatch --version"), folder)
    assert (folder / "asked").read_text().count("docker ") == text.count("docker "), "each is asked"


def makes_a_seccomp_profile(text: str, folder: Path) -> None:
    need("jq")
    asks_docker(text, folder)
    allowed = json.loads((folder / "memwatch.json").read_text())["syscalls"]
    assert allowed == [{"names": ["userfaultfd", "perf_event_open"], "action": "SCMP_ACT_ALLOW"}]


def starts_the_stack_with_grafana(text: str, folder: Path) -> None:
    need("openssl")
    (folder / "dashboards/prometheus").mkdir(parents=True)
    asks_docker(text, folder)
    assert len((folder / "dashboards/prometheus/memwatch.token").read_text().strip()) >= 32
    file = re.search(r"-f (\S+)", text)
    assert file and (ROOT / file.group(1)).exists()


def names_what_building_needs(text: str, _: Path) -> None:
    """The packages are those that scripts/bootstrap installs for a build, and python3-dev and a compiler."""
    listed = (ROOT / "scripts/bootstrap").read_text()
    for name in shlex.split(text.replace("\\\n", " "))[2:]:
        assert re.search(rf"\b{re.escape(name)}\b", listed), name


# --- Prometheus, YAML, SQL --------------------------------------------------------------------------------------------


def promtool(what: str, document: object, folder: Path) -> None:
    need("promtool")
    (folder / "file.yml").write_text(yaml.safe_dump(document))
    run(["promtool", "check", what, "file.yml"], folder)


def is_a_scrape_config(text: str, folder: Path) -> None:
    for name in re.findall(r"/etc/memwatch/(\w[\w.]*)", text):
        (folder / name).touch()
    promtool("config", yaml.safe_load(text.replace("/etc/memwatch", str(folder))), folder)


def is_a_rule(text: str, folder: Path) -> None:
    promtool("rules", yaml.safe_load(text), folder)
    for page in re.findall(r"#/(\w+)/", text):
        assert f'"{page}"' in read("exporter/page/app.js"), page


def is_promql(text: str, folder: Path) -> None:
    """Prometheus understands each line, and each metric is one of ours."""
    tables = (read("docs/metrics.md") + read("docs/shipping.md")).splitlines()
    known = set(re.findall(r"memwatch_\w+", "".join(line for line in tables if line.startswith("|"))))
    rules: list[dict[str, str]] = []
    for line in text.strip().splitlines():
        expr = line.split("#")[0].strip()
        assert {re.sub(r"_bucket$", "", name) for name in re.findall(r"memwatch_\w+", expr)} <= known
        rules.append({"alert": f"Line{len(rules)}", "expr": expr})
    promtool("rules", {"groups": [{"name": "lines", "rules": rules}]}, folder)


def is_a_collectors_config(text: str, _: Path) -> None:
    """Each component that a pipeline or an exporter names is configured, and each that is configured is used."""
    config = yaml.safe_load(text)
    service = config["service"]
    assert set(service["extensions"]) == set(config["extensions"])
    (pipeline,) = service["pipelines"].values()
    for kind in ("receivers", "processors", "exporters"):
        assert set(pipeline.get(kind, [])) == set(config.get(kind, {})), kind
    for exporter in config["exporters"].values():
        assert exporter["sending_queue"]["storage"] in config["extensions"]


def asks_shipped_events(text: str, _: Path) -> None:
    """ClickHouse's access to a map is SQLite's to an object; the attributes are those of a record that is shipped."""
    from memwatch._ship.otlp_json import log_record
    from memwatch._ship.record import Origin, Record

    with memwatch.MemoryWatcher() as watcher:
        data = memwatch.buffer(4)
        watcher.watch(data, name="data")
        data[0] = 1
        assert watcher.flush()
        (event,) = watcher.events(since=0, timeout=0)
    record = Record("7157fb2a90de19d7-1", "change", 1, event.to_dict())
    sent = log_record(Origin("7157fb2a90de19d7", "shop", "", 1), record, 1)
    attributes = {each["key"]: next(iter(each["value"].values())) for each in sent["attributes"]}

    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE otel_logs (EventName, LogAttributes)")
    database.executemany("INSERT INTO otel_logs VALUES (?, ?)", 2 * [(sent["eventName"], json.dumps(attributes))])
    asked = re.sub(r"LogAttributes\['([\w.]+)'\]", r"""json_extract(LogAttributes, '$."\1"')""", text)
    assert database.execute(asked).fetchall() == [("data", 1)], "sent twice, and counted once"
    database.close()


# --- documents of the feeds -------------------------------------------------------------------------------------------


def is_an_event(text: str, _: Path) -> None:
    """It has the members of a real event of such a variable, in the same order."""
    numpy = pytest.importorskip("numpy")
    with memwatch.MemoryWatcher() as watcher:
        weights = memwatch.empty((3, 4), "d")
        weights[...] = 0.5
        watcher.watch(weights, name="weights")
        weights[1, 1] = numpy.nan
        assert watcher.flush()
        (event,) = watcher.events(since=0, timeout=0)
    said, real = json.loads(text), event.to_dict()
    assert list(said) == list(real)
    assert list(said["where"]) == list(real["where"])
    for name in ("schema", "name", "kind", "size", "format", "shape", "elements", "values"):
        assert said[name] == real[name], name


def is_a_stream(text: str, _: Path) -> None:
    schema = re.search(r"## An event \(schema (\d+)\)", read("docs/http.md"))
    assert schema
    kinds = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            kinds.append(fields["event"])
            said = json.loads(fields["data"].replace(",…", ""))
            if fields["event"] == "change":
                assert said["schema"] == int(schema.group(1))
            else:
                assert said["kind"] == "gap" and said["missed"] == said["to"] - said["from"] + 1
    assert kinds == ["change", "gap"]


# --- Python -----------------------------------------------------------------------------------------------------------

WATCHED = """
    import memwatch
    watcher = memwatch.MemoryWatcher()
    x = memwatch.buffer(8)
    watcher.watch(x, "x")
    x[0] = 1
    watcher.flush()
    (event,) = watcher.events(since=0, timeout=0)
"""


def follows_a_fork(text: str, folder: Path) -> None:
    assert python("import memwatch\n" + text, folder, after='print(watcher.get_stats()["forks_unwatched"])') == "0\n"


def registers_with_prometheus_client(text: str, folder: Path) -> None:
    pytest.importorskip("prometheus_client")
    after = 'import prometheus_client\nprint("memwatch_up 1.0" in prometheus_client.generate_latest().decode())'
    assert python(text, folder, WATCHED, after) == "True\n"


def mounts(text: str, folder: Path) -> None:
    """Two applications under one name: FastAPI's `mount`, and the member that Flask's has."""
    pytest.importorskip("fastapi")
    pytest.importorskip("werkzeug")
    before = (
        WATCHED
        + """
    from fastapi import FastAPI
    from werkzeug.middleware.dispatcher import DispatcherMiddleware
    from werkzeug.wrappers import Response
    app = FastAPI()
    app.wsgi_app = Response("shop")
"""
    )
    after = """
    from werkzeug.test import Client
    print([route.path for route in app.routes if "memwatch" in route.path],
          Client(app.wsgi_app).get("/memwatch/-/healthy").status_code, Client(app.wsgi_app).get("/").text)
    """
    assert python(text, folder, before, after) == "['/memwatch'] 200 shop\n"


def handles_events(text: str, folder: Path) -> None:
    python(text, folder, WATCHED + "    import pickle\n")


def runs_in_a_notebook(text: str, folder: Path) -> None:
    """Paragraphs are cells; what they print is the block behind."""
    pytest.importorskip("IPython")
    page = read("docs/integrations.md")
    told = page[page.index(text) :].split("```text\n", 1)[1].split("```", 1)[0]
    program = f"""
        from IPython.core.interactiveshell import InteractiveShell
        import numpy
        shell = InteractiveShell.instance()
        shell.push({{"weights": numpy.full((4, 20), 0.5), "bias": numpy.zeros(4)}})
        for cell in {text.strip()!r}.split("\\n\\n"):
            shell.run_cell(cell, store_history=True)
    """
    (folder / "program.py").write_text(textwrap.dedent(program))
    assert run([sys.executable, "-W", "ignore", "program.py"], folder) == told


def is_a_test(text: str, folder: Path) -> None:
    (folder / "shop").mkdir()
    (folder / "shop/__init__.py").touch()
    (folder / "shop/settings.py").write_text('LIMITS = {"rate": 100}\n')
    (folder / "test_shop.py").write_text("import pytest\n" + text)
    alone = ["env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", sys.executable, "-m", "pytest"]  # others take long to load
    plugins = ["-p", "no:cacheprovider", "-p", "memwatch.integrations.pytest_plugin"]
    command = [*alone, *plugins, "--memwatch", "test_shop.py"]
    assert "1 passed" in run(command, folder)
    spoilt = text.replace("...", 'from shop import settings; settings.LIMITS["rate"] = 0')
    (folder / "test_shop.py").write_text("import pytest\n" + spoilt)
    with pytest.raises(AssertionError, match=r"shop\.settings\.LIMITS"):
        run(command, folder)


def names_the_line_in_gunicorn(text: str, folder: Path) -> None:
    """The tutorial's service, hook, application and command; then what it asks."""
    if not (Path(sys.executable).parent / "gunicorn").exists():
        pytest.skip("gunicorn is not installed for this Python")
    need("curl")
    blocks = texts("docs/tutorial.md")
    for name, sign in {
        "shop.py": "class Config",
        "gunicorn.conf.py": "def post_worker_init",
        "app.py": "def app(",
    }.items():
        (folder / name).write_text(next(block for block in blocks if sign in block))
    command = next(block for block in blocks if block.startswith("gunicorn"))
    address = f"127.0.0.1:{free_port()}"
    server = subprocess.Popen(
        [sys.executable, "-m", *shlex.split(command.replace("127.0.0.1:8000", address))],
        cwd=folder,
        env=environment(folder),
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: get(f"http://{address}/"), "gunicorn's answer")
        said = shell(text.replace("127.0.0.1:8000", address), folder)
    finally:
        server.terminate()
        server.wait(WAIT_S)
    assert re.search(r"shop/\d\[\d+\]  config\.rate: 100 -> 0  by tidy_up \(shop\.py:19\)", said), said


RECORDS = """
    import memwatch, numpy
    weights = numpy.zeros(32)
"""
CHANGES = """
    weights[17] = 1.5
    watcher.close()
"""
PANDAS = """
    def read_sql(question, connection):
        assert connection.execute(question).fetchall()
"""


def record(folder: Path) -> None:
    pytest.importorskip("numpy")
    python(text_of("docs/recording.md", 0), folder, RECORDS, CHANGES)


def records(text: str, folder: Path) -> None:
    record(folder)
    assert (folder / "service.memwatch").stat().st_size > 0


def reads_a_recording_in_the_shell(text: str, folder: Path) -> None:
    need("sqlite3")
    record(folder)
    written = subprocess.run(["date", "+%FT%T", "--date", "1 second"], capture_output=True, text=True, check=True)
    said = shell(text.replace("2026-11-22T22:00:00", written.stdout.strip()), folder)
    assert "weights" in said


def reads_a_recording(text: str, folder: Path) -> None:
    """pandas is a large thing to install for one line."""
    record(folder)
    (folder / "pandas.py").write_text(textwrap.dedent(PANDAS))
    now = text.replace("seq=1041", "seq=1").replace("time=1795384800", "time=time.time() + 60")
    assert now.count("time.time()") == 2
    python(now, folder, "import memwatch, pandas, sqlite3, time")


# --- the pages --------------------------------------------------------------------------------------------------------

SERVICES = Elsewhere("tests/services/test_recipes.py::test_every_snippet_is_run")
TUTORIAL = Elsewhere("tests/e2e/test_docs.py::test_the_tutorial_finds_the_line")
QUESTIONS = Elsewhere("tests/recorder/test_sqlite.py::test_each_query_of_the_documentation_answers")
A_DRAWING = NotRun("a drawing")

PAGES: dict[str, list[How]] = {
    "README.md": [
        Elsewhere("tests/e2e/test_quick_reference.py::test_make_demo"),
        Elsewhere("tests/e2e/test_readme.py::test_python_quick_start"),
        Elsewhere("tests/e2e/test_readme.py::test_c_quick_start"),
        Elsewhere("tests/e2e/test_readme.py::test_c_quick_start"),
    ],
    "CONTRIBUTING.md": [NotRun("it is how these tests are run; test_docs.py sees that the targets exist")],
    "CHANGELOG.md": [],
    "dashboards/README.md": [
        Elsewhere("tests/dashboards/test_stack.py::test_it_comes_up_says_where_to_look_and_leaves_nothing"),
        starts_the_stack_with_grafana,
        Elsewhere("tests/dashboards/test_boards.py::test_build_check_says_so"),
    ],
    "python/memwatch/architecture.md": [
        A_DRAWING,
        Elsewhere("tests/python/test_load.py::test_convergence_of_four_writers"),
    ],
    "docs/README.md": [],
    "docs/c.md": [
        Elsewhere("tests/e2e/test_c_users.py::test_no_python_is_asked_and_nothing_is_left"),
        Elsewhere("tests/e2e/test_c_users.py::test_a_filter_with_the_list_of_the_docs_kills_nobody"),
    ],
    "docs/command-line.md": [runs_programs, parses],
    "docs/comparison.md": [],
    "docs/exact.md": [],
    "docs/http.md": [is_a_scrape_config, is_an_event, is_a_stream],
    "docs/installing.md": [names_what_building_needs],
    "docs/integrations.md": [
        registers_with_prometheus_client,
        mounts,
        handles_events,
        runs_in_a_notebook,
        Elsewhere("tests/e2e/test_snippets.py::runs_in_a_notebook"),
        is_a_test,
    ],
    "docs/limits.md": [],
    "docs/metrics.md": [is_promql],
    "docs/new-python.md": [],
    "docs/performance.md": [],
    "docs/recording.md": [records, reads_a_recording_in_the_shell, reads_a_recording, *[QUESTIONS] * 10],
    "docs/reference.md": [],
    "docs/seccomp.md": [
        Elsewhere("tests/python/test_doctor.py::test_the_profile_in_the_docs_is_the_one_that_is_printed"),
        makes_a_seccomp_profile,
    ],
    "docs/security.md": [],
    "docs/services.md": [parses, follows_a_fork, *[SERVICES] * 16, asks_docker, *[SERVICES] * 4],
    "docs/shipping.md": [
        parses,
        is_a_collectors_config,
        asks_shipped_events,
        NotRun("it needs a NATS server's own client; tests/ship/test_nats.py makes the same stream over the wire"),
        is_promql,
    ],
    "docs/troubleshooting.md": [Elsewhere("tests/e2e/test_docs.py::test_troubleshooting_runs")],
    "docs/tutorial.md": [
        *[TUTORIAL] * 6,
        is_a_scrape_config,
        is_a_rule,
        *[Elsewhere("tests/e2e/test_docs.py::test_the_tutorial_in_a_worker")] * 3,
        names_the_line_in_gunicorn,
    ],
}


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def texts(page: str) -> list[str]:
    """The fenced blocks of a page."""
    return re.findall(r"^```\w*\n(.*?)^```$", read(page), re.DOTALL | re.MULTILINE)


def text_of(page: str, place: int) -> str:
    return texts(page)[place]


BLOCKS = [(page, place, how) for page, hows in PAGES.items() for place, how in enumerate(hows)]
CHECKED = [(page, place, how) for page, place, how in BLOCKS if callable(how)]


def test_every_page_is_here() -> None:
    written = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not written:
        pytest.skip("this is no clone")
    assert set(written.split()) == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_here(page: str) -> None:
    assert len(texts(page)) == len(PAGES[page]), [text.splitlines()[0] for text in texts(page)]
    outside = re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"^(?:    |\t)", outside, re.MULTILINE), "a block without a fence is not seen"


@pytest.mark.parametrize(("page", "place", "how"), CHECKED, ids=[f"{page}-{how.__name__}" for page, _, how in CHECKED])
def test_a_block_does_what_it_says(page: str, place: int, how: Check, tmp_path: Path) -> None:
    how(text_of(page, place), tmp_path)


@pytest.mark.parametrize("test", sorted({how.test for _, _, how in BLOCKS if isinstance(how, Elsewhere)}))
def test_the_other_test_exists(test: str) -> None:
    file, name = test.split("::")
    assert re.search(rf"^def {name}\(", read(file), re.MULTILINE)

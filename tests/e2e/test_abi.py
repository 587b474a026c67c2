"""A program and a library of different ages: structures that grew, symbol versions, and what libabigail says."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .conftest import ROOT, WAIT_S

pytestmark = pytest.mark.timeout(20 * WAIT_S)  # the whole library is compiled

HEADERS = sorted(ROOT.glob("*/include/memwatch/*.h"))
#: The structures that travel with their size.
GROWING = {
    "options", "region_options", "region_info", "region_sample", "summary", "event", "cursor", "post", "blame", "stats",
    "backend_info", "sink_info", "exporter_options", "recorder_options", "recorder_stats",
}  # fmt: skip

COMPILED = ["-shared", "-fPIC", "-g", "-std=gnu11", "-D_GNU_SOURCE=", "-fvisibility=hidden", "-pthread"]

#: Uses every function whose structures grow. Each structure stands between guards.
PROGRAM = r"""
#include <memwatch/exporter.h>
#include <memwatch/reader.h>
#include <memwatch/recorder.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			printf("line %d: %s (%s)\n", __LINE__, #condition, memwatch_error()); \
			exit(1); \
		} \
	} while (0)
enum { GUARD = 512, BYTE = 0xA5 };
#define GUARDED(type, name) \
	struct { unsigned char before[GUARD]; struct type it; unsigned char after[GUARD]; } name; \
	memset(&name, BYTE, sizeof name)
static int intact(const void *guarded, size_t size)
{
	const unsigned char *bytes = (const unsigned char *)guarded;
	for (size_t i = 0; i < GUARD; i++)
		if (bytes[i] != BYTE || bytes[size - 1 - i] != BYTE)
			return 0;
	return 1;
}
#define INTACT(name) CHECK(intact(&name, sizeof name))
#ifdef GROWN
#define GREW(s) do { for (int g = 0; g < 8; g++) CHECK((s).grown[g] == 0); } while (0)
#else
#define GREW(s) (void)0
#endif

static int value[4];
static unsigned n_called;
static void on_event(const struct memwatch_event *event, void *arg)
{
	(void)arg;
	CHECK(event->struct_bytes >= 200 && MEMWATCH_HAS(event, where));
	CHECK(strcmp(event->name, "value") == 0 && event->changed_bytes >= 1);
	CHECK(event->where.page_writer == NULL || *event->where.page_writer->symbol >= 0);
#ifdef GROWN
	CHECK(MEMWATCH_HAS(event, grown) == LIBRARY_GREW);
#endif
	n_called++;
}

int main(void)
{
	GUARDED(memwatch_options, options);
	GUARDED(memwatch_region_options, region);
	GUARDED(memwatch_region_info, info);
	GUARDED(memwatch_region_sample, sample);
	GUARDED(memwatch_summary, summary);
	GUARDED(memwatch_cursor, cursor);
	GUARDED(memwatch_blame, blame);
	GUARDED(memwatch_stats, stats);
	GUARDED(memwatch_backend_info, backend);
	GUARDED(memwatch_sink_info, sink);
	GUARDED(memwatch_exporter_options, exporter_options);
	GUARDED(memwatch_recorder_options, recorder_options);
	GUARDED(memwatch_recorder_stats, recorder_stats);
	const struct memwatch_event *event;
	struct memwatch_post post;
	memwatch_recorder *recorder;
	memwatch_exporter *exporter;
	uint64_t id, posted, at = 0;
	memwatch *watcher;

	memwatch_options_init(&options.it);
	INTACT(options);
	GREW(options.it);
	CHECK(options.it.window_ms == 5);
	options.it.patches = 1;
#ifdef GROWN
	options.it.grown[7] = 1; /* a library that knows it takes it, another refuses */
	CHECK(memwatch_open(&options.it, &watcher) == (LIBRARY_GREW ? 0 : -EINVAL));
	CHECK(LIBRARY_GREW || strstr(memwatch_error(), "does not know"));
	if (LIBRARY_GREW)
		memwatch_close(watcher);
	options.it.grown[7] = 0;
#endif
	CHECK(memwatch_open(&options.it, &watcher) == 0);
	memwatch_region_options_init(&region.it);
	INTACT(region);
	region.it.name = "value";
	region.it.format = "i";
	region.it.item_bytes = sizeof *value;
	CHECK(memwatch_region_add(watcher, value, sizeof value, &region.it, &id) == 0);

	memwatch_recorder_options_init(&recorder_options.it);
	INTACT(recorder_options);
	recorder_options.it.path = "abi.memwatch";
	CHECK(memwatch_recorder_open(watcher, &recorder_options.it, &recorder) == 0);
	memwatch_exporter_options_init(&exporter_options.it);
	INTACT(exporter_options);
	exporter_options.it.port = 0;
	exporter_options.it.runtime_dir = "";
	CHECK(memwatch_exporter_open(watcher, &exporter_options.it, &exporter) == 0);
	CHECK(memwatch_exporter_port(exporter) != 0);

	CHECK(memwatch_callback_set(watcher, on_event, NULL) == 0);
	value[2] = 7;
	CHECK(memwatch_flush(watcher, 10000) == 0);

	CHECK(memwatch_region_info_get(watcher, id, &info.it) == 0);
	INTACT(info);
	GREW(info.it);
	CHECK(info.it.id == id && info.it.size_bytes == sizeof value && info.it.number == MEMWATCH_NUMBER_NONE);
	memset(&info, BYTE, sizeof info);
	CHECK(memwatch_region_list(watcher, &at, &info.it, 1) == 1);
	INTACT(info);
	CHECK(strcmp(info.it.name, "value") == 0);
	at = 0;
	CHECK(memwatch_region_sample_list(watcher, &at, &sample.it, 1) == 1 && sample.it.id == id);
	INTACT(sample);
	CHECK(memwatch_region_summary(watcher, id, &summary.it) == 0 && summary.it.max == 7);
	INTACT(summary);
	GREW(summary.it);
	CHECK(memwatch_events_read(watcher, 0, &event, 1, &cursor.it) == 1 && cursor.it.newest == 1);
	INTACT(cursor);
	memwatch_event_unref(event);
	CHECK(memwatch_blame(watcher, id, 8, 4, &blame.it, 1) == 1 && blame.it.offset == 8 && blame.it.event->seq == 1);
	memwatch_event_unref(blame.it.event);
	INTACT(blame);
	CHECK(memwatch_stats_get(watcher, &stats.it) == 0);
	INTACT(stats);
	GREW(stats.it);
	CHECK(stats.it.n_regions == 1 && stats.it.ledger.delivered == 1 && stats.it.stack_depth == 1);
	CHECK(memwatch_backend_list(watcher, &backend.it, 1) >= 1 && *backend.it.name);
	INTACT(backend);
	CHECK(memwatch_sink_list(watcher, &sink.it, 1) >= 1);
	INTACT(sink);
	CHECK(memwatch_recorder_flush(recorder, 10000) == 0);
	CHECK(memwatch_recorder_stats_get(recorder, &recorder_stats.it) == 0 && recorder_stats.it.events_written == 1);
	INTACT(recorder_stats);

	memwatch_region_options_init(&region.it);
	region.it.flags = MEMWATCH_REGION_EXTERNAL;
	CHECK(memwatch_region_add(watcher, NULL, 0, &region.it, &posted) == 0);
	CHECK(memwatch_callback_set(watcher, NULL, NULL) == 0);
	memset(&post, 0, sizeof post);
	post.struct_bytes = sizeof post;
	CHECK(memwatch_event_post(watcher, posted, &post, NULL) == 0);

	memwatch_exporter_close(exporter);
	memwatch_recorder_close(recorder);
	memwatch_close(watcher);
	CHECK(n_called == 1);
	puts("well");
	return 0;
}
"""


def run(*command: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=10 * WAIT_S, check=False
    )


def made(*command: str) -> None:
    done = run(*command)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def structure(name: str, text: str) -> re.Match[str] | None:
    return re.search(r"^struct memwatch_" + name + r" \{\n(.*?)^\};", text, re.MULTILINE | re.DOTALL)


def code_of(path: Path) -> str:
    return re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns headers and libraries of a later release: every structure that may grow has eight members more."""
    directory = tmp_path_factory.mktemp("grown")
    found = set()
    for header in HEADERS:
        text = header.read_text()
        for name in GROWING:
            match = structure(name, text)
            if match:
                found.add(name)
                text = text[: match.end(1)] + "\tuint64_t grown[8];\n" + text[match.end(1) :]
        target = directory / "include" / "memwatch" / header.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    assert found == GROWING
    for part, needs in (
        ("native", ["-ldw", "-lelf"]),
        ("exporter", ["-lmemwatch", "-lmicrohttpd", "-lcjson"]),
        ("recorder", ["-lmemwatch", "-lsqlite3"]),
    ):
        name = "memwatch" if part == "native" else f"memwatch_{part}"
        sources = sorted(str(path) for path in (ROOT / part / "src").rglob("*.c"))
        where = [f"-I{directory}/include", f"-I{ROOT}/{part}/src", f"-I{ROOT}/build", f"-L{directory}"]
        link = [f"-Wl,-soname,lib{name}.so.0", f"-Wl,--version-script={ROOT}/{part}/lib{name}.map"]
        made("gcc", *COMPILED, *where, *link, "-o", f"{directory}/lib{name}.so", *sources, *needs)
        os.link(directory / f"lib{name}.so", directory / f"lib{name}.so.0")
    return directory


@pytest.fixture(scope="module")
def program(grown: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    directory = tmp_path_factory.mktemp("programs")
    (directory / "program.c").write_text(PROGRAM)

    def build(name: str, *flags: str, compiler: str = "gcc") -> Path:
        libraries = ["-lmemwatch_exporter", "-lmemwatch_recorder", "-lmemwatch"]
        target = directory / name
        made(compiler, "-g", "-o", str(target), *flags, str(directory / "program.c"), f"-L{ROOT}/build", *libraries)
        return target

    return build


OLD = [f"-I{part}/include" for part in ("native", "exporter", "recorder")]


@pytest.mark.parametrize("library", ["same", "grown"])
def test_a_program_of_this_release_runs_with_a_library_whose_structures_grew(
    grown: Path, program: Callable[..., Path], tmp_path: Path, library: str
) -> None:
    built = program(f"old_{library}", *OLD)
    done = run(str(built), cwd=tmp_path, LD_LIBRARY_PATH=str(grown if library == "grown" else ROOT / "build"))
    assert (done.stdout, done.returncode) == ("well\n", 0), done.stderr


@pytest.mark.parametrize("library", ["same", "older"])
def test_a_program_of_a_later_release_runs_with_this_library(
    grown: Path, program: Callable[..., Path], tmp_path: Path, library: str
) -> None:
    """Unless it sets what this library does not know."""
    grew = int(library == "same")
    built = program(f"new_{library}", f"-I{grown}/include", "-DGROWN", f"-DLIBRARY_GREW={grew}")
    done = run(str(built), cwd=tmp_path, LD_LIBRARY_PATH=str(grown if grew else ROOT / "build"))
    assert (done.stdout, done.returncode) == ("well\n", 0), done.stderr


def test_no_structure_ends_in_padding(tmp_path: Path) -> None:
    """A member that comes would take the place of padding, which a program of today does not set."""
    checks = []
    for header in HEADERS:
        text = code_of(header)
        for name in GROWING | {"where", "sink_status"}:
            match = structure(name, text)
            if match:
                last = re.findall(r"(\w+)(?:\[[^\]]*\])?;\s*$", match.group(1))[-1]
                whole = f"struct memwatch_{name}"
                end = f"offsetof({whole}, {last}) + sizeof((({whole} *)0)->{last})"
                checks.append(f'_Static_assert({end} == sizeof({whole}), "{name}");')
    source = tmp_path / "padding.c"
    names = [f"#include <memwatch/{name}.h>" for name in ("exporter", "reader", "recorder")]
    source.write_text("\n".join([*names, *checks, ""]))
    assert len(checks) == len(GROWING) + 2
    made("gcc", "-fsyntax-only", *OLD, str(source))


def test_no_structure_has_an_array_as_long_as_an_enum() -> None:
    """An enum gets more values, and a program of today has no room for them."""
    text = "".join(code_of(header) for header in HEADERS)
    ends = {re.findall(r"\w+", body)[-1] for body in re.findall(r"enum memwatch_\w+ \{(.*?)\}", text, re.DOTALL)}
    assert {"MEMWATCH_REASONS", "MEMWATCH_DROPS"} <= ends
    assert [name for name in ends if re.search(r"\[[^\]]*\b" + name + r"\b", text)] == []


@pytest.mark.parametrize("name", ["memwatch", "memwatch_exporter", "memwatch_recorder"])
def test_every_function_has_a_version(name: str) -> None:
    shown = run("nm", "-D", "--defined-only", f"build/lib{name}.so").stdout.split("\n")
    functions = [line.split()[-1] for line in shown if " T " in line]
    assert functions
    assert {line.partition("@@")[2] for line in functions} == {f"{name.upper()}_0.1"}


def kept_by(description: Path) -> set[str]:
    """Returns what must hold of the headers, in C: each member and each enumerator of that release where it was."""
    held = set()
    for element in ElementTree.parse(description).iter():
        name = element.get("name", "").removeprefix("memwatch_")
        if name == element.get("name") or element.get("is-declaration-only"):
            continue
        if element.tag == "enum-decl":
            held |= {f"{each.get('name')} == {each.get('value')}" for each in element.iter("enumerator")}
        if element.tag != "class-decl":
            continue
        whole = f"struct memwatch_{name}"
        if name not in GROWING:
            held.add(f"sizeof({whole}) == {int(element.get('size-in-bits', 0)) // 8}")
        for member in element.iter("data-member"):
            variable = member.find("var-decl")
            bits = member.get("layout-offset-in-bits")
            if variable is not None and bits is not None and variable.get("name") != "reserved":  # it gives way
                held.add(f"offsetof({whole}, {variable.get('name')}) == {int(bits) // 8}")
    ends = ("MEMWATCH_REASONS ", "MEMWATCH_DROPS ")
    return {each for each in held if not each.startswith(ends)}


def with_more(name: str, text: str, member: str) -> str:
    match = structure(name, text)
    assert match
    return text[: match.end(1)] + f"\t{member};\n" + text[match.end(1) :]


@pytest.mark.parametrize("change", ["none", "moved"])
def test_every_member_is_where_it_was_in_the_last_release(tmp_path: Path, change: str) -> None:
    held = set().union(*(kept_by(path) for path in sorted((ROOT / "tests/abi").glob("*.abi"))))
    assert len(held) > 200
    for header in HEADERS:
        shutil.copy(header, tmp_path)
    if change == "moved":
        types = tmp_path / "types.h"
        types.write_text(with_more("ledger", types.read_text(), "uint64_t more"))
    source = tmp_path / "offsets.c"
    names = [f"#include <memwatch/{name}.h>" for name in ("exporter", "reader", "recorder")]
    source.write_text("\n".join([*names, *(f'_Static_assert({each}, "moved");' for each in sorted(held)), ""]))
    os.symlink(tmp_path, tmp_path / "memwatch")
    done = run("gcc", "-fsyntax-only", f"-I{tmp_path}", str(source))
    assert ("offsetof(struct memwatch_stats, dropped_by)" in done.stderr) == (change == "moved"), done.stderr
    assert (done.returncode == 0) == (change == "none"), done.stderr


def test_libabigail_finds_nothing_that_breaks_programs_of_the_last_release() -> None:
    done = run("scripts/abi", "check", "build")
    if "skipped" in done.stdout:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr


def library_of(include: Path, target: Path) -> None:
    sources = sorted(str(path) for path in (ROOT / "native/src").rglob("*.c"))
    link = ["-Wl,-soname,libmemwatch.so.0", f"-Wl,--version-script={ROOT}/native/libmemwatch.map", "-ldw", "-lelf"]
    made("gcc", *COMPILED, f"-I{include}", f"-I{ROOT}/native/src", "-o", str(target), *sources, *link)


@pytest.mark.skipif(not shutil.which("abidiff"), reason="abidiff is missing (Debian: abigail-tools)")
@pytest.mark.parametrize("change", ["grown", "moved"])
def test_libabigail_tells_growth_from_harm(grown: Path, tmp_path: Path, change: str) -> None:
    """A structure that grew at its end is none; one that never changes must not."""
    libraries = grown
    if change == "moved":
        libraries = tmp_path
        shutil.copytree(ROOT / "native/include/memwatch", tmp_path / "include/memwatch")
        types = tmp_path / "include/memwatch/types.h"
        types.write_text(with_more("scalar", types.read_text(), "uint64_t more"))
        library_of(tmp_path / "include", tmp_path / "libmemwatch.so")
        for name in ("memwatch_exporter", "memwatch_recorder"):
            os.symlink(ROOT / "build" / f"lib{name}.so", tmp_path / f"lib{name}.so")
    done = run("scripts/abi", "check", str(libraries))
    assert done.returncode == (change == "moved"), done.stdout + done.stderr

"""`make install-c` is all that a C program needs: the README's program, built in the ways in which C is built.

With MEMWATCH_INSTALLED, of what stands below that prefix already, and with all tools there: nothing is skipped then.
"""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT, WAIT_S
from .test_readme import block

pytestmark = pytest.mark.timeout(10 * WAIT_S)  # the first test waits for compilers

INSTALLED = os.environ.get("MEMWATCH_INSTALLED")
TOLD = "config changed, written by main\n"
CMAKE = """
cmake_minimum_required(VERSION 3.13)
project(program C)
find_package(memwatch 0.1 REQUIRED COMPONENTS exporter recorder)
add_executable(program program.c)
target_link_libraries(program memwatch::exporter memwatch::recorder memwatch::memwatch)
set_target_properties(program PROPERTIES ENABLE_EXPORTS ON)
add_executable(archives program.c)
target_link_libraries(archives memwatch::exporter_static memwatch::recorder_static)
set_target_properties(archives PROPERTIES ENABLE_EXPORTS ON)
"""

MESON = """
project('program', 'c')
needed = [dependency('memwatch', version: '>=0.1'), dependency('memwatch_exporter'), dependency('memwatch_recorder')]
executable('program', 'program.c', dependencies: needed, export_dynamic: true)
"""


PLUGIN = """
#include <memwatch/memwatch.h>
static int value;
int use(int n)
{
	memwatch *watcher;
	struct memwatch_stats stats;
	if (memwatch_open(NULL, &watcher) || memwatch_region_add(watcher, &value, sizeof value, NULL, NULL))
		return -1;
	value = n;
	if (memwatch_flush(watcher, 10000) || memwatch_stats_get(watcher, &stats))
		return -2;
	memwatch_close(watcher);
	return (int)stats.events_newest;
}
"""

HOST = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static void *end(void *arg) { return arg; }
int main(void)
{
	for (int i = 1; i < 4; i++) {
		void *plugin = dlopen("./plugin.so", RTLD_NOW | RTLD_LOCAL);
		int (*use)(int) = plugin ? (int (*)(int))dlsym(plugin, "use") : NULL;
		if (!use || use(i) != 1 || dlclose(plugin))
			return 1;
	}
	pthread_t thread;
	if (pthread_create(&thread, NULL, end, NULL) || pthread_join(thread, NULL))
		return 2;
	pid_t child = fork();
	if (child == 0)
		_exit(raise(SIGTRAP));
	int status;
	waitpid(child, &status, 0);
	return printf("%d\\n", WIFSIGNALED(status) ? WTERMSIG(status) : -1) < 0;
}
"""


FILTERED = """
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <memwatch/memwatch.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static const int allowed[] = { ALLOWED };
enum { N = sizeof allowed / sizeof *allowed };
static char area[1 << 20];
static int filter(void)
{
	struct sock_filter code[2 * N + 2] = { BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)) };
	unsigned short k = 1;
	for (int i = 0; i < N; i++) {
		code[k++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i], 0, 1);
		code[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	code[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	struct sock_fprog program = { k, code };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
}
static void *write_all(void *arg)
{
	for (int i = 0; i < 200; i++, nanosleep(&(struct timespec){ 0, 5000000 }, NULL))
		area[i % 7 * 50000]++;
	return arg;
}
int main(int argc, char **argv)
{
	struct memwatch_options options;
	memwatch *watcher;
	pthread_t threads[3];
	uint64_t id;
	memwatch_options_init(&options);
	options.backend = argv[argc - 1];
	if (memwatch_open(&options, &watcher) || memwatch_region_add(watcher, area, 1000, NULL, NULL) || filter())
		return 1;
	if (memwatch_region_add(watcher, area + 4096, sizeof area - 4096, NULL, &id))
		return 2;
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, write_all, NULL);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	if (memwatch_flush(watcher, 60000) || memwatch_region_remove(watcher, id) || memwatch_close(watcher))
		return 3;
	return write(1, "lives\\n", 6) != 6;
}
"""


def attempt(*command: object, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**clean, **env},
        capture_output=True,
        text=True,
        timeout=5 * WAIT_S,
        check=False,
    )


def run(*command: object, cwd: Path = ROOT, **env: str) -> str:
    done = attempt(*command, cwd=cwd, **env)
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def lack(why: str) -> None:
    (pytest.fail if INSTALLED else pytest.skip)(why)


def need(*tools: str) -> None:
    for tool in tools:
        if not shutil.which(tool):
            lack(f"{tool} is not installed")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The libraries, installed where the loader does not look."""
    if INSTALLED:
        return Path(INSTALLED)
    directory = tmp_path_factory.mktemp("c") / "memwatch"
    run("make", "install-c", f"PREFIX={directory}")
    return directory


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    program = block("c", "int main")
    for name in ("program.c", "program.cpp"):
        (tmp_path / name).write_text(program)
    (tmp_path / "CMakeLists.txt").write_text(CMAKE)
    (tmp_path / "meson.build").write_text(MESON)
    return tmp_path


def flags(prefix: Path, *options: str) -> list[str]:
    return run(
        "pkg-config", *options, "--cflags", "--libs", "memwatch", PKG_CONFIG_PATH=f"{prefix}/lib/pkgconfig"
    ).split()


@pytest.mark.parametrize(
    "compiler",
    [
        ["gcc", "-std=c11", "-pedantic-errors", "program.c"],
        ["clang", "program.c"],
        ["g++", "-std=c++17", "-pedantic-errors", "program.cpp"],
        ["clang++", "-std=c++17", "program.cpp"],
    ],
    ids=" ".join,
)
def test_compilers(prefix: Path, sources: Path, compiler: list[str]) -> None:
    need(compiler[0])
    run(*compiler, "-Wall", "-Wextra", "-Werror", "-rdynamic", "-o", "program", *flags(prefix), cwd=sources)
    assert run(sources / "program") == TOLD


def test_static(prefix: Path, sources: Path) -> None:
    (sources / "theirs.c").write_text(
        "#include <elfutils/libdw.h>\nint main(void) { return dwarf_begin(-1, DWARF_C_READ) != NULL; }\n"
    )
    static = flags(prefix, "--static")
    theirs = [flag for flag in static if flag != "-lmemwatch"]
    without_ours = attempt("gcc", "-static", "theirs.c", *theirs, cwd=sources)
    if "eu_search_tree_init" in without_ours.stderr:
        pytest.skip("this libdw.a lacks functions of its own: elfutils 0.192, as Debian 13 has it")
    if without_ours.returncode:
        lack("no static libdw, or what it needs, is installed")
    run("gcc", "-static", "-o", "program", "program.c", *static, cwd=sources)
    assert run(sources / "program") == TOLD


def test_cmake(prefix: Path, sources: Path) -> None:
    need("cmake")
    run("cmake", "-S", ".", "-B", "made", f"-DCMAKE_PREFIX_PATH={prefix}", cwd=sources)
    run("cmake", "--build", "made", cwd=sources)
    for program in ("program", "archives"):
        assert run(sources / "made" / program) == TOLD
    assert "libmemwatch" not in run("readelf", "-d", sources / "made/archives")


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("memwatch 0.2 REQUIRED", 'requested version "0.2"'),
        ("memwatch REQUIRED COMPONENTS importer", "memwatch, exporter and recorder, and no importer"),
        ("memwatch 0.1.0 EXACT REQUIRED", None),
        ("memwatch 0.0.9...<0.2 REQUIRED", None),
        ("Memwatch REQUIRED", None),
    ],
)
def test_what_cmake_asks_for(prefix: Path, sources: Path, asked: str, answer: str | None) -> None:
    need("cmake")
    lists = f"cmake_minimum_required(VERSION 3.19)\nproject(asks C)\nfind_package({asked})\n"
    (sources / "CMakeLists.txt").write_text(lists)
    done = attempt("cmake", "-S", ".", "-B", "made", f"-DCMAKE_PREFIX_PATH={prefix}", cwd=sources)
    assert (done.returncode == 0) == (answer is None), done.stderr
    assert answer is None or answer in re.sub(r"\s+", " ", done.stderr)


def test_a_moved_prefix_serves_cmake(prefix: Path, sources: Path) -> None:
    need("cmake")
    shutil.copytree(prefix, sources / "moved", symlinks=True)
    run("cmake", "-S", ".", "-B", "made", f"-DCMAKE_PREFIX_PATH={sources}/moved", cwd=sources)
    run("cmake", "--build", "made", "--target", "program", cwd=sources)
    assert f"{sources}/moved/lib/libmemwatch.so.0" in run("ldd", sources / "made/program")


def test_meson(prefix: Path, sources: Path) -> None:
    need("meson", "ninja")
    run("meson", "setup", "made", "--pkg-config-path", f"{prefix}/lib/pkgconfig", cwd=sources)
    run("meson", "compile", "-C", "made", cwd=sources)
    assert run(sources / "made/program") == TOLD


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "shared"])
def test_a_plugin_comes_and_goes(prefix: Path, sources: Path, archive: bool) -> None:
    """Whoever gets SIGTRAP afterwards gets it as if the plugin had never been there."""
    (sources / "plugin.c").write_text(PLUGIN)
    (sources / "host.c").write_text(HOST)
    library = [f"-I{prefix}/include", f"{prefix}/lib/libmemwatch.a", "-ldw"] if archive else flags(prefix)
    run("gcc", "-shared", "-fPIC", "-o", "plugin.so", "plugin.c", *library, "-pthread", cwd=sources)
    run("gcc", "-o", "host", "host.c", "-ldl", "-pthread", cwd=sources)
    assert run(sources / "host", cwd=sources) == f"{int(signal.SIGTRAP)}\n"


@pytest.mark.parametrize("backend", ["auto", "poll", "mprotect"])
def test_a_filter_with_the_list_of_the_docs_kills_nobody(prefix: Path, sources: Path, backend: str) -> None:
    told = re.search(r"must let these through:\n\n```\n(.*?)```", (ROOT / "docs/c.md").read_text(), re.DOTALL)
    assert told
    calls = told.group(1).split()
    source = FILTERED.replace("ALLOWED", ", ".join(f"SYS_{name}" for name in calls))
    (sources / "program.c").write_text(source)
    run("gcc", "-pthread", "-o", "program", "program.c", *flags(prefix), cwd=sources)
    assert run(sources / "program", backend) == "lives\n"


def test_man_pages(prefix: Path) -> None:
    """Each public function has a page that names it, shows how it is declared, and says something."""
    headers = "".join(path.read_text() for path in (prefix / "include/memwatch").glob("*.h"))
    declared = re.findall(r"^MEMWATCH_API [^;]*?\b(memwatch_\w+?)(?:_sized)?\(", headers, re.MULTILINE)
    pages = {path.stem: path.read_text() for path in (prefix / "share/man/man3").iterdir()}
    overviews = {"memwatch", "memwatch_types", "memwatch_exporter", "memwatch_reader", "memwatch_recorder"}
    assert len(declared) > 60
    assert pages.keys() >= {*declared, *overviews}
    for name in declared:
        assert re.search(rf"^\.SH NAME\n[^\n]*\b{name}\b[^\n]* \\- \S", pages[name], re.MULTILINE), name
        assert re.search(rf"^\.B [^\n]*\b{name}\([^\n]*\);$", pages[name], re.MULTILINE), name
        assert re.search(r"^\.SH DESCRIPTION\n\S", pages[name], re.MULTILINE), name
    assert not any("struct_bytes)" in page or "_sized" in page for name, page in pages.items() if name in declared)
    assert "struct memwatch_options {" in pages["memwatch_types"]
    assert ".SH CALLS" in pages["memwatch"]


def test_man_pages_are_well_formed(prefix: Path) -> None:
    need("mandoc")
    told = attempt("mandoc", "-Tlint", "-Wwarning", *sorted((prefix / "share/man/man3").iterdir()))
    assert told.stdout + told.stderr == ""


def test_no_python_is_asked_and_nothing_is_left(tmp_path: Path) -> None:
    """A tree that was never built, no Python under any name, and a staging directory with something of others in it."""
    tree, stage, tools = (tmp_path / name for name in ("tree", "stage", "tools"))
    for name in ("native", "exporter", "recorder", "scripts", "dashboards"):
        shutil.copytree(ROOT / name, tree / name)
    shutil.copy2(ROOT / "Makefile", tree)
    tools.mkdir()
    for name in {path.name for path in Path("/usr/bin").iterdir() if not path.name.startswith(("py", "pip"))}:
        (tools / name).symlink_to(f"/usr/bin/{name}")
    others = stage / "opt/memwatch/lib/others"
    others.parent.mkdir(parents=True)
    others.write_text("")
    where = [f"DESTDIR={stage}", "PREFIX=/opt/memwatch"]

    run("make", "install-c", "CFLAGS=-O0", *where, cwd=tree, PATH=str(tools))
    assert (stage / "opt/memwatch/lib/libmemwatch_exporter.so.0").is_symlink()
    assert "-rpath,/opt/memwatch/lib" in (stage / "opt/memwatch/lib/pkgconfig/memwatch.pc").read_text()
    stale = stage / "opt/memwatch/lib/libmemwatch.so.0.0.9"
    stale.write_text("")
    with (stage / "opt/memwatch/share/memwatch/installed").open("a") as installed:
        installed.write("/opt/memwatch/lib/libmemwatch.so.0.0.9\n")
    run("make", "install-c", "CFLAGS=-O0", *where, cwd=tree, PATH=str(tools))
    assert not stale.exists(), "what an older version brought is still there"
    run("make", "uninstall-c", *where, cwd=tree, PATH=str(tools))

    assert [path for path in (stage / "opt").rglob("*") if not path.is_dir()] == [others]
    assert [path.name for path in (stage / "opt/memwatch").iterdir()] == ["lib"]
    again = attempt("make", "uninstall-c", *where, cwd=tree, PATH=str(tools))
    assert again.returncode and f"nothing is installed below {stage}/opt/memwatch" in again.stderr


def test_a_prefix_that_is_no_path_is_refused() -> None:
    done = attempt("make", "install-c", "PREFIX=usr")
    assert done.returncode and 'PREFIX must be an absolute path, not "usr"' in done.stderr

"""Programs whose threads are greenlets, patched before or after the watcher, and event loops: nothing stops them."""

import importlib.util

import pytest
from tests.conftest import run_python

PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
SPAWN = {
    "gevent": "import gevent; spawn, sleep = gevent.spawn, gevent.sleep\ndef join(let): let.join()",
    "eventlet": "import eventlet; spawn, sleep = eventlet.spawn, eventlet.sleep\ndef join(let): let.wait()",
}
START = """
import time, memwatch
watcher = memwatch.MemoryWatcher()
data = memwatch.buffer(4096)
watcher.watch(data, "data")
seen = []
"""
PROGRAMS = {
    "callbacks": """
watcher.set_callback(lambda event: seen.append(event.new_value[0]))
def write():
    for i in (1, 2, 3):
        sleep(0.02)
        data[0] = i
        assert watcher.flush()
join(spawn(write))
watcher.close()
assert seen == [1, 2, 3], seen
""",
    "events": """
ticks = 0
def tick():
    global ticks
    while True:
        sleep(0.005)
        ticks += 1
def write():
    sleep(0.2)
    data[0] = 7
spawn(tick)
spawn(write)
event = next(watcher.events(timeout=20))
assert event.new_value[0] == 7
assert ticks > 3, ticks
before = ticks
assert list(watcher.events(timeout=0.3)) == []
assert ticks - before > 3, ticks - before
watcher.close()
""",
    "flush": """
ticks = 0
def tick():
    global ticks
    while True:
        sleep(0.005)
        ticks += 1
release = []
def callback(event):
    while not release:
        real_sleep(0.01)
watcher.set_callback(callback)
spawn(tick)
data[0] = 1
assert not watcher.flush(0.4)
assert ticks > 3, ticks
release.append(1)
assert watcher.flush(20)
watcher.close()
""",
    "close": """
ticks = 0
def tick():
    global ticks
    while True:
        sleep(0.005)
        ticks += 1
watcher.set_callback(lambda event: real_sleep(0.4))
spawn(tick)
data[0] = 1
watcher.close()
assert ticks > 3, ticks
""",
    "names": """
class Thing: pass
thing = Thing(); thing.n = 0; thing.items = []
watcher.set_callback(lambda event: seen.append(event.variable_name))
watcher.watch_attr(thing, "n", alias="n")
watcher.watch_attr(thing, "items", alias="items")
def write():
    for i in (1, 2, 3):
        thing.n = i
        sleep(0.01)
    getattr(thing, "it" + "ems").append(1)
    sleep(1.0)
join(spawn(write))
assert watcher.flush()
watcher.close()
assert seen.count("n") == 3 and "items" in seen, seen
""",
}


def needs(module):
    """Not imported here: eventlet warns of every later fork of the process."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"no {module}")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("when", ["before", "after", "between", "never"])
@pytest.mark.parametrize("library", PATCH)
def test_programs_of_greenlets_go_on(library, when, program):
    needs(library)
    real = "import time; real_sleep = time.sleep\n"
    patch = PATCH[library]
    code = {
        "before": [real, patch, SPAWN[library], START],
        "after": [real, START, patch, SPAWN[library]],
        "between": [real, "import memwatch", patch, SPAWN[library], START],
        "never": [real, SPAWN[library], START],
    }[when]
    result = run_python("\n".join([*code, PROGRAMS[program]]), options=("-W", "ignore"))
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize("library", PATCH)
def test_a_program_of_greenlets_that_closes_nothing_ends(library):
    needs(library)
    end = "watcher.set_callback(lambda event: print(event.new_value[0]))\nsleep(0.01)\ndata[0] = 7"
    code = "\n".join([PATCH[library], SPAWN[library], START, end])
    result = run_python(code, options=("-W", "ignore"))
    assert (result.stdout.strip(), result.stderr, result.returncode) == ("7", "", 0)


LOOPS = {
    "asyncio": "import asyncio; run = asyncio.run",
    "uvloop": "import asyncio, uvloop; run = uvloop.run",
    "trio": "import trio\ndef run(it): trio.run(lambda: it)",
}


@pytest.mark.parametrize("loop", LOOPS)
def test_event_loops_go_on(loop):
    needs(loop)
    sleep = "trio.sleep" if loop == "trio" else "asyncio.sleep"
    spawn = (
        "async with trio.open_nursery() as nursery:\n        nursery.start_soon(tick)\n        await read()\n"
        "        nursery.cancel_scope.cancel()"
        if loop == "trio"
        else "task = asyncio.ensure_future(tick())\n    await read()\n    task.cancel()"
    )
    code = f"""
{LOOPS[loop]}
{START}
ticks = 0
async def tick():
    global ticks
    while True:
        await {sleep}(0.005)
        ticks += 1
        if ticks == 40:
            data[0] = 7
async def read():
    async for event in watcher.events(timeout=20):
        assert event.new_value[0] == 7
        break
    async for event in watcher.events(timeout=0.2):
        raise SystemExit(event)
    assert ticks > 43, ticks
async def main():
    {spawn}
run(main())
watcher.close()
"""
    result = run_python(code, options=("-W", "ignore"))
    assert result.returncode == 0, result.stderr[-2000:]


def test_a_cancelled_wait_loses_no_event():
    code = f"""
import asyncio
{START}
async def main():
    stream = watcher.events(since=0)
    for i in range(1, 6):
        try:
            await asyncio.wait_for(stream.__anext__(), 0.02)
        except asyncio.TimeoutError:
            pass
        data[0] = i
        watcher.flush()
        seen.append((await stream.__anext__()).new_value[0])
asyncio.run(main())
watcher.close()
assert seen == [1, 2, 3, 4, 5], seen
"""
    result = run_python(code, options=())
    assert result.returncode == 0, result.stderr[-2000:]


def test_nothing_of_greenlets_is_imported():
    code = "import sys, memwatch; memwatch.MemoryWatcher().close(); print(*sys.modules)"
    assert not {"gevent", "eventlet", "trio"} & set(run_python(code).stdout.split())

"""Events as an iterator, plain and async."""

import asyncio
import threading

import pytest

import memwatch


@pytest.fixture
def data(watcher):
    """A watched buffer on pages of its own."""
    data = memwatch.buffer(4096)
    watcher.watch(data, "data")
    return data


def write(watcher, data, values):
    for value in values:
        data[0] = value
        assert watcher.flush()


def firsts(events):
    return [event.new_value[0] for event in events]


def test_from_now_on(watcher, data):
    write(watcher, data, [1, 2])
    stream = watcher.events(timeout=0.2)
    write(watcher, data, [3, 4])
    events = list(stream)
    assert firsts(events) == [3, 4]
    assert [event.seq for event in events] == [3, 4]
    assert stream.missed == 0
    assert events[0].where.function == "write"


def test_since(watcher, data):
    write(watcher, data, [1, 2, 3])
    assert firsts(watcher.events(since=0, timeout=0)) == [1, 2, 3]
    assert firsts(watcher.events(since=2, timeout=0)) == [3]
    stream = watcher.events(since=1, timeout=0.2)
    write(watcher, data, [4])
    assert firsts(stream) == [2, 3, 4]


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("since", [0, 10])
def test_what_is_gone_is_counted(closed, since):
    with memwatch.MemoryWatcher(event_capacity=16) as watcher:
        data = memwatch.buffer(10)
        watcher.watch(data, "data")
        stream = watcher.events(since=since, timeout=0)
        write(watcher, data, range(1, 51))
        if closed:
            watcher.close()
        events = list(stream)
        assert events[-1].seq == 50
        assert stream.missed == 50 - since - len(events) > 0


def test_blocks_until_the_next_event(watcher, data):
    stream, seen = watcher.events(), []

    def read():
        for event in stream:
            seen.append(event)

    thread = threading.Thread(target=read)
    thread.start()
    write(watcher, data, [1, 2])
    watcher.close()
    thread.join(30)
    assert not thread.is_alive()
    assert firsts(seen) == [1, 2]


@pytest.mark.parametrize("since", [None, 0, 1])
def test_what_was_told_before_the_close_is_read_after_it(watcher, data, since):
    stream = watcher.events(since=since)
    write(watcher, data, [1, 2, 3])
    watcher.close()
    assert firsts(stream) == [1, 2, 3][since or 0 :]
    assert stream.missed == 0


def test_since_after_the_newest_waits_for_those_after_it(watcher, data):
    stream = watcher.events(since=2, timeout=0.2)
    write(watcher, data, [1, 2, 3])
    assert firsts(stream) == [3]
    (sink,) = [sink for sink in watcher.get_stats()["sinks"] if sink["name"] == "events"]
    assert sink["lag"] == 0


def test_a_since_that_is_none_is_refused(watcher):
    with pytest.raises(ValueError, match="since=-1 is out of range"):
        watcher.events(since=-1)
    with pytest.raises(TypeError):
        watcher.events(since="newest")


def test_close_from_another_thread_ends_it(watcher, data):
    stream = watcher.events()
    thread = threading.Thread(target=list, args=(stream,))
    thread.start()
    write(watcher, data, [1])
    stream.close()
    stream.close()
    thread.join(30)
    assert not thread.is_alive()
    assert [sink for sink in watcher.get_stats()["sinks"] if sink["name"] == "events"] == []


def test_it_has_an_account(watcher, data):
    stream = watcher.events(timeout=0.1)
    next(iter([]), None)
    assert list(stream) == []
    write(watcher, data, [1])
    assert len(list(stream)) == 1
    sink = next(sink for sink in watcher.get_stats()["sinks"] if sink["name"] == "events")
    assert (sink["received"], sink["missed"]) == (1, 0)


def test_async(watcher, data):
    async def main():
        stream = watcher.events(timeout=30)
        await asyncio.to_thread(write, watcher, data, [1, 2])
        seen = []
        async for event in stream:
            seen.append(event)
            if len(seen) == 2:
                break
        return seen

    assert firsts(asyncio.run(main())) == [1, 2]


def test_async_cancel(watcher, data):
    async def main():
        stream = watcher.events()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.__anext__(), 0.05)
        await asyncio.to_thread(write, watcher, data, [1])
        return await stream.__anext__()

    assert asyncio.run(main()).new_value[0] == 1


def test_async_ends_with_the_watcher():
    watcher = memwatch.MemoryWatcher()

    async def main():
        asyncio.get_running_loop().call_later(0.05, watcher.close)
        return [event async for event in watcher.events()]

    assert asyncio.run(main()) == []

"""An event that cannot be recorded costs itself and no other; what is lost with it is not known, and never guessed."""

import contextlib
import sqlite3

import numpy
import pytest

MIB = 1 << 20


@pytest.fixture
def refuse(path):
    """Has SQLite refuse some statements of the recorder's: a trigger. Called without one, none any more."""

    def change(when=None, how="ABORT"):
        with contextlib.closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
            connection.execute("DROP TRIGGER IF EXISTS refuse")
            if when:
                connection.execute(
                    f"CREATE TRIGGER refuse BEFORE {when} BEGIN SELECT raise({how}, 'it may not be'); END"
                )

    return change


def values_of(history, name, seqs):
    """What is told of a variable after each of the events; None: not known."""
    values = {}
    for seq in seqs:
        try:
            values[seq] = history.value_at(name, seq=seq, raw=True)
        except KeyError:
            values[seq] = None
    return values


@pytest.mark.parametrize("n_before", [0, 1, 20])
@pytest.mark.parametrize("how", ["ABORT", "ROLLBACK"])
def test_an_event_that_is_refused_costs_only_itself(watch, path, refuse, opened, n_before, how):
    watched, data, number = watch(commit_ms=500), bytearray(64), numpy.zeros(1)
    watched.add(data, "da\tta")
    watched.add(number, "number")
    data[0], number[0] = 1, 1
    watched.commit()
    refuse('INSERT ON patches WHEN new."offset" = 7', how)
    truth = {}
    for step in range(n_before):
        number[0] = 2 + step
        data[1 + step % 2] += 1
        truth[watched.settle()] = bytes(data), number[0]
    data[7] = 1
    refused = watched.settle()
    truth[refused] = bytes(data), number[0]
    for step in range(10):
        data[1 + step % 2] += 1
        truth[watched.settle()] = bytes(data), number[0]
    newest = watched.commit()
    stats = watched.stats()
    assert (stats["state"], stats["events_missed"], stats["events_written"]) == ("recording", 1, newest - 1)
    assert stats["errors"] == 1
    assert stats["message"] == rf"event {refused} of da\x09ta is not recorded: SQLite refuses it: it may not be"
    refuse()
    history = opened(path)
    assert [event.seq for event in history.events()] == [seq for seq in range(1, newest + 1) if seq != refused]
    assert history.runs[0].events_missed == 1
    told = values_of(history, "da\tta", range(1, newest + 1))
    assert all(told[seq] == data for seq, (data, _) in truth.items())
    for seq, value in values_of(history, "number", truth).items():
        assert value in (None if seq >= refused else b"", numpy.float64(truth[seq][1]).tobytes())
    number[0] = -1
    newest = watched.commit()
    assert history.value_at("number", seq=newest) == -1
    assert watched.stats()["errors"] == 1


def test_a_row_that_is_there_already(watch, path):
    watched, data = watch(), bytearray(8)
    watched.add(data, "data")
    data[0] = 1
    newest = watched.commit()
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection, connection:
        connection.execute("INSERT INTO patches VALUES(?, 0, x'', x'')", (newest + 1,))
    data[0] = 2
    watched.commit()
    assert watched.stats()["message"].endswith("UNIQUE constraint failed: patches.id, patches.offset")
    data[0] = 3
    watched.commit()
    stats = watched.stats()
    assert (stats["state"], stats["errors"], stats["events_missed"]) == ("recording", 1, 1)


def test_room_that_could_not_be_made_is_no_room(watch, path, refuse, opened, wait_for):
    """The transaction was rolled back by then: nothing of the event may be written behind it."""
    for how in ("ABORT", "ROLLBACK"):
        arrays = [numpy.zeros(15_000, "i8") for _ in range(4)]
        for run in range(2):
            watched = watch(max_bytes=MIB)
            for number, array in enumerate(arrays[: 3 + run]):
                watched.add(array, f"array {number}")
            wait_for(lambda watched=watched: watched.stats()["run"])
            if run:
                refuse("DELETE ON bases", how)
            for array in arrays[: 3 + run]:
                array[7] += 1
                watched.settle()
            watched.commit()
            stats = watched.stats()
            watched.close()
        refuse()
        assert stats["events_missed"] == stats["errors"] > 0, stats
        history = opened(path)
        run = history.runs[-1]
        assert len(list(history.events(run=run.run))) == run.events_written == stats["events_written"]
        assert run.events_written + run.events_missed == 4
        path.unlink()


@pytest.mark.parametrize("patches", [True, False])
def test_the_largest_events_find_room(watch, opened, path, patches):
    """A value of an eighth of the file, all of it written anew, beside others."""
    watched, numbers = watch(max_bytes=MIB, patches=patches, commit_ms=200), numpy.zeros(40)
    arrays = [numpy.zeros(MIB // 64, "i8") for _ in range(3)]
    filler = numpy.zeros(1000, "i8")
    watched.add(filler, "filler")
    for at in range(40):
        watched.add(numbers[at : at + 1], f"number {at}")
    for number, array in enumerate(arrays):
        watched.add(array, f"array {number}")
    while watched.stats()["bytes_used"] < MIB * 85 // 100:
        filler += 1
        watched.commit()
    for step in range(1, 7):
        for array in arrays:
            numbers[:] += 1
            array[:] = step
            watched.settle()
    newest = watched.commit()
    stats = watched.stats()
    assert (stats["errors"], stats["events_missed"], stats["events_written"]) == (0, 0, newest), stats
    assert path.stat().st_size <= MIB
    history = opened(path)
    for number, array in enumerate(arrays[:2]):  # the third one is above what all whole values may take
        assert (history.value_at(f"array {number}") == array).all()


def test_a_value_that_was_not_known_is_not_known_before_either(watch, opened, path):
    """There was no room for it at its first event, and there is at its second: that tells nothing of the first."""
    watched = watch(max_bytes=MIB)
    arrays = [numpy.zeros(15_000, "i8") for _ in range(4)]
    ids = [watched.add(array, f"array {number}") for number, array in enumerate(arrays)]
    for array in arrays:
        array[0] = 1
        watched.commit()
    first = watched.settle()
    assert watched.stats()["versions_skipped"] == 1
    watched.watcher.region_remove(ids[0])
    filler = numpy.zeros(500, "i8")
    watched.add(filler, "filler")
    n_evicted = 0
    while watched.stats()["events_evicted"] < 3 or n_evicted < 3:
        filler += 1
        watched.commit()
        n_evicted += watched.stats()["events_evicted"] > 0
        if len([1 for each in opened(path).regions if each.name == "array 0"]) == 0:
            break
    arrays[3][1] = 1
    second = watched.commit()
    history = opened(path)
    assert history.value_at("array 3", seq=second)[1] == 1
    copy = numpy.zeros(15_000, "i8")
    for seq, value in values_of(history, "array 3", range(1, second)).items():
        copy[0] = seq >= first
        assert value in (None, copy.tobytes()), seq


def test_what_was_lost_stays_unknown_when_the_loss_is_old(watch, path, refuse, opened):
    watched, quiet, busy = watch(max_bytes=MIB), bytearray(8), numpy.zeros(500, "i8")
    number = numpy.zeros(1)
    for buffer, name in ((quiet, "quiet"), (busy, "busy"), (number, "number")):
        watched.add(buffer, name)
    for step in range(1, 6):
        refuse()
        quiet[0], number[0] = step, step
        busy[0] += 1
        watched.commit()
        refuse('INSERT ON changes WHEN new.variable <> (SELECT variable FROM variables WHERE name = "busy")')
        quiet[1], number[0] = step, -step
        watched.commit()
    refuse()
    missed = watched.stats()["events_missed"]
    assert missed == 10
    busy[1] += 1
    first = watched.commit()
    history = opened(path)
    while not history.runs[0].oldest_seq > first:
        busy += 1
        watched.commit()
    for name in ("quiet", "number"):
        with pytest.raises(KeyError, match="not known"):
            history.value_at(name)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM losses").fetchone() == (1,), "old ones leave, too"
    quiet[2], number[0] = 1, 7
    watched.commit()
    assert (history.value_at("quiet"), history.value_at("number")) == (quiet, 7)


def test_the_end_of_a_run_evicts_nothing(watch, path, opened):
    watched, array = watch(max_bytes=MIB), numpy.zeros(500, "i8")
    watched.add(array, "array")
    while watched.stats()["bytes_used"] < MIB * 85 // 100:
        array += 1
        watched.commit()
    history = opened(path)
    oldest = history.runs[0].oldest_seq
    watched.close()
    assert history.runs[0].oldest_seq == oldest


def test_more_variables_than_the_file_has_room_for(watch, opened, path):
    """Those that rest the longest leave, and may come again; the others are recorded."""
    watched, array = watch(max_bytes=MIB, commit_ms=200), numpy.zeros(3500)
    names = [f"{'n' * 240} {at}" for at in range(len(array))]
    for at, name in enumerate(names):
        watched.add(array[at : at + 1], name)
    for step in (1, 2):
        array[: 1 + step * 1000] += step
        array[:] += step
        newest = watched.commit()
        stats = watched.stats()
        assert (stats["errors"], stats["events_missed"], stats["events_written"]) == (0, 0, newest), stats
        assert path.stat().st_size <= MIB
    history, n_known = opened(path), 0
    for at in range(0, len(array), 97):
        with contextlib.suppress(KeyError):
            assert history.value_at(names[at])[0] == array[at]
            n_known += 1
    assert n_known > 5


def test_a_file_that_was_switched_to_a_write_ahead_log(watch, path, wait_for):
    watched, data = watch(), bytearray(8)
    watched.add(data, "data")
    data[0] = 1
    watched.commit()
    watched.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    watched = watch()
    watched.add(data, "data")
    data[0] = 2
    wait_for(lambda: watched.stats()["errors"])
    assert watched.stats()["message"].endswith("is in WAL mode: switch it back with PRAGMA journal_mode=DELETE")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    watched.commit()
    assert watched.stats()["events_missed"] == 0

"""Lines in a file: the way of an event from a feed to a destination, and what crashes do to it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from memwatch._ship.cursors import Cursors
from memwatch._ship.ndjson import Ndjson
from memwatch._ship.numbers import Numbers, serve, write_file

from .parts import Ship, Watched, check_duplicates, lines, uncovered, wait_for

Watch = Callable[..., Watched]
Start = Callable[..., Ship]


def test_once_and_once_more(watch: Watch, ship: Start, runtime: Path) -> None:
    """Each event once; the second time what is new."""
    watched, file = watch(), runtime / "events.ndjson"
    newest = watched.write(5)
    shipper = ship("--to", file)
    shipper.once()
    first = lines(file)
    assert [each["seq"] for each in first] == list(range(1, newest + 1))
    assert {each["epoch"] for each in first} == {watched.epoch}
    assert first[0]["id"] == f"{watched.epoch}-1"
    assert (first[0]["service"], first[0]["pid"], first[0]["name"]) == (runtime.name, watched.pid, "counter")
    shipper.once()
    assert lines(file) == first
    newest = watched.write(3)
    shipper.once()
    assert [each["seq"] for each in lines(file)] == list(range(1, newest + 1))
    assert file.stat().st_mode & 0o777 == 0o600


def test_by_pid_and_by_address(watch: Watch, ship: Start, runtime: Path) -> None:
    one, other = watch(), watch()
    one.write(2)
    other.write(2)
    ship(one.pid, "--to", runtime / "one", named=False).once()
    assert {each["epoch"] for each in lines(runtime / "one")} == {one.epoch}
    ship(f"http://127.0.0.1:{other.port}", "--to", runtime / "two", named=False).once()
    assert {each["epoch"] for each in lines(runtime / "two")} == {other.epoch}
    elsewhere = ship(
        f"http://127.0.0.1:{other.port}",
        "--to",
        runtime / "three",
        named=False,
        XDG_RUNTIME_DIR=str(runtime / "nowhere"),
        MEMWATCH_TOKEN=other.token,
    )
    elsewhere.once()
    assert {each["epoch"] for each in lines(runtime / "three")} == {other.epoch}
    ship("--to", runtime / "service").once()
    assert {each["epoch"] for each in lines(runtime / "service")} == {one.epoch, other.epoch}
    ship("--to", runtime / "all", named=False).once()
    assert {each["epoch"] for each in lines(runtime / "all")} >= {one.epoch, other.epoch}


def test_what_left_the_log_is_a_gap(watch: Watch, ship: Start, runtime: Path) -> None:
    watched, file = watch("64"), runtime / "events.ndjson"
    watched.write(10)
    ship("--to", file).once()
    newest = watched.write(300)
    ship("--to", file).once()
    found = lines(file)
    gaps = [each for each in found if each["kind"] == "gap"]
    assert gaps and sum(gap["missed"] for gap in gaps) >= 300 - 64 - 1
    assert gaps[0]["id"] == f"{watched.epoch}-gap-{gaps[0]['from']}-{gaps[0]['to']}"
    assert uncovered(found, watched.epoch, newest) == []
    assert check_duplicates(found) == 0


def test_only_names_that_match(watch: Watch, ship: Start, runtime: Path) -> None:
    watched, file = watch(), runtime / "events.ndjson"
    watched.write(20)
    watched.say("other")
    shipper = ship("--name", "oth*", "--to", file)
    shipper.once()
    assert [each["name"] for each in lines(file)] == ["other"]
    shipper.once()
    assert len(lines(file)) == 1


def test_a_restart_at_the_same_address_is_told(watch: Watch, ship: Start, runtime: Path) -> None:
    token = "0123456789abcdef0123456789abcdef"
    first, file = watch(token=token), runtime / "events.ndjson"
    first.write(3)
    options = {"XDG_RUNTIME_DIR": str(runtime / "nowhere"), "MEMWATCH_TOKEN": token}
    shipper = ship(f"http://127.0.0.1:{first.port}", "--to", file, named=False, **options)
    shipper.once()
    first.end()
    second = watch(port=int(first.port), token=token)
    second.write(2)
    shipper.once()
    restarts = [each for each in lines(file) if each["kind"] == "restart"]
    assert [each["previous_epoch"] for each in restarts] == [first.epoch]
    assert restarts[0]["epoch"] == second.epoch and restarts[0]["previous_seq"] >= 3
    shipper.once()
    assert len([each for each in lines(file) if each["kind"] == "restart"]) == 1


def test_a_torn_line_is_cut_off(watch: Watch, ship: Start, runtime: Path) -> None:
    watched, file = watch(), runtime / "events.ndjson"
    file.write_bytes(b'{"id": "of before"}\n{"id": "torn')
    watched.write(1)
    ship("--to", file).once()
    assert [each["id"] for each in lines(file)] == ["of before", f"{watched.epoch}-1"]


def test_a_last_line_of_somebody_else_stays(runtime: Path) -> None:
    file = runtime / "notes"
    for text, left in (
        (b"notes\nof mine", b"notes\nof mine\n"),
        (b'{"mine": 1}', b'{"mine": 1}\n'),
        (b"whole\n", b"whole\n"),
        (b'whole\n{"id":"x-1","se', b"whole\n"),
        (b"whole\n{", b"whole\n"),
        (b"whole\n" + bytes(70000), b"whole\n"),
        (b"", b""),
    ):
        file.write_bytes(text)
        file.chmod(0o600)
        Ndjson(str(file), Numbers(), lambda sentence: None).close()
        assert file.read_bytes() == left


def test_a_new_watcher_in_the_place_of_one_before_is_read(watch: Watch, ship: Start, runtime: Path) -> None:
    """It has another token, and the process is the same."""
    watched, file = watch(), runtime / "events.ndjson"
    watched.write(2)
    shipper = ship("--to", file).start()
    wait_for(lambda: len(lines(file)) == 2)
    watched.say("again")
    assert watched.write(3) == 3
    wait_for(lambda: len(lines(file)) == 6, what="two events, a restart, three events")
    first, _, restart, *events = lines(file)
    assert (restart["kind"], restart["previous_epoch"], restart["previous_seq"]) == ("restart", first["epoch"], 2)
    assert [(each["epoch"], each["seq"]) for each in events] == [(restart["epoch"], seq) for seq in (1, 2, 3)]
    assert shipper.end() == 0


@pytest.mark.parametrize(
    "cursor",
    [
        {"seq": 1, "source": "s"},
        {"seq": 1, "source": "s", "time": "now"},
        {"seq": 1, "source": "s", "time": float("nan")},
        {"seq": -1, "source": "s", "time": 1.0},
        {"seq": True, "source": "s", "time": 1.0},
        {"seq": 2**70, "source": "s", "time": 1.0},
        [],
    ],
    ids=str,
)
def test_a_cursor_that_is_damaged_is_none(runtime: Path, cursor: object) -> None:
    """At the start, with a sentence: later everything would be sent again and again."""
    state = runtime / "state.json"
    state.write_text(json.dumps({"version": 1, "cursors": {"0123456789abcdef": cursor}}))
    with pytest.raises(ValueError, match="holds no cursors"):
        Cursors(str(state))
    state.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="holds no cursors"):
        Cursors(str(state))


def test_two_shippers_with_the_same_cursors(watch: Watch, ship: Start, runtime: Path) -> None:
    watch().write(1)
    shipper = ship("--to", runtime / "file").start()
    wait_for(lambda: lines(runtime / "file"))
    assert "another shipper" in ship("--to", runtime / "file").once(status=1)
    assert shipper.end() == 0


def test_as_it_happens_and_metrics(watch: Watch, ship: Start, runtime: Path) -> None:
    """Events as they come, watchers as they come and go; what the shipper says of itself; a quick end."""
    watched, file, textfile = watch(), runtime / "events.ndjson", runtime / "ship.prom"
    shipper = ship("--to", file, "--metrics", "0", "--metrics-file", textfile).start()
    watched.write(2)
    wait_for(lambda: len(lines(file)) >= 2)
    later = watch()
    later.write(1)
    wait_for(lambda: any(each["epoch"] == later.epoch for each in lines(file)))
    later.end()
    port = re.search(r":(\d+)/metrics", shipper.errors.read_text())
    assert port
    address = f"http://127.0.0.1:{port[1]}/metrics"

    def told() -> str:
        with urllib.request.urlopen(address) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            return str(answer.read().decode())

    wait_for(lambda: "memwatch_ship_sources 1\n" in told(), what="one source")
    assert f"memwatch_ship_events_total {len(lines(file))}\n" in told()
    assert 'memwatch_ship_lag_events{source="pid ' in told()
    wait_for(lambda: textfile.exists() and "memwatch_ship_sources 1\n" in textfile.read_text())
    begun = time.monotonic()
    assert shipper.end(signal.SIGTERM) == 0
    assert time.monotonic() - begun < 15


def test_metrics_are_well_formed(watch: Watch, ship: Start, runtime: Path) -> None:
    import shutil
    import subprocess

    watch().write(1)
    textfile = runtime / "ship.prom"
    ship("--to", runtime / "file", "--metrics-file", textfile).once()
    if shutil.which("promtool"):
        done = subprocess.run(["promtool", "check", "metrics"], input=textfile.read_bytes(), capture_output=True)
        assert done.returncode == 0, done.stderr


def test_kill_9_of_the_shipper(watch: Watch, ship: Start, runtime: Path) -> None:
    watched, file = watch("65536", "0.002"), runtime / "events.ndjson"
    shipper = ship("--to", file)
    for i in range(4):
        before = len(lines(file))
        shipper.start()
        wait_for(lambda seen=before + 20 * (i + 1): len(lines(file)) > seen)
        shipper.end(signal.SIGKILL)
    newest = int(watched.say("newest"))
    shipper.once()
    found = lines(file)
    assert uncovered(found, watched.epoch, newest) == []
    check_duplicates(found)


def test_a_file_that_was_moved_away(watch: Watch, ship: Start, runtime: Path) -> None:
    watched, file = watch(), runtime / "events.ndjson"
    shipper = ship("--to", file).start()
    watched.write(1)
    wait_for(lambda: lines(file))
    file.rename(runtime / "events.1")
    newest = watched.write(1)
    wait_for(lambda: lines(file))
    assert lines(file)[-1]["seq"] == newest
    assert shipper.end() == 0


def test_misuse(watch: Watch, ship: Start, runtime: Path) -> None:
    assert f"no watcher {runtime.name}" in ship("--to", runtime / "file").once(status=1)
    watch()
    for arguments, words in (
        (("99999999", "--to", "file"), "no watcher"),
        (("--to", runtime / "no" / "file"), "No such file"),
        (("--to", runtime), "Is a directory"),
        (("--to", runtime / "file", "--metrics", "192.0.2.1:0"), "--metrics 192.0.2.1:0: "),
    ):
        assert words in ship(*arguments).once(status=1), arguments
    state = runtime / "state.json"
    state.write_text("[]")
    assert "holds no cursors" in ship("--to", runtime / "file", "--state", state).once(status=1)
    assert json.loads(state.read_text()) == []
    ship("--to", runtime / "f", "--give-up-after", "soon").once(status=2)


# --- whose files they are ---


@pytest.mark.parametrize("kind", ["link", "other name", "writable", "pipe", "directory"])
def test_a_file_that_is_not_ours_alone_is_not_written(ship: Start, runtime: Path, kind: str) -> None:
    """In a directory where others may write somebody else comes first."""
    text, file = runtime / "text", runtime / "events.ndjson"
    text.write_text("the user's, without an end of line")
    if kind == "link":
        file.symlink_to(text)
    elif kind == "other name":
        file.hardlink_to(text)
    elif kind == "writable":
        file.touch()
        file.chmod(0o666)
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    with pytest.raises(OSError):
        Ndjson(str(file), Numbers(), lambda sentence: None)
    assert text.read_text() == "the user's, without an end of line"


def test_numbers_that_cannot_be_written_are_said_and_counted(runtime: Path) -> None:
    numbers, said = Numbers(), list[str]()
    write_file(numbers, str(runtime / "no" / "numbers"), said.append)
    assert said == [f"--metrics-file {runtime}/no/numbers: No such file or directory"]
    assert 'memwatch_ship_failures_total{reason="state"} 1' in numbers.text()


def test_what_waits_beside_a_file_is_not_written_through(runtime: Path) -> None:
    text = runtime / "text"
    text.write_text("the user's")
    for name in ("state", "numbers"):
        (runtime / f"{name}.{os.getpid()}").symlink_to(text)
    cursors = Cursors(str(runtime / "state"))
    cursors.save("epoch", 1, "source")
    cursors.close()
    numbers = Numbers()
    write_file(numbers, str(runtime / "numbers"), pytest.fail)
    assert (text.read_text(), numbers.last_error) == ("the user's", "")
    assert "epoch" in (runtime / "state").read_text() and "memwatch_ship_up 1" in (runtime / "numbers").read_text()
    assert (runtime / "state").stat().st_mode & 0o777 == 0o600
    (runtime / "other.lock").symlink_to(runtime / "made")
    with pytest.raises(OSError):
        Cursors(str(runtime / "other"))
    assert not (runtime / "made").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_another_users_file_is_not_written(runtime: Path) -> None:
    file = runtime / "theirs"
    file.touch(0o600)
    os.chown(file, 12345, 12345)
    with pytest.raises(OSError, match="another user"):
        Ndjson(str(file), Numbers(), lambda sentence: None)


def test_a_crowd_makes_no_threads() -> None:
    server = serve(Numbers(), "127.0.0.1", 0)
    before = threading.active_count()
    try:
        with contextlib.ExitStack() as clients:
            crowd = [socket.create_connection(server.server_address[:2], 30) for _ in range(100)]
            for client in crowd:
                clients.enter_context(client)
            assert crowd[-1].recv(1) == b"", "it is turned away"
            assert threading.active_count() <= before + 16
    finally:
        server.shutdown()
        server.server_close()

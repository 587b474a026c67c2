"""`memwatch show`, `memwatch value` and `memwatch blame`: what variables hold, held, and who wrote that."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Optional

from memwatch._cli.client import Client, Refused, region_path
from memwatch._cli.clock import ago, moment, number, stamp
from memwatch._cli.events import event_line, event_of, layout_of, writer_text
from memwatch._cli.found import Found
from memwatch._cli.frame import OK, PROBLEM, Failure, command, complain, print_json, shown, table
from memwatch._cli.targets import add_variable, ask_each, no_variable, region_named, target_and_name

GONE = 410
WHOLE = 4096  # bytes of a value that is worth asking for
ASKED = 200  # variables whose values are asked for one by one


def event_at(client: Client, name: str, seq: Optional[int], time_s: Optional[float]) -> Optional[dict[str, Any]]:
    """The last event of a name up to a number or a time, as far back as the log goes."""
    exact = "".join(f"[{each}]" if each in "*?[" else each for each in name)
    until_ms = None if time_s is None else int(time_s * 1000) + 1
    before = None if seq is None else seq + 1
    query = {"name": exact, "to_ms": until_ms, "before": before}
    while True:  # a call looks at so many events only
        page = client.json("/api/v1/events", order="newest", limit=1, **query)
        if page["events"] or page["before"] is None:
            return page["events"][0] if page["events"] else None
        query["before"] = page["before"]


def value_of(client: Client, region: dict[str, Any], seq: Optional[int], time_s: Optional[float]) -> Any:
    """What a variable held: a value, or the text that is shown of a name's."""
    if region["backend"] == "external":  # names that adapters follow have no bytes: their events say what they held
        event = event_at(client, region["name"], seq, time_s)
        if event is None and seq is None and time_s is None and "value" in region:
            return region["value"]
        if event is None:
            raise Failure(f"{region['name']} has not changed since then, and what it held before is not known")
        return event_of(event).new
    time_ms = None if time_s is None else int(time_s * 1000)
    return layout_of(region).value(client.bytes(region_path(region, "value"), seq=seq, time_ms=time_ms))


def _answers(options: argparse.Namespace, ask: Any) -> list[tuple[Found, dict[str, Any], Any]]:
    """What each watcher that has the variable answers."""
    found, name = target_and_name(options.words, options.parser, needs_name=True)
    assert name is not None

    def one(client: Client) -> Any:
        region = region_named(client, name)
        return None if region is None else (region, ask(client, region))

    answers = [(each, *answer) for each, answer in ask_each(found, one) if answer is not None]
    if not answers:
        raise no_variable(name, found)
    return answers


def _heading(answers: list[Any], each: Found) -> str:
    return f"{shown(each.title)}  " if len(answers) > 1 else ""


# --- value ------------------------------------------------------------------------------------------------------------


def run_value(options: argparse.Namespace) -> int:
    """The status of `memwatch value`."""

    def ask(client: Client, region: dict[str, Any]) -> Any:
        try:
            return value_of(client, region, options.seq, options.at)
        except (Refused, Failure) as refused:
            return refused

    answers = _answers(options, ask)
    status = OK
    for each, region, value in answers:
        if isinstance(value, Failure):
            complain(str(value))
            status = PROBLEM
        elif options.json:
            value = value.tolist() if hasattr(value, "tolist") else value
            print_json({"pid": each.pid, "service": each.service, "name": region["name"], "value": value})
        elif options.raw:
            sys.stdout.flush()
            sys.stdout.buffer.write(value if isinstance(value, bytes) else str(value).encode())
        else:
            print(f"{_heading(answers, each)}{shown(str(value))}")
    return status


def add_value(commands: Any) -> None:
    """Adds `memwatch value`."""
    parser = command(
        commands,
        "value",
        run_value,
        help="print what a variable holds, or held at a time",
        description="Prints a variable's value: now, at a time, or after an event, as far back as its history goes.",
        examples=[
            ("memwatch value limit", "now, in each process that watches it"),
            ("memwatch value limit --at 10m", "ten minutes ago"),
            ("memwatch value 4711 limit --seq 42", "after event 42 of that process"),
        ],
        json_help="one object a watcher, on a line",
    )
    add_variable(parser)
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--at", type=moment, metavar="TIME", help="10m (ago; s, m, h, d), a date and time, or seconds")
    when.add_argument("--seq", type=number, metavar="N", help="after this event")
    parser.add_argument("--raw", action="store_true", help="the bytes of a variable of bytes, for a file or a pipe")


# --- blame ------------------------------------------------------------------------------------------------------------


def _runs(client: Client, region: dict[str, Any]) -> list[dict[str, Any]]:
    size = min(int(region["size"]), 64 << 10)
    runs: list[dict[str, Any]] = client.json(region_path(region, "blame"), offset=0, size=size)["runs"]
    return runs


def _blame(client: Client, region: dict[str, Any]) -> list[dict[str, Any]]:
    if region["backend"] == "external":
        last = region["last"]
        rest = {"offset": 0, "size": int(region["size"])}
        return [{**rest, "seq": None} if last is None else {**last, **rest}]
    return _runs(client, region)


def _part(region: dict[str, Any], offset: int, size: int) -> str:
    """Items where the bytes are whole ones, else bytes."""
    if not region["shape"]:
        return "all" if size == region["size"] else f"bytes {offset}-{offset + size - 1}"
    layout = layout_of(region)
    first, last = offset // layout.item_bytes, (offset + size - 1) // layout.item_bytes
    texts = [", ".join(map(str, layout.index(at))) for at in (first, last)]
    return f"[{texts[0]}]" if first == last else f"[{texts[0]}] to [{texts[1]}]"


def run_blame(options: argparse.Namespace) -> int:
    """The status of `memwatch blame`."""
    answers = _answers(options, _blame)
    for each, region, runs in answers:
        rows = []
        for part in runs:
            if options.json:
                print_json({"pid": each.pid, "service": each.service, "name": region["name"], **part})
            if part["seq"] is None:
                rows.append([_part(region, part["offset"], part["size"]), "", "", "not changed since it is watched"])
                continue
            where = event_of({**_NOTHING, **part, "name": "", "size": part["size"], "shape": []}).where
            when = stamp(int(part["time_ns"]))
            rows.append([_part(region, part["offset"], part["size"]), part["seq"], when, writer_text(where)])
        if not options.json:
            if len(answers) > 1:
                print(shown(each.title))
            print("\n".join(table(("PART", "EVENT", "TIME", "WRITER"), rows, right=(1,))))
    return OK


_NOTHING: dict[str, Any] = {
    "region_id": 0,
    "kind": "change",
    "backend": "",
    "values": "full",
    "changes": [],
    "changed_bytes": 0,
    "merged": 0,
}


def add_blame(commands: Any) -> None:
    """Adds `memwatch blame`."""
    parser = command(
        commands,
        "blame",
        run_blame,
        help="say who last changed each part of a variable",
        examples=[
            ("memwatch blame weights", "each element's last writer"),
            ("memwatch blame 4711 config --json", "of one process, for a program"),
        ],
        json_help="one object a part, on a line",
    )
    add_variable(parser)


# --- show -------------------------------------------------------------------------------------------------------------


def last_value(region: dict[str, Any]) -> str:
    """What a variable's last event says that it holds, as far as it fits into a column."""
    last = region["last"]
    if region.get("value") is not None:
        return _short(region["value"])
    if region["values"] in ("hash", "none"):
        return f"({region['values']})"
    new = None if last is None else event_of(last).new
    return "" if new is None else _short(new)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _value_text(client: Client, region: dict[str, Any]) -> str:
    """What a variable holds now, as far as it fits into a column."""
    if region["values"] != "full":
        return f"({region['values']})"
    if region["size"] > WHOLE:
        return f"{region['size']} bytes"
    try:
        return _short(value_of(client, region, None, None))
    except Failure:
        return last_value(region)


def _rows(client: Client, regions: list[dict[str, Any]]) -> list[list[Any]]:
    now_ms = client.json("/api/v1/status")["now_ms"]
    rows = []
    asked = len(regions) <= ASKED
    for region in regions:
        last = region["last"]
        since = ago(region["last_time_ms"], now_ms) if region["last_seq"] else "never"
        writer = "" if last is None else writer_text(event_of(last).where)
        ledger = region["ledger"]
        value = _value_text(client, region) if asked else last_value(region)
        rows.append([region["name"], value, ledger["delivered"], since, writer])
    return rows


def _show_one(client: Client, region: dict[str, Any]) -> str:
    """All that is known of one variable, and its last events."""
    layout = f"{region['format'] or 'bytes'}{list(region['shape']) if region['shape'] else ''}, {region['size']} bytes"
    account = ", ".join(f"{key} {n}" for key, n in region["ledger"].items() if n) or "nothing yet"
    lines = [
        f"{region['name']}  {layout}, noticed by {region['backend']}, values {region['values']}",
        f"  value   {_value_text(client, region)}",
        f"  events  {account}",
    ]
    try:
        events = client.json(region_path(region, "history"), limit=10)["events"]
    except Refused:
        last = region["last"]
        events = [] if last is None else [last]
    return "\n".join([*map(shown, lines), *(f"  {event_line(event)}" for event in events)])


def run_show(options: argparse.Namespace) -> int:
    """The status of `memwatch show`."""
    found, name = target_and_name(options.words, options.parser, needs_name=False)

    def ask(client: Client) -> Any:
        regions = [region for region in client.regions() if name in (None, region["name"])]
        if options.json:
            return regions
        if name is not None:
            return [_show_one(client, region) for region in regions]
        return _rows(client, regions)

    answers = list(ask_each(found, ask))
    if name is not None and not any(rows for _, rows in answers):
        raise no_variable(name, found)
    for each, rows in answers:
        if options.json:
            for region in rows:
                print_json({"pid": each.pid, "service": each.service, **region})
            continue
        if len(found) > 1 and rows:
            print(shown(each.title))
        if name is None:
            print("\n".join(table(("NAME", "VALUE", "CHANGES", "LAST", "WRITER"), rows, right=(2,))))
        elif rows:
            print("\n".join(rows))
    return OK


def add_show(commands: Any) -> None:
    """Adds `memwatch show`."""
    parser = command(
        commands,
        "show",
        run_show,
        help="show what is watched: values, last changes, last writers",
        description="Lists the variables of a watcher; with a name, all that is known of one, with its last events.",
        examples=[
            ("memwatch show", "every variable of every watcher here"),
            ("memwatch show web", "of one service"),
            ("memwatch show 4711 config", "one variable of one process, with its last events"),
        ],
        json_help="one object a variable, on a line",
    )
    add_variable(parser, optional=True)

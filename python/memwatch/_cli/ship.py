"""`memwatch ship`: events on to an OpenTelemetry Collector, to NATS JetStream, or to a file."""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from typing import Any, Optional
from urllib.parse import unquote

import memwatch
from memwatch._cli import arguments
from memwatch._cli.find import chosen, look, no_watcher
from memwatch._cli.found import Found
from memwatch._cli.frame import Failure, command, complain
from memwatch._ship import numbers as ship_numbers
from memwatch._ship.cursors import Cursors, default_path
from memwatch._ship.ndjson import Ndjson
from memwatch._ship.numbers import Numbers
from memwatch._ship.otlp import Otlp
from memwatch._ship.shipper import Plan, Shipper
from memwatch._ship.sink import Sink

DESTINATIONS = "otlp+http://HOST:4318, otlp+https://HOST, nats://HOST:4222 or a file's path"
OTLP, NATS = ("otlp+http", "otlp+https"), ("nats", "tls", "nats+tls")
GIVE_UP_S = 60.0
SAME_S = 60.0


class Sayer:
    """Says each sentence on stderr, and the same one not again for a minute."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}
        self._mutex = threading.Lock()

    def __call__(self, sentence: str) -> None:
        now = time.monotonic()
        with self._mutex:
            self._said = {each: at for each, at in self._said.items() if now - at < SAME_S}
            if sentence in self._said:
                return
            self._said[sentence] = now
        complain(sentence)


def _headers(given: list[tuple[str, str]]) -> dict[str, str]:
    """OTEL_EXPORTER_OTLP_HEADERS, as the specification has it, and --header."""
    found: dict[str, str] = {}
    for pair in filter(None, os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "").split(",")):
        name, _, text = pair.partition("=")
        found[name.strip()] = unquote(text.strip())
    return {**found, **dict(given)}


def _header(line: str) -> tuple[str, str]:
    name, colon, text = line.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{name}: it is NAME: VALUE")  # of the value nothing is shown
    return name.strip(), text.strip()


def _destination(text: str) -> str:
    """What --to may be; checked, and as it was."""
    scheme, separator, rest = text.partition("://")
    if not text or (separator and scheme not in (*OTLP, *NATS, "file")):
        raise argparse.ArgumentTypeError(f"{text!r}: there are {DESTINATIONS}")
    if text.partition(":")[0] in (*OTLP, *NATS) and not separator:
        raise argparse.ArgumentTypeError(f"{text!r}: an address has :// behind its scheme; a file would be ./{text}")
    if scheme in OTLP:
        arguments.url(text, OTLP, "otlp+http://127.0.0.1:4318")
    elif scheme in NATS:
        for server in rest.split(","):
            arguments.url(server if "://" in server else f"{scheme}://{server}", NATS, "nats://127.0.0.1:4222")
    return text


def _sink(options: argparse.Namespace, numbers: Numbers, say: Sayer) -> Sink:
    to: str = options.to
    scheme, separator, _ = to.partition("://")
    if scheme in OTLP:
        return Otlp(to[len("otlp+") :], _headers(options.header), numbers, say, memwatch.__version__)
    if scheme in NATS:
        from memwatch._ship.nats import Nats  # here, because it takes an extra

        url = to.replace("nats+tls://", "tls://", 1)
        return Nats(url, options.subject, options.nats_creds, numbers, say)
    return Ndjson(to[len("file://") :] if separator else to, numbers, say)


def _finder(options: argparse.Namespace, say: Sayer) -> Any:
    """Looks around: for all there are, or for those that were named."""

    def find() -> list[Found]:
        seen = look(everybody=not options.mine)
        found: list[Found] = []
        for target in options.target or [None]:
            found += chosen(target, seen.found)
        for word in seen.words:
            say(word)
        return list({(each.epoch, each.address): each for each in found}.values())

    return find


def _check_targets(options: argparse.Namespace) -> None:
    """Who is named has to be there; of all there are, there may be none yet, unless it is for once."""
    seen = look(everybody=not options.mine)
    for target in options.target or [None]:
        if not chosen(target, seen.found) and (target is not None or options.once):
            raise no_watcher(target, seen.found)


def _stop_on_signals(shipper: Shipper) -> None:
    def stop(number: int, frame: Any) -> None:
        shipper.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _serve_numbers(numbers: Numbers, host: str, port: int) -> None:
    try:
        server = ship_numbers.serve(numbers, host, port)
    except OSError as error:
        raise Failure(f"--metrics {host}:{port}: {error.strerror}") from None
    complain(f"metrics at http://{host}:{server.server_address[1]}/metrics")


def run(options: argparse.Namespace) -> int:
    """The command's exit status."""
    numbers, say = Numbers(), Sayer()
    give_up_s: Optional[float] = options.give_up_after
    if give_up_s is None and options.once:
        give_up_s = GIVE_UP_S
    find = _finder(options, say)
    _check_targets(options)
    cursors = Cursors(options.state or default_path(options.to))
    try:
        sink = _sink(options, numbers, say)
        plan = Plan(sink, cursors, numbers, say, options.name, options.once, give_up_s)
        shipper = Shipper(plan, find)
        _stop_on_signals(shipper)
        if options.metrics is not None:
            _serve_numbers(numbers, *options.metrics)

        def every_round() -> None:
            if options.metrics_file:
                ship_numbers.write_file(numbers, options.metrics_file, say)

        try:
            failures = shipper.run(every_round)
        finally:
            sink.close()
    finally:
        cursors.close()
    for failure in failures:
        complain(failure)
    return 1 if failures or (options.once and numbers.value("rejected_events_total")) else 0


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parser = command(
        commands,
        "ship",
        run,
        help="deliver events to an OpenTelemetry Collector, NATS JetStream or a file",
        description="Reads the feeds of watchers with a saved cursor and delivers every event at least once. What is "
        "delivered twice after a crash has the same id. Events that left a watcher's log before they could be read "
        "come as a record of the kind gap. The watched process never waits: docs/shipping.md.",
        examples=[
            ("memwatch ship --to otlp+http://127.0.0.1:4318", "all watchers of this user, to a Collector beside them"),
            ("memwatch ship 4711 --to nats://nats:4222", "one process, to the stream that takes memwatch.events"),
            ("memwatch ship --to events.ndjson --once", "what is new since the last time, to a file, and the end"),
        ],
        statuses="Exit status: 0 ended by a signal or, with --once, all is delivered; 1 something could not be "
        "delivered; 2 the command was not understood.",
    )
    parser.add_argument(
        "target",
        nargs="*",
        type=arguments.target,
        metavar="PID|URL",
        help="process ids, addresses, services; all watchers by default",
    )
    parser.add_argument(
        "--to",
        type=_destination,
        metavar="DESTINATION",
        default=os.environ.get("MEMWATCH_SHIP_TO"),
        required="MEMWATCH_SHIP_TO" not in os.environ,
        help=f"{DESTINATIONS}; default: $MEMWATCH_SHIP_TO",
    )
    parser.add_argument("--once", action="store_true", help="deliver what there is, and end")
    parser.add_argument("--name", metavar="GLOB", action="append", default=[], help="only variables of that name")
    parser.add_argument("--state", metavar="FILE", help="where the cursors are kept; by default one for a destination")
    parser.add_argument("--mine", action="store_true", help="for root: only its own watchers, not those of all users")
    _add_destination_options(parser)


def _add_destination_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metrics", type=arguments.address, metavar="[HOST:]PORT", help="serve /metrics there; 0 takes any free port"
    )
    parser.add_argument("--metrics-file", metavar="FILE", help="write them there for a textfile collector")
    parser.add_argument(
        "--give-up-after",
        metavar="SECONDS",
        type=arguments.seconds(0, 1e9),
        help=f"of one delivery; by default never, with --once after {GIVE_UP_S:g}",
    )
    parser.add_argument(
        "--header",
        type=_header,
        metavar="'NAME: VALUE'",
        action="append",
        default=[],
        help="of OTLP requests, also from $OTEL_EXPORTER_OTLP_HEADERS",
    )
    parser.add_argument("--subject", default="memwatch.events", help="of NATS messages (%(default)s)")
    parser.add_argument("--nats-creds", metavar="FILE", help="a NATS credentials file")

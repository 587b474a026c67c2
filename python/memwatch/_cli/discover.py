"""`memwatch discover`: tells Prometheus which watchers run on this machine for this user, whatever their ports.

DESIGN  Only files of this user are believed, by root too: Prometheus may send its token where it is sent. What
tells a target from another stands in labels that begin with `__meta_`: relabelling can use them, and without it a
target has the same labels however it was found. Tokens stay here.
"""

from __future__ import annotations

import argparse
import json
import sys
from http.server import BaseHTTPRequestHandler
from typing import Any, Optional

from memwatch._cli import arguments
from memwatch._cli.find import Look, look
from memwatch._cli.found import Found
from memwatch._cli.frame import OK, Failure, command, complain
from memwatch._cli.processes import namespace
from memwatch._cli.server import Server

CLIENT_S = 5.0


def _can_be_scraped(found: Found) -> bool:
    """Whether this machine's 127.0.0.1 leads there."""
    if not found.port:
        return False
    return not found.container or namespace(found.container, "net") == namespace("self", "net")


def groups(seen: Look) -> list[dict[str, Any]]:
    """What Prometheus wants, of file_sd_configs and http_sd_configs."""
    known = {found.port: found for found in reversed(seen.found) if _can_be_scraped(found)}
    return [
        {
            "targets": [f"127.0.0.1:{port}"],
            "labels": {
                "__meta_memwatch_pid": str(found.pid or found.said["pid"]),
                "__meta_memwatch_service": found.service,
                "__meta_memwatch_worker": found.worker,
            },
        }
        for port, found in sorted(known.items())
    ]


class Targets(Server):
    """What it serves."""

    directory: Optional[str] = None


class Handler(BaseHTTPRequestHandler):
    """One request of Prometheus."""

    timeout = CLIENT_S  # of one that connects and says nothing
    server: Targets

    def do_GET(self) -> None:
        """/targets, for who names this host."""
        hosts = {f"{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        if self.headers.get_all("Host", []) not in ([host] for host in hosts):
            self.send_error(421)
            return
        if self.path != "/targets":
            self.send_error(404)
            return
        body = json.dumps(groups(look(self.server.directory, everybody=False))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Prometheus asks every few seconds: nothing to say."""


def run(options: argparse.Namespace) -> int:
    """The command's exit status."""
    if options.listen is None:
        seen = look(options.directory, everybody=False)
        for word in seen.words:
            complain(word)
        print(json.dumps(groups(seen), indent=None if options.json else 1))
        return OK
    try:
        server = Targets(("127.0.0.1", options.listen), Handler)
    except OSError as error:
        raise Failure(f"port {options.listen}: {error.strerror}") from None
    server.directory = options.directory
    with server:
        print(f"http://127.0.0.1:{server.server_port}/targets", file=sys.stderr, flush=True)
        server.serve_forever()
    return OK


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parser = command(
        commands,
        "discover",
        run,
        help="tell Prometheus which watchers run here",
        description="Prints this user's watchers in the format of file_sd_configs, or serves them for http_sd_configs, "
        "with __meta_memwatch_pid, _service and _worker for relabelling.",
        examples=[
            ("memwatch discover >watchers.json", "once, for file_sd_configs"),
            ("memwatch discover --listen 10763", "for http_sd_configs, at http://127.0.0.1:10763/targets"),
        ],
        json_help="on one line",
    )
    parser.add_argument("--listen", type=arguments.port, metavar="PORT", help="answer on this port of 127.0.0.1")
    parser.add_argument("--directory", metavar="DIR", help="look for discovery files only there")

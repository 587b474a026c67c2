"""`memwatch hub`: one port for all watchers of this user on this machine."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import ssl
from typing import Any, Optional

from memwatch._cli import arguments
from memwatch._cli.found import at_address
from memwatch._cli.frame import OK, Failure, command
from memwatch._hub.access import TOKEN, Access
from memwatch._hub.server import Hub
from memwatch._hub.workers import Workers

PORT = 10762


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _tls(options: argparse.Namespace) -> Optional[ssl.SSLContext]:
    if not options.tls_cert_file and not options.tls_key_file:
        return None
    if not options.tls_cert_file or not options.tls_key_file:
        options.parser.error("TLS needs both --tls-cert-file and --tls-key-file")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(options.tls_cert_file, options.tls_key_file)
    except OSError as error:  # ssl.SSLError is one, and neither says which file it means
        files = f"{options.tls_cert_file} and {options.tls_key_file}"
        raise Failure(f"{files} are no certificate in PEM and its key: {error.strerror or error}") from None
    return context


def _token(options: argparse.Namespace) -> tuple[str, bool]:
    """The token, and whether it was given."""
    given = os.environ.get("MEMWATCH_HUB_TOKEN", "")
    if options.token_file:
        with open(options.token_file, encoding="utf-8", errors="replace") as file:
            given = file.read().strip()
    if (given or options.token_file) and not TOKEN.fullmatch(given):
        where = f" of {options.token_file}" if options.token_file else ""
        raise Failure(f"the token{where} must be 32 to 128 characters of A-Z a-z 0-9 _ -")
    return given or secrets.token_hex(24), bool(given)


def run(options: argparse.Namespace) -> int:
    """The command's exit status."""
    tls = _tls(options)
    token, given = _token(options)
    local = _is_loopback(options.host)
    if not local and not options.insecure and not (given and tls):
        options.parser.error(
            f"others could reach {options.host}: give --token-file and the TLS files, or say --insecure"
        )
    host = "127.0.0.1" if options.host == "localhost" else options.host
    access = Access(
        f"[{host}]" if ":" in host else host,
        token=token,
        local=local,
        tls=tls is not None,
        allowed=[name.lower() for name in options.allowed_host],
        users=options.metrics_users.split(",") if options.metrics_users else [],
        need_token=options.metrics_need_token,
    )
    workers = Workers(options.directory, [at_address(url) for url in options.url])
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(Hub(workers, access), host, options, tls))
    return OK


async def _serve(hub: Hub, host: str, options: argparse.Namespace, tls: Optional[ssl.SSLContext]) -> None:
    try:
        port = await hub.start(host, options.port, tls, options.interval)
    except OSError as error:
        why = "is in use: take another with --port, or 0 for any free one" if error.errno == 98 else error.strerror
        raise Failure(f"port {options.port} of {host} {why}") from None
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await hub.workers.refresh()
    shown_host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    address = f"{'https' if tls else 'http'}://{shown_host}:{port}/"
    print(f"{len(hub.workers.workers)} workers; the page, for one browser, once: {address}#{hub.access.new_code()}")
    print(f"Prometheus: {address}metrics, or {address}sd for http_sd_configs", flush=True)
    await ended.wait()
    await hub.close()


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parser = command(
        commands,
        "hub",
        run,
        help="serve all watchers of this user as one: metrics, targets, events, a page",
        description="Serves all watchers of this user on this machine on one port. Workers of one service are told\n"
        "apart by the labels `service` and `worker`; a worker that is replaced keeps its place, and counters never\n"
        "fall. `--url` adds exporters that no discovery file names, with the token in MEMWATCH_TOKEN.",
        examples=[
            ("memwatch hub", "on 127.0.0.1:10762; prints the address of the page"),
            ("memwatch hub --port 0 --interval 0.2", "any free port; asks the workers five times a second"),
            ("memwatch hub --token-file T --host 0.0.0.0 --tls-cert-file C --tls-key-file K", "for others, too"),
        ],
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    parser.add_argument("--port", type=arguments.port, default=PORT, help="default: %(default)s; 0: any free one")
    parser.add_argument(
        "--url", type=arguments.exporter, action="append", default=[], help="an exporter beside those found"
    )
    parser.add_argument(
        "--directory", action="append", default=[], help="where discovery files are (default: this user's)"
    )
    parser.add_argument(
        "--interval", type=arguments.seconds(0.01, 3600), default=1.0, metavar="SECONDS",
        help="how often the workers are asked: what one counts after that is lost if it is killed (default: 1)",
    )  # fmt: skip
    parser.add_argument("--token-file", metavar="FILE", help="the hub's token; MEMWATCH_HUB_TOKEN; else a random one")
    parser.add_argument("--metrics-users", metavar="NAMES", help="users who may scrape values, with commas between")
    parser.add_argument("--metrics-need-token", action="store_true", help="nobody scrapes without the token")
    parser.add_argument("--allowed-host", action="append", default=[], metavar="NAME", help="one more name for us")
    parser.add_argument("--tls-cert-file", metavar="FILE", help="PEM")
    parser.add_argument("--tls-key-file", metavar="FILE", help="PEM")
    parser.add_argument("--insecure", action="store_true", help="others may reach it, without TLS or a token of yours")

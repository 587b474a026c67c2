"""`memwatch open`: the live page's address, with a one-time code."""

from __future__ import annotations

import argparse
import webbrowser
from typing import Any
from urllib.parse import urlsplit

from memwatch._cli.client import Client
from memwatch._cli.frame import OK, Failure, command, complain, print_json
from memwatch._cli.targets import add_target, ask_each, one_watcher, watchers


def page_address(client: Client) -> str:
    """It opens the page once, within an hour."""
    found = client.found
    if not found.url:
        raise Failure(f"{found.title} listens on {found.unix_socket}: no browser opens that")
    host = urlsplit(found.url).hostname or ""
    address = found.url.replace("//0.0.0.0", "//127.0.0.1").replace("//[::]", "//[::1]")
    if host not in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::") and not found.epoch:
        complain(f"{host} is another machine: the address opens the page there for whoever has it first")
    return f"{address}#{client.json('/api/v1/code')['code']}"


def run(options: argparse.Namespace) -> int:
    """The command's exit status."""
    found = watchers(options.target) if options.all else [one_watcher(options.target)]
    for each, address in ask_each(found, page_address):
        if options.json:
            print_json({"pid": each.pid, "service": each.service, "worker": each.worker, "page": address})
        elif options.browser and webbrowser.open(address):
            print(f"opened {each.address}")
        else:
            print(address)
    return OK


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parser = command(
        commands,
        "open",
        run,
        help="print or open the address of the live page, with a one-time code",
        description="Prints the address of a watcher's live page. It ends in a code that is good once, for an hour: "
        "what a browser keeps of it opens nothing later.",
        examples=[
            ("memwatch open", "of the only watcher here"),
            ("memwatch open 4711 --browser", "of that process, in the browser"),
            ("memwatch open web --all", "of each worker of a service"),
        ],
        json_help="one object a watcher, on a line",
    )
    add_target(parser)
    parser.add_argument("--browser", action="store_true", help="open it in the browser")
    parser.add_argument("--all", action="store_true", help="where several watchers are meant, of each")

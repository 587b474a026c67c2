"""Which watchers a command is about: `[PID|URL]`, a service's name, or all there are."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterator, Optional, TypeVar

from memwatch._cli import arguments
from memwatch._cli.client import Client, Gone
from memwatch._cli.find import Look, chosen, look, no_watcher
from memwatch._cli.found import Found
from memwatch._cli.frame import Failure, complain, shown

Result = TypeVar("Result")

HELP = "a process id, an address, or a service's name; all watchers of this user where it is left out"


def add_target(parser: argparse.ArgumentParser) -> None:
    """The argument [PID|URL]."""
    parser.add_argument("target", nargs="?", type=arguments.target, metavar="PID|URL", help=HELP)


def say(seen: Look) -> None:
    """What a user should know of the look around: on stderr, so that no program reads it as an answer."""
    for word in seen.words:
        complain(word)
    if seen.stale:
        files = "file of a process that has" if seen.stale == 1 else "files of processes that have"
        complain(f"{seen.stale} {files} ended passed over")


def watchers(target: Optional[str]) -> list[Found]:
    """Those that are meant, one at least."""
    seen = look()
    found = chosen(target, seen.found)
    if not found:
        say(seen)
        raise no_watcher(target, seen.found)
    return found


def one_watcher(target: Optional[str]) -> Found:
    """The one that is meant."""
    found = watchers(target)
    if len(found) > 1:
        raise Failure(f"{len(found)} watchers are there, name one: {', '.join(each.title for each in found)}")
    return found[0]


def ask_each(found: list[Found], ask: Callable[[Client], Result]) -> Iterator[tuple[Found, Result]]:
    """What each answers, all asked at once; who has ended meanwhile is left out, with a word."""

    def one(each: Found) -> Any:
        try:
            with Client(each) as client:
                return ask(client)
        except Gone as gone:
            return gone

    with ThreadPoolExecutor(max(len(found), 1)) as threads:
        for each, result in zip(found, threads.map(one, found)):
            if isinstance(result, Gone):
                complain(str(result))
            else:
                yield each, result


# --- variables --------------------------------------------------------------------------------------------------------


def add_variable(parser: argparse.ArgumentParser, optional: bool = False) -> None:
    """The arguments [PID|URL] NAME."""
    words = "[PID|URL] [NAME]" if optional else "[PID|URL] NAME"
    parser.add_argument(
        "words",
        nargs="*" if optional else "+",
        type=arguments.target,
        metavar="WORD",
        help=f"{words}: a watcher (process id, address, service) where it matters, and the variable's name",
    )
    parser.usage = f"%(prog)s [OPTION...] {words}"


def _is_target(word: str, seen: list[Found]) -> bool:
    return "://" in word or word.isdecimal() or bool(chosen(word, seen))


def target_and_name(words: list[str], parser: Any, needs_name: bool) -> tuple[list[Found], Optional[str]]:
    """The watchers and the variable that were typed, in either order."""
    if len(words) > 2:
        parser.error(f"a watcher and a variable, not {len(words)} words")
    seen = look()
    target: Optional[str] = None
    name: Optional[str] = None
    if len(words) == 2:
        target, name = words
        if _is_target(name, seen.found) and not _is_target(target, seen.found):
            target, name = name, target
    elif words and not needs_name and _is_target(words[0], seen.found):
        target = words[0]
    elif words:
        name = words[0]
    found = chosen(target, seen.found)
    if not found:
        say(seen)
        raise no_watcher(target, seen.found)
    return found, name


def region_named(client: Client, name: str) -> Optional[dict[str, Any]]:
    """What it watches under that name."""
    return next((region for region in client.regions() if region["name"] == name), None)


def no_variable(name: str, found: list[Found]) -> Failure:
    """What to say where no watcher has it."""
    names: list[str] = []
    for _, regions in ask_each(found, lambda client: [region["name"] for region in client.regions()]):
        names += [each for each in regions if each not in names]
    known = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return Failure(f"nothing is watched under the name {shown(name)}; there are: {known or 'no variables at all'}")

"""Finds the watchers that serve on this machine, and the one that is meant.

DESIGN  Containers have mounts, process ids and a network of their own. Their discovery files are found below
/proc/PID/root, their processes by NSpid, and they are asked from within their network: see `client`.
"""

from __future__ import annotations

import glob
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Optional
from urllib.parse import urlsplit

from memwatch._cli.client import Answer, knock
from memwatch._cli.found import Found, at_address, in_directory, runtime_dirs
from memwatch._cli.frame import Failure, shown
from memwatch._cli.processes import containers, inner_pid, is_there, my_uid

ASKED_AT_ONCE = 16


class Look:
    """One look around: what was found, and what was passed over and why."""

    def __init__(self) -> None:
        self.found: list[Found] = []
        self.silent: list[Found] = []
        """Their process is there, and does not answer: stopped, or in a network that cannot be entered."""
        self.stale = 0
        self.words: list[str] = []
        """What a user should know."""

    def ask(self, candidates: list[Found]) -> None:
        """Sorts the candidates by who answers."""
        with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
            for found, answer in zip(candidates, threads.map(knock, candidates)):
                if answer is Answer.ITSELF:
                    self.found.append(found)
                elif answer is Answer.NOBODY or not is_there(found.pid):
                    self.stale += 1
                else:
                    self.silent.append(found)


def _runtime_dirs_of(pid: int) -> set[str]:
    """Where exporters in a container leave their files, seen from here."""
    root = f"/proc/{pid}/root"
    found = set(glob.glob(f"{root}/tmp/memwatch-[0-9]*")) | set(glob.glob(f"{root}/run/user/*/memwatch"))
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            match = re.search(rb"(?:^|\0)XDG_RUNTIME_DIR=(/[^\0]*)", file.read())
    except OSError:
        match = None
    if match:
        found.add(f"{root}{os.fsdecode(match[1])}/memwatch")
    return found


def look(directory: Optional[str] = None, everybody: bool = True) -> Look:
    """All watchers of this user, in containers too; for root those of all users, unless it wants its own only.

    `directory`: only those whose files are there.
    """
    everybody = everybody and my_uid() == 0
    seen = Look()
    candidates: dict[str, Found] = {}

    def take(path: str, container: int = 0) -> None:
        for found in in_directory(path, container, seen.words, everybody):
            candidates.setdefault(f"{found.epoch} {found.address}", found)

    if directory is not None:
        take(directory)
    else:
        paths = runtime_dirs()
        if everybody:
            paths += sorted(glob.glob("/tmp/memwatch-[0-9]*")) + sorted(glob.glob("/run/user/*/memwatch"))
        for path in dict.fromkeys(paths):
            take(path)
        for pid in containers().values():
            for path in sorted(_runtime_dirs_of(pid)):
                take(path, pid)
    seen.ask(list(candidates.values()))
    seen.found.sort(key=lambda found: (found.service, found.worker, found.pid, found.port))
    for found in seen.silent:
        seen.words.append(f"{found.title} at {found.address} does not answer: stopped, or not to be reached from here")
    return seen


# --- which one is meant -----------------------------------------------------------------------------------------------


def at_url(url: str, seen: list[Found]) -> Found:
    """What an address means: a watcher that was found, or one elsewhere."""
    named = at_address(url)
    if urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1"):
        for found in seen:
            if found.port == named.port and not found.container:
                return found
    return named


def chosen(target: Optional[str], seen: list[Found]) -> list[Found]:
    """The watchers that a target means: a process, a service, service/worker, an address; None: all."""
    if target is None:
        return seen
    if "://" in target:
        return [at_url(target, seen)]
    if target.isdecimal():
        return [found for found in seen if found.pid == int(target) or found.said["pid"] == int(target) != found.pid]
    return [found for found in seen if target in (found.service, f"{found.service}/{found.worker}", found.title)]


def no_watcher(target: Optional[str], seen: list[Found]) -> Failure:
    """What to say where nothing was found."""
    if target is None:
        return Failure("no process of this user serves a watcher here: watcher.serve() in the program, or memwatch run")
    others = ", ".join(found.title for found in seen[:10]) or "none at all"
    why = ""
    if target.isdecimal() and os.path.exists(f"/proc/{target}"):
        why = " (that process is there, and serves none: memwatch attach, or watcher.serve() in it)"
        if inner_pid(int(target)) != int(target):
            why += "; it is in a container"
    return Failure(f"no watcher {shown(target)}{why}; there are: {others}")

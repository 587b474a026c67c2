"""Globs of names: characters are matched, not bytes, as Python's fnmatch does it."""

from __future__ import annotations

import fnmatch
import random
import subprocess

from .service import compile_program

ALPHABET = "aéz語😀"


def matches(pairs: list[tuple[bytes, bytes]]) -> list[bool]:
    program = compile_program("glob_check.c")
    lines = b"".join(pattern + b"\t" + text + b"\n" for pattern, text in pairs)
    result = subprocess.run([program], input=lines, capture_output=True, check=True)
    return [line == b"1" for line in result.stdout.splitlines()]


def test_as_fnmatch_does_it() -> None:
    source = random.Random(3)
    pieces = [
        "*",
        "?",
        *ALPHABET,
        "[é]",
        "[!é]",
        "[a-z]",
        "[à-ü]",
        "[!a語]",
        "[]a]",
        "[!]a]",
        "[語-😀]",
        "[a-]",
        "[",
        "[é",
    ]
    pairs = [
        (
            "".join(source.choices(pieces, k=source.randrange(5))),
            "".join(source.choices(ALPHABET, k=source.randrange(5))),
        )
        for _ in range(20_000)
    ]
    found = matches([(pattern.encode(), text.encode()) for pattern, text in pairs])
    wrong = [pair for pair, said in zip(pairs, found, strict=True) if said != fnmatch.fnmatchcase(pair[1], pair[0])]
    assert wrong == []
    assert 1000 < sum(found) < 19_000


def test_bytes_that_are_no_characters() -> None:
    cases = {
        (b"?", b"\xff"): True,
        (b"??", b"\xc3\xc3"): True,
        (b"[!a]", b"\xff"): True,
        (b"[\xff]", b"\xff"): True,
        (b"[\xff]", b"\xfe"): False,
        (b"*[!\xc3\xa9]", b"\xc3\xa9"): False,
        (b"a\xc3*", b"a\xc3\xa9"): True,
        (b"[\xc3-\xc5]", b"\xc3\xa9"): False,
    }
    assert matches(list(cases)) == list(cases.values())

"""How numbers are written: every double reads back as itself, in as few digits as Python's repr needs."""

from __future__ import annotations

import math
import random
import struct
import subprocess

from .service import compile_program


def written(lines: list[str]) -> list[str]:
    program = compile_program("text_check.c")
    result = subprocess.run([program], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


def bits(value: float) -> str:
    return struct.pack(">d", value).hex()


def doubles() -> list[float]:
    source = random.Random(1)
    values = [
        0.0,
        -0.0,
        1.0,
        0.1,
        2.5e-05,
        1e-05,
        0.0001,
        0.5,
        1 / 3,
        2 / 3,
        1e15,
        1e16,
        1e22,
        1e300,
        5e-324,
        2**53,
        2**53 + 2,
    ]
    values += [2.0**n for n in range(-130, 64)] + [math.nextafter(2.0**n, 0) for n in range(-60, 60)]
    values += [source.random() for _ in range(5000)] + [source.uniform(-1e6, 1e6) for _ in range(5000)]
    values += [round(source.uniform(-1e4, 1e4), source.randrange(1, 8)) for _ in range(5000)]
    values += [struct.unpack(">d", source.randbytes(8))[0] for _ in range(5000)]
    return [value for value in values if math.isfinite(value)]


def test_doubles_read_back() -> None:
    values = doubles()
    for value, text in zip(values, written([bits(value) for value in values]), strict=True):
        assert float(text) == value, (value, text)


def test_doubles_are_short() -> None:
    values = [value for value in doubles() if 1e-15 < abs(value) < 2**53]
    for value, text in zip(values, written([bits(value) for value in values]), strict=True):
        assert len(text) <= len(repr(value)), (value, text)


def test_doubles_have_the_digits_of_repr() -> None:
    """From 2^-9 up each is the nearest of the shortest, of two as near the even one."""
    source = random.Random(2)
    values = [math.ldexp(source.randrange(1 << 52, 1 << 53), -source.randrange(1, 62)) for _ in range(5000)]
    values += [math.ldexp(source.randrange(1, 1 << 20), -source.randrange(1, 30)) for _ in range(5000)]
    values += [math.nextafter(2.0**n, limit) for n in range(-9, 52) for limit in (0, math.inf)]
    values += [digits * 10.0**-n for digits in (1, 5, 9, 15, 25, 99, 123456789) for n in range(1, 12)]
    values = [value for value in values if 2**-9 <= value < 2**53 and value != int(value)]
    assert written([bits(value) for value in values]) == [repr(value) for value in values]


def test_what_is_no_number() -> None:
    assert written([bits(math.nan), bits(math.inf), bits(-math.inf)]) == ["NaN", "+Inf", "-Inf"]


def test_seconds() -> None:
    assert written(["s 0", "s 1", "s 1000000000", "s 1750000000123456789", "s 12000000340", "s 500"]) == [
        "0",
        "0.000000001",
        "1",
        "1750000000.123456789",
        "12.00000034",
        "0.0000005",
    ]

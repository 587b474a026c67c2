"""Names bound to plain data of the standard library and of NumPy: shown as they are, compared by value."""

import datetime
import decimal
import enum
import fractions
import ipaddress
import pathlib
import uuid

import pytest

from memwatch._trace.values import freeze, same_value, show

np = pytest.importorskip("numpy")


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Loud(decimal.Decimal):
    """Its code must not run."""

    def __repr__(self):
        raise AssertionError("shown by the user's code")

    def __eq__(self, other):
        raise AssertionError("compared by the user's code")

    __hash__ = None


class Zone(datetime.tzinfo):
    def __repr__(self):
        raise AssertionError("shown by the user's code")

    def utcoffset(self, moment):
        raise AssertionError("compared by the user's code")


MAKERS = [
    lambda: datetime.date(2026, 11, 26),
    lambda: datetime.datetime(2026, 11, 26, 12, 30, tzinfo=datetime.UTC),
    lambda: datetime.time(12, 30),
    lambda: datetime.timedelta(seconds=90),
    lambda: decimal.Decimal("1.50"),
    lambda: np.float32(1.5),
    lambda: np.int64(7),
    lambda: np.datetime64("2026-11-26"),
    lambda: np.bool_(True),
]
SHOWN = [
    lambda: fractions.Fraction(1, 3),
    lambda: uuid.UUID(int=5),
    lambda: pathlib.PurePosixPath("/etc"),
    lambda: ipaddress.ip_address("127.0.0.1"),
]


@pytest.mark.parametrize("make", MAKERS + SHOWN)
def test_shown_as_it_is(make):
    assert show(make()) == repr(make())


@pytest.mark.parametrize("make", MAKERS)
def test_the_same_again_is_no_change(make):
    assert same_value(make(), make())


@pytest.mark.parametrize("make", MAKERS)
def test_it_is_no_object_with_attributes(make):
    """As a class in C looks that is a heap type, which Decimal is from Python 3.13 on."""
    assert freeze(make()) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (decimal.Decimal("1.5"), decimal.Decimal("1.6")),
        (np.float32(1), np.float64(1)),
        (datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1)),
        (decimal.Decimal("sNaN"), decimal.Decimal("sNaN")),
    ],
)
def test_another_value_or_another_class_is_one(old, new):
    assert not same_value(old, new)


@pytest.mark.parametrize("value", [Loud(1), datetime.datetime(2026, 1, 1, tzinfo=Zone()), np.void(b"ab")])
def test_what_may_run_the_users_code_is_an_object(value):
    kind = type(value)
    assert show(value).startswith("<")
    assert "object at" in show(value)
    assert not same_value(
        value, kind(2) if kind is Loud else value.replace(year=2027) if kind is datetime.datetime else 0
    )


def test_behind_a_name(watched, recorder):
    class Settings:
        """Its attributes are watched."""

    settings = Settings()
    settings.color, settings.price = Color.RED, decimal.Decimal("1.5")
    for name in ("color", "price"):
        watched.watch_attr(settings, name, alias=name, callback=recorder)
    settings.color = Color.BLUE
    settings.price = decimal.Decimal("1.5")
    settings.price = decimal.Decimal("2.5")
    assert watched.flush()
    texts = [str(event) for event in recorder]
    assert [text.partition(", by")[0].partition(" ")[2].partition(" ")[2] for text in texts] == [
        "color: Color.RED -> Color.BLUE",
        "price: Decimal('1.5') -> Decimal('2.5')",
    ], texts

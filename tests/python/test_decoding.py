"""How bytes read: the same whatever said it, a ctypes class, a dtype or a format's text; and no pointer is followed."""

import array
import ctypes
import datetime
import math
import subprocess
import sys

import pytest

from memwatch import open_history
from memwatch._decode import Layout, read_shown
from memwatch._form import Address, Record, of_dtype
from memwatch._form_ctypes import of_ctypes
from memwatch._form_text import of_text

np = pytest.importorskip("numpy")

ADDRESS = 0x10  # no page is there: who follows it dies


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_double))


class Either(ctypes.Union):
    _fields_ = (("whole", ctypes.c_uint32), ("real", ctypes.c_float), ("bytes", ctypes.c_ubyte * 4))


class Flags(ctypes.Structure):
    _fields_ = (
        ("low", ctypes.c_uint, 3),
        ("signed", ctypes.c_int, 5),
        ("wide", ctypes.c_uint, 24),
        ("last", ctypes.c_int),
    )


class Big(ctypes.BigEndianStructure):
    _fields_ = (("n", ctypes.c_int), ("d", ctypes.c_double), ("a", ctypes.c_int, 3), ("b", ctypes.c_int, 7))


class Base(ctypes.Structure):
    _fields_ = (("first", ctypes.c_short),)


class Derived(Base):
    _fields_ = (("second", ctypes.c_longlong),)


class Anonymous(ctypes.Structure):
    _anonymous_ = ("either",)
    _fields_ = (("n", ctypes.c_int), ("either", Either))


class Packed(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("c", ctypes.c_char), ("n", ctypes.c_int))


class Pointers(ctypes.Structure):
    _fields_ = (
        ("text", ctypes.c_char_p),
        ("wide", ctypes.c_wchar_p),
        ("any", ctypes.c_void_p),
        ("object", ctypes.py_object),
        ("points", ctypes.POINTER(Point)),
        ("call", ctypes.CFUNCTYPE(ctypes.c_int)),
        ("row", ctypes.c_char_p * 2),
    )


def plain(value):
    """A ctypes value as decoding shows it."""
    if isinstance(value, (ctypes.Structure, ctypes.Union)):
        names = [field[0] for base in reversed(type(value).__mro__) for field in vars(base).get("_fields_", ())]
        return tuple(plain(getattr(value, name)) for name in names)
    return [plain(each) for each in value] if isinstance(value, ctypes.Array) else value


def ctypes_values():
    anonymous = Anonymous(7)
    anonymous.whole = 0x40490FDB
    return [
        Point(1, 2.5),
        Either(0x40490FDB),
        Flags(5, -3, 99999, -1),
        Big(1, 2.5, -2, 33),
        Derived(-7, 1 << 40),
        anonymous,
        Packed(b"a", 3),
        (Point * 2)(Point(1, 2.0), Point(3, 4.0)),
        ((ctypes.c_short * 3) * 2)((1, 2, 3), (4, 5, 6)),
        ctypes.c_bool(True),
        ctypes.c_long(-5),
        ctypes.c_longdouble(2.5),
        ctypes.c_wchar("ß"),
        ctypes.c_int.__ctype_be__(77),
    ]


@pytest.mark.parametrize("value", ctypes_values(), ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("by_text", [False, True])
def test_ctypes_values(value, by_text):
    form = of_ctypes(type(value))
    if by_text:
        form = of_text(form.text(), form.size)
    shown = plain(value.value if isinstance(value, ctypes._SimpleCData) else value)
    assert unrecorded(form.value(bytes(value))) == shown


def unrecorded(value):
    if isinstance(value, Record):
        return tuple(map(unrecorded, value))
    return [unrecorded(each) for each in value] if isinstance(value, list) else value


DTYPES = ["?", "<i2", ">u4", "<f2", ">f8", "<c8", ">c16", "S5", "<U3", ">U3", "<M8[ms]", "<m8[25us]", "g"]
STRUCTURED = [
    [("id", "i4"), ("pos", "f4", (2,))],
    [("at", [("y", ">f4"), ("z", "i2")]), ("name", "U4"), ("when", "M8[D]")],
    {"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [4, 4], "itemsize": 16},
]


@pytest.mark.parametrize("dtype", DTYPES + STRUCTURED, ids=str)
@pytest.mark.parametrize("by_text", [False, True])
def test_numpy_values(dtype, by_text):
    values = np.frombuffer(np.random.default_rng(1).integers(48, 58, 5 * np.dtype(dtype).itemsize, "u1"), "u1")
    values = values.copy()
    if dtype == "g":
        values = np.array([0.1, 2.5], dtype).view("u1")
    elif np.dtype(dtype).kind == "U":
        values = np.array(["ab", "ß", "", "xyz", "a\0b"], dtype).view("u1")
    elif dtype == STRUCTURED[1]:
        values = np.array([((1.5, 2), "ab", "2020-02-02")] * 5, dtype).view("u1")
    values = values.view(dtype)
    form = of_dtype(values.dtype)
    if by_text:
        form = of_text(form.text(), form.size)
    data = values.tobytes()
    for at, value in zip(range(0, len(data), form.size), values):
        decoded = unrecorded(form.value(data[at : at + form.size]))
        expected = value.item() if values.dtype.kind not in "MmVf" else value
        if values.dtype.names:
            assert [as_list(each) for each in decoded] == [as_list(value[name]) for name in values.dtype.names]
        else:
            assert decoded == expected
    array_again = Layout(form.text(), form.size, values.shape).array(values.tobytes(), np)
    assert array_again.tobytes() == values.tobytes()
    if not values.dtype.names:
        assert array_again.dtype == values.dtype


def as_list(value):
    value = value.tolist() if isinstance(value, np.ndarray) else value
    return list(value.item() if isinstance(value, np.void) else value) if isinstance(value, (tuple, np.void)) else value


def test_code_points_that_are_none():
    data = np.array([0x41, 0x110000, 0xD800, 0], "<u4").tobytes()
    assert of_dtype(np.dtype("<U4")).value(data) == "A\N{REPLACEMENT CHARACTER}\ud800"


@pytest.mark.parametrize(
    ("text", "size", "value"),
    [
        ("T{i:id:(2)f:pos:}", 12, (0, [0.0, 0.0])),  # as NumPy writes it
        ("T{b:a:i:b:}", 8, (0, 0)),  # native: aligned
        ("T{<b:a:<i:b:}", 5, (0, 0)),
        ("T{b:a:3xi:b:}", 8, (0, 0)),
        ("T{&<i:p:X{}:f:}", 16, (0, 0)),
        ("T{T{<h:x:}:in:<h:y:}", 4, ((0,), 0)),
        ("2h", 4, [0, 0]),
        ("hi", 8, (0, 0)),
        ("5s", 5, b""),
        ("O", 8, 0),
        ("l", 8, 0),
        ("Zd", 16, 0j),
    ],
)
def test_formats(text, size, value):
    assert unrecorded(of_text(text, size).value(bytes(size))) == value


@pytest.mark.parametrize(
    ("text", "size"), [("T{i:id", 4), ("T{", 1), ("@@", 3), ("y", 4), ("i", 3), ("T{i:x:}", 2), ("(", 1)]
)
def test_a_format_that_is_none_leaves_the_bytes(text, size):
    assert Layout(text, size).is_bytes


def test_nested_too_deep_leaves_the_bytes():
    assert Layout("T{" * 5000 + "i" + "}" * 5000, 4).is_bytes


@pytest.mark.parametrize(
    "kind",
    [
        "ctypes.c_char_p",
        "ctypes.c_wchar_p",
        "ctypes.py_object",
        "ctypes.POINTER(ctypes.c_int)",
        "ctypes.CFUNCTYPE(None)",
        "ctypes.c_char_p * 3",
        "ctypes.py_object * 2",
        "(ctypes.POINTER(Inner) * 2) * 2",
        "Inner",
        "Inner * 3",
        "Outer",
        "Joined",
    ],
)
def test_pointers_of_ctypes_are_not_followed(kind):
    code = f"""
import ctypes, memwatch
class Inner(ctypes.Structure):
    _fields_ = [("n", ctypes.c_int), ("name", ctypes.c_char_p), ("it", ctypes.py_object), ("f", ctypes.CFUNCTYPE(None))]
class Outer(Inner):
    _fields_ = [("inner", Inner), ("rows", Inner * 2), ("link", ctypes.POINTER(Inner)), ("wide", ctypes.c_wchar_p)]
class Joined(ctypes.Union):
    _fields_ = [("outer", Outer), ("name", ctypes.c_char_p), ("number", ctypes.c_size_t)]
it = ({kind})()
ctypes.memset(ctypes.addressof(it), 0x10, ctypes.sizeof(it))
watcher = memwatch.MemoryWatcher()
seen = []
watcher.set_callback(lambda event: seen.append((repr(event), repr(event.elements), repr(event.old), repr(event.new))))
watcher.watch(it, "it")
stream = watcher.events(since=0, timeout=0)
ctypes.memset(ctypes.addressof(it), 0x11, ctypes.sizeof(it))
assert watcher.flush()
assert seen and "address 0x1010101010101010" in "".join(seen[0]), seen
event = next(stream)
assert (repr(event), repr(event.elements), repr(event.old), repr(event.new)) == seen[0]
assert [repr(event.new) for event in watcher.history("it")] == [seen[0][3]]
watcher.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_pointers_are_addresses(watched, recorder):
    pointers = Pointers()
    watched.watch(pointers, "it")
    pointers.any = ADDRESS
    ctypes.memset(ctypes.addressof(pointers) + Pointers.row.offset, 1, 8)
    assert watched.flush()
    elements = {element.index: element.new for event in recorder for element in event.elements}
    assert elements[("any",)] == ADDRESS and type(elements[("any",)]) is Address
    assert elements[("row",)] == [0x0101010101010101, 0]
    assert all(type(value) is Address for value in elements[("row",)])


@pytest.mark.parametrize(
    ("make", "change", "elements"),
    [
        (lambda: (Point * 3)(), lambda it: setattr(it[1], "y", 4.5), [((1, "y"), 0.0, 4.5)]),
        (lambda: ((Point * 3) * 2)(), lambda it: setattr(it[1][2], "x", 4), [((1, 2, "x"), 0, 4)]),
        (lambda: Flags(1, 2), lambda it: setattr(it, "signed", -3), [(("signed",), 2, -3)]),
        (lambda: Big(1), lambda it: setattr(it, "n", 2), [(("n",), 1, 2)]),
        (lambda: Big(a=1, b=2), lambda it: setattr(it, "b", -9), [(("b",), 2, -9)]),
        (lambda: Derived(1, 2), lambda it: setattr(it, "first", 3), [(("first",), 1, 3)]),
        (
            lambda: Anonymous(1),
            lambda it: setattr(it, "whole", 0x3F800000),
            [
                (("either", "whole"), 0, 0x3F800000),
                (("either", "real"), 0.0, 1.0),
                (("either", "bytes"), [0, 0, 0, 0], [0, 0, 128, 63]),
            ],
        ),
        (lambda: np.zeros(3, "M8[D]"), lambda it: it.__setitem__(1, "2020-01-02"), None),
        (lambda: np.zeros(2, "c16"), lambda it: it.__setitem__(1, 1j), [((1,), 0j, 1j)]),
        (lambda: np.array(["ab", "cd"]), lambda it: it.__setitem__(0, "zz"), [((0,), "ab", "zz")]),
        (
            lambda: np.zeros(2, [("id", "i4"), ("rows", [("x", "f4")], (2,))]),
            lambda it: it["rows"]["x"].__setitem__((1, 1), 2.5),
            [((1, "rows", 1, "x"), 0.0, 2.5)],
        ),
        (lambda: array.array("u", "hello"), lambda it: it.__setitem__(1, "E"), [((1,), "e", "E")]),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_elements_read_alike_live_and_recorded(make, change, elements, tmp_path):
    from memwatch import MemoryWatcher

    it, seen = make(), []
    path = tmp_path / "it.memwatch"
    with MemoryWatcher(history_path=path) as watcher:
        watcher.set_callback(seen.append)
        watcher.watch(it, "it")
        change(it)
        assert watcher.flush()
        live = seen[0].elements
        assert watcher.history("it")[0].elements == live
    if elements is not None:
        assert live == elements
    assert len(live) >= 1
    with open_history(path) as history:
        (event,) = history.events()
        assert event.elements == live
        assert repr(event) == repr(seen[0])
        assert not isinstance(history.value_at("it", seq=event.seq), bytes)


def test_text_arrays(watched, recorder):
    letters = ctypes.create_string_buffer(b"first", 8)
    wide = ctypes.create_unicode_buffer("first", 8)
    watched.watch(letters, "letters")
    watched.watch(wide, "wide")
    letters.value = b"later"
    wide.value = "later"
    assert watched.flush()
    new = {event.variable_name: event.new for event in recorder}
    assert new == {"letters": b"later", "wide": "later"}


def test_dates(watched, recorder):
    dates = np.zeros(3, "M8[D]")
    watched.watch(dates, "dates")
    dates[1] = "2020-01-02"
    assert watched.flush()
    assert recorder[0].elements[0].new == datetime.date(2020, 1, 2)
    assert "2020-01-02" in repr(recorder[0])


def test_records():
    record = Record({"left": 1, "index": Record({"right": 2})})
    assert (record.left, record["left"], record[0], record.right, record.index.right) == (1, 1, 1, 2, 2)
    assert tuple(record) == (1, Record({"right": 2})) and len(record) == 2
    assert record == Record({"left": 1, "index": Record({"right": 2})}) and record != Record({"left": 1})
    assert repr(record) == "(left=1, index=(right=2))"
    assert "left" in dir(record)
    with pytest.raises(AttributeError, match="no member 'nothing'"):
        record.nothing  # noqa: B018
    import copy
    import pickle

    assert pickle.loads(pickle.dumps(record)) == record == copy.deepcopy(record)


def test_a_nan_is_decoded_once(watched, recorder):
    points = (Point * 2)()
    watched.watch(points, "points")
    points[0].y = math.nan
    assert watched.flush()
    assert math.isnan(recorder[0].elements[0].new)


@pytest.mark.parametrize(
    "value",
    [
        [math.nan, -math.inf, (1, {2: math.inf})],
        complex(-0.0, -2),
        complex(0.0, -2),
        [complex(1, math.inf), complex(-math.inf, math.nan)],
        [set(), {1}, -0.0, -5, "nan", b"inf", None, True],
    ],
)
def test_shown_values_are_values_again(value):
    assert repr(read_shown(repr(value).encode())) == repr(value)


@pytest.mark.parametrize("text", ["[[[[...]]]]", "{'a': ...}", "[Ellipsis]", "[1, 2", "-nothing", "<it>"])
def test_what_was_not_shown_whole_stays_text(text):
    assert read_shown(text.encode()) == text


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_views_read_by_their_indices(order, watched, recorder):
    numbers = np.arange(24.0).reshape(2, 3, 4).copy(order=order)
    view = memoryview(numbers)
    watched.watch(view, "it")
    before = view.tolist()
    numbers[1, 2, 0] = -1
    assert watched.flush()
    assert (recorder[0].old, recorder[0].new) == (before, view.tolist())
    assert recorder[0].elements == [((1, 2, 0), 20.0, -1.0)]


def test_long_complex_numbers_keep_their_precision(watched, recorder):
    numbers = np.array([1, 2], np.clongdouble)
    watched.watch(numbers, "it")
    numbers[1] = new = np.clongdouble(1) / 3 + 1j * np.longdouble("1e4000")
    assert watched.flush()
    assert recorder[0].elements == [((1,), np.clongdouble(2), new)]

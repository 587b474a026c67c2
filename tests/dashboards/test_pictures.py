"""The pictures are drawn from what Prometheus answers, and say that they are."""

import math
import time

import pytest
from pictures import DRAW, FOOT, Source, picture, save, sections, spoken, table_rows
from PIL import Image
from queries import dashboards, panels

BOARDS = dashboards()


@pytest.fixture
def source(world):
    end = time.time()
    return Source(world.prometheus, end - 60, end, {"variable": "weights"})


def test_every_kind_of_panel_can_be_drawn():
    assert {panel["type"] for board in BOARDS.values() for panel in panels(board)} == set(DRAW)


@pytest.mark.parametrize(("name", "n"), [("overview", 1), ("overview", 3), ("variable", 2)])
def test_a_section_becomes_a_small_labelled_picture(source, tmp_path, name, n):
    title, section = sections(BOARDS[name])[n]
    figure = picture(title, section, source)
    assert FOOT in [text.get_text() for text in figure.texts]
    save(figure, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        assert image.width > 1000
        assert len(image.getcolors()) > 10
    assert (tmp_path / "picture.png").stat().st_size < 100_000


def test_a_table_joins_the_answers_by_their_labels(world, source):
    panel = next(
        panel for panel in panels(BOARDS["fleet"]) if panel["title"] == "Processes" and panel["type"] == "table"
    )
    head, lines = table_rows(panel, source)
    assert head[:6] == ["instance", "job", "service", "worker", "Up", "Variables"]
    assert {line[0]: line[4] for line in lines} == {world.demo: "yes", world.busy: "yes"}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1536, "bytes", "1.5 KiB"),
        (0.25, "percentunit", "25 %"),
        (0.0051, "s", "5.1 ms"),
        (180, "s", "3 min"),
        (1200, "cps", "1.2 K/s"),
        (1, "bool_yes_no", "yes"),
        (math.nan, "short", "NaN"),
        (0, "dateTimeAsIso", "1970-01-01 00:00:00"),
        (7, "none", "7"),
    ],
)
def test_values_are_spoken_in_their_units(value, unit, text):
    assert spoken(value, unit) == text

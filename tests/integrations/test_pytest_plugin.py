"""The pytest plugin, by pytest's own tester: which test changed this."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]

SETTINGS = """
import array
LIMITS = {"rate": 100}
TABLE = bytearray(64)
class Inner:
    names = ["a"]
NUMBER = 1
"""
TESTS = """
import pytest, settings

@pytest.fixture(scope="module")
def shared():
    return {"users": [1]}

@pytest.fixture(scope="session")
def buffer():
    import memwatch
    return memwatch.buffer(64)

@pytest.fixture
def own():
    return []

@pytest.mark.unchanged("settings.LIMITS")
def test_changes_a_dict():
    settings.LIMITS["rate"] = 5

@pytest.mark.unchanged("settings.LIMITS", "settings.TABLE", "settings.Inner.names")
def test_changes_nothing(shared, buffer, own):
    own.append(1)
    settings.NUMBER = 2

@pytest.mark.unchanged("settings.TABLE")
def test_changes_memory():
    settings.TABLE[3] = 7

@pytest.mark.unchanged("settings.NUMBER")
def test_binds_another():
    settings.NUMBER = 3

@pytest.mark.unchanged("settings.NOTHING")
def test_names_nothing():
    pass

def test_spoils_the_fixture(shared):
    shared["users"].append(2)

def test_spoils_the_buffer(buffer):
    buffer[5] = 9

def test_reads(shared, buffer):
    assert shared and buffer
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(settings=SETTINGS, test_it=TESTS)
    pytester.makeconftest("")
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Where memwatch is installed pytest finds the plugin by itself."""
    if any(each.name == "memwatch" for each in entry_points(group="pytest11")):
        return project.runpytest_subprocess("-p", "no:cacheprovider", *arguments)
    return project.runpytest_subprocess(
        "-p", "no:cacheprovider", "-p", "memwatch.integrations.pytest_plugin", *arguments
    )


def test_without_the_option_nothing_happens(project: pytest.Pytester) -> None:
    result = run(project, "--strict-markers")
    result.assert_outcomes(passed=8)
    assert "memwatch: shared" not in result.stdout.str()


def test_with_it_each_change_has_its_test(project: pytest.Pytester) -> None:
    result = run(project, "--memwatch")
    result.assert_outcomes(passed=4, failed=4)
    text = result.stdout.str()
    assert "settings.LIMITS: {'rate': 100} -> {'rate': 5}" in text
    assert "settings.TABLE: " in text and "by test_changes_memory (test_it.py:" in text
    assert "settings.NUMBER: bound to another value, 2 -> 3" in text
    assert "unchanged('settings.NOTHING')" in text
    assert "fixture 'shared' changed by test_it.py::test_spoils_the_fixture" in text
    assert "fixture 'buffer' changed by test_it.py::test_spoils_the_buffer" in text
    assert "by test_spoils_the_buffer (test_it.py:" in text
    assert "changed by test_it.py::test_reads" not in text and "fixture 'own'" not in text


def test_with_xdist(project: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    text = run(project, "--memwatch", "-n", "2").stdout.str()
    assert "fixture 'shared' changed by test_it.py::test_spoils_the_fixture" in text


def test_a_failure_of_the_test_itself_stays(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        settings=SETTINGS,
        test_it="""
import pytest, settings
@pytest.mark.unchanged("settings.LIMITS")
def test_fails():
    settings.LIMITS["rate"] = 5
    assert 1 == 2
""",
    )
    result = run(pytester, "--memwatch")
    result.assert_outcomes(failed=1)
    assert "assert 1 == 2" in result.stdout.str()

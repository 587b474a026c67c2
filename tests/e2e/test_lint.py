"""The checks of our own that `make lint` runs find what they are for."""

import sys

from .conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import lint_layers
import lint_sources


def test_circles_are_found_and_chains_are_none() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set()}
    assert lint_layers.circles(graph) == [["a", "b", "c"]]
    assert lint_layers.circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_calls_and_includes_are_seen() -> None:
    graph = lint_layers.c_graph("native/src")
    assert {"native/src/worker/emit", "native/src/edge"} <= graph["native/src/watch"]
    assert "native/src/worker/sink" in graph["native/src/memwatch"], "called, and included by engine.h only"
    assert lint_layers.python_graph()["memwatch._emit"]


def test_a_layer_that_sees_too_much_is_a_complaint() -> None:
    graph = {"native/src/base/ring": {"native/src/worker/emit"}, "native/src/worker/emit": {"native/src/base/ring"}}
    assert len(lint_layers.layer_complaints(graph)) == 1


def test_keywords_of_other_languages_are_found_in_code_only() -> None:
    assert lint_sources.keywords('int new = 1; /* a new one */ const char *public = "class";') == [
        "1: new",
        "1: public",
    ]
    assert lint_sources.keywords('#ifdef __cplusplus\nextern "C" {\n#endif\nint news;') == []

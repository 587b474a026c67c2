"""The dashboards are what their code makes, fit the builder's types, and keep the rules of Grafana's linter."""

import copy
import enum
import re
import subprocess
import sys
import typing

import pytest
from build import differing
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import bargauge, heatmap, prometheus, stat, table, text, timeseries, units
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel
from queries import HERE as DASHBOARDS
from queries import asked, dashboards, fill, panels, targets

register_default_plugins()  # the builder's reader then knows the types of options and queries
BOARDS = dashboards()
OPTIONS = {
    "timeseries": timeseries.Options,
    "stat": stat.Options,
    "bargauge": bargauge.Options,
    "table": table.Options,
    "heatmap": heatmap.Options,
    "text": text.Options,
}
FIELDS = {"timeseries": timeseries.FieldConfig, "table": table.FieldConfig, "heatmap": heatmap.FieldConfig}
#: Grafana has it; the linter's list, at the commit that README.md names, does not.
UNKNOWN_TO_THE_LINTER = {"eps"}
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}


@pytest.fixture(params=BOARDS, name="board")
def _board(request):
    return BOARDS[request.param]


def test_the_committed_files_are_what_the_code_makes():
    assert differing() == []


def test_build_check_says_so():
    checked = subprocess.run(
        [sys.executable, DASHBOARDS / "build.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stdout + checked.stderr


def test_names_and_places(board):
    assert re.fullmatch(r"memwatch-[a-z]{3,30}", board["uid"])
    assert board["schemaVersion"] >= 39
    assert "__inputs" not in board
    assert "__requires" not in board
    assert board.get("id") is None
    assert board["links"], "the way to the other dashboards"
    nested = [panel for row in board["panels"] for panel in row.get("panels", [])]
    ids = [panel["id"] for panel in [*board["panels"], *nested]]
    assert len(ids) == len(set(ids))
    for together in (board["panels"], *(row.get("panels", []) for row in board["panels"])):
        taken = set()
        for panel in together:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24, panel["title"]
            cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
            assert not cells & taken, panel["title"]
            taken |= cells


def test_links_lead_to_our_dashboards(board):
    uids = {other["uid"] for other in BOARDS.values()}
    found = re.findall(r'"/d/([^?/"]+)', str(board).replace("'", '"'))
    assert set(found) <= uids


# --- the builder's types -----------------------------------------------------------------------------------------


def same(written, read):
    """Equal, but for a list without elements and no list at all, and the place in a menu that the reader makes up."""
    if isinstance(written, dict) and isinstance(read, dict):
        keys = (written.keys() | read.keys()) - {"placement"}
        return all(same(written.get(key), read.get(key)) for key in keys)
    if isinstance(written, list) and isinstance(read, list):
        return len(written) == len(read) and all(map(same, written, read))
    return written == read or (not written and not read and not isinstance(written, (bool, int)))


def test_the_builder_reads_back_what_it_wrote(board, plain_json):
    """A field that the builder's model does not know would be gone."""
    read = plain_json(Dashboard.from_json(board))
    assert same(board, read)


def conforms(value, kind, path=""):
    """Complaints about a value that is not of the type that the builder's model declares."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in (object, typing.Any) or isinstance(kind, (str, typing.ForwardRef, typing.TypeVar)):
        return []
    if origin is typing.Union:
        possible = [one for one in arguments if (one is type(None)) == (value is None)]
        exact = [one for one in possible if isinstance(one, type) and type(value) is one]
        return min((conforms(value, one, path) for one in exact or possible), key=len, default=[f"{path}: missing"])
    if origin is typing.Literal:
        return [] if value in arguments else [f"{path}: {value!r} is none of {arguments}"]
    if origin is list:
        if not isinstance(value, list):
            return [f"{path}: {value!r} is no list"]
        return [bad for n, one in enumerate(value) for bad in conforms(one, arguments[0], f"{path}[{n}]")]
    if origin is dict:
        return [] if isinstance(value, dict) else [f"{path}: {value!r} is no object"]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return [] if value in [one.value for one in kind] else [f"{path}: {value!r} is none of {list(kind)}"]
    if kind is float:
        return (
            []
            if isinstance(value, (int, float)) and not isinstance(value, bool)
            else [f"{path}: {value!r} is no number"]
        )
    if isinstance(value, dict) and hasattr(kind, "from_json"):  # the builder's reader left it as it was
        value = kind.from_json(value)
    if isinstance(value, kind):
        return [bad for name, one in members(kind) for bad in conforms(getattr(value, name), one, f"{path}.{name}")]
    return [f"{path}: {value!r} is no {kind.__name__}"]


def members(kind):
    """The fields of a model's class with their types."""
    if not hasattr(kind, "to_json"):
        return []
    return typing.get_type_hints(kind).items()


def complaints(board):
    """All that the builder's models say against a dashboard; options and queries of panels are types of their own."""
    model = Dashboard.from_json(board)
    found = conforms(model, Dashboard, board["uid"])
    for panel in [*model.panels, *(inner for row in model.panels for inner in getattr(row, "panels", None) or [])]:
        if isinstance(panel, Panel):
            found += conforms(panel.options, OPTIONS[panel.type_val], panel.title)
            if panel.field_config and panel.type_val in FIELDS:
                found += conforms(
                    panel.field_config.defaults.custom, typing.Optional[FIELDS[panel.type_val]], panel.title
                )
            for target in panel.targets or []:
                found += conforms(target, prometheus.Dataquery, panel.title)
    return found


def test_values_have_the_types_of_the_builders_models(board):
    assert complaints(board) == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda panel: panel["gridPos"].update(w="8"), "grid_pos.w"),
        (lambda panel: panel["targets"][0].update(format="tables"), "format_val"),
        (lambda panel: panel["fieldConfig"]["defaults"].update(unit=7), "unit"),
        (lambda panel: panel["options"].update(graphMode="curve"), "graph_mode"),
    ],
)
def test_a_wrong_type_is_noticed(change, place):
    board = copy.deepcopy(BOARDS["overview"])
    change(panels(board)[0])
    assert place in " ".join(complaints(board))


# --- the rules of Grafana's dashboard linter ------------------------------------------------------------------------


def variable(board, name):
    return next((one for one in board["templating"]["list"] if one["name"] == name), None)


def selectors(expr):
    """The matchers of each selector of an expression, without those that only group."""
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", expr)
    return re.findall(r"(?<![\w:$])(?:[a-z_]+:)?[A-Za-z_]+(?:_[a-z0-9]+|:[a-z0-9_]+)*\{([^}]*)\}", bare)


def metrics(expr):
    """The metrics that an expression names: names that are followed by neither ( nor a place in quotes."""
    bare = re.sub(
        r'"[^"]*"', '""', re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", expr)
    )
    bare = re.sub(r"\{[^}]*\}", "{}", re.sub(r"\[[^\]]*\]", "", bare))
    words = re.findall(r"(?<![\w:$])[A-Za-z_][\w:]*(?!\s*\()(?![\w:])", bare)
    return [word for word in words if word.lower() not in ("and", "or", "unless", "inf", "bool", "offset", "le")]


def test_one_data_source_to_choose(board):
    [source] = [one for one in board["templating"]["list"] if one["type"] == "datasource"]
    assert (source["name"], source["label"], source["query"]) == ("datasource", "Data source", "prometheus")


@pytest.mark.parametrize("name", ["job", "instance"])
def test_job_and_instance_can_be_chosen(board, name):
    one = variable(board, name)
    assert one["label"] == name.capitalize()
    assert one["type"] == "query"
    assert one["datasource"]["uid"] == "${datasource}"
    assert one["multi"]
    assert one["includeAll"]
    assert one["allValue"] == ".+"


def test_choices_are_filled_again_when_the_time_changes(board):
    for one in board["templating"]["list"]:
        if one["type"] == "query":
            assert one["refresh"] == 2, one["name"]
            assert re.fullmatch(r"label_values\([^()]+, \w+\)", one["query"]), one["name"]


def test_every_panel_and_query_uses_the_chosen_data_source(board):
    for panel, target in targets(board):
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert target["datasource"] == panel["datasource"], panel["title"]
    for note in board["annotations"]["list"]:
        assert note["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, note["name"]


def test_every_panel_has_a_title_a_description_and_queries(board):
    for panel in panels(board):
        assert panel["title"]
        assert len(panel["description"]) >= 10, panel["title"]
        assert panel["type"] == "text" or panel["targets"], panel["title"]


def test_every_panel_has_a_unit_that_grafana_knows(board):
    for panel in panels(board):
        if panel["type"] not in ("text", "heatmap"):
            found = [panel["fieldConfig"]["defaults"]["unit"]]
            overrides = panel["fieldConfig"].get("overrides", [])
            found += [one["value"] for override in overrides for one in override["properties"] if one["id"] == "unit"]
            assert set(found) <= UNITS - UNKNOWN_TO_THE_LINTER, panel["title"]


def test_every_selector_has_job_and_instance():
    for name, board in BOARDS.items():
        for query in asked(name, board):
            found = selectors(query.expr)
            assert len(found) == len(metrics(query.expr)), f"{query.where}: a metric without selectors: {query.expr}"
            for matchers in found:
                assert 'job=~"$job"' in matchers, query.where
                assert 'instance=~"$instance"' in matchers, query.where


def test_rates_are_over_the_rate_interval():
    for name, board in BOARDS.items():
        for query in asked(name, board):
            for function, interval in re.findall(r"(\w+)\([^()]*\[([^\]]+)\]", query.expr):
                allowed = (
                    {"$__rate_interval"}
                    if function in ("rate", "irate", "changes")
                    else {"$__range", "$__rate_interval"}
                )
                assert interval in allowed, query.where


def test_counters_are_in_a_rate():
    for name, board in BOARDS.items():
        for query in asked(name, board):
            bare = re.sub(r"\b(?:rate|irate|increase)\([^()]*\)", "", query.expr)
            assert not re.search(r"_total\b", bare), query.where


def test_nobody_edits_a_provisioned_dashboard(board):
    assert board["editable"] is False


def test_every_query_is_understood_by_prometheus(world):
    for name, board in BOARDS.items():
        for query in asked(name, board):
            world.prometheus.ask("query", query=fill(query.expr, variable="temperature"))


def test_no_path_of_a_machine():
    for path in DASHBOARDS.rglob("*"):
        if path.suffix in (".json", ".yml", ".yaml", ".md", ".py"):
            assert "/root" not in path.read_text(encoding="utf-8"), path


def test_the_readme_explains_every_panel_and_shows_pictures_that_exist():
    text = (DASHBOARDS / "README.md").read_text(encoding="utf-8")
    cells = {
        cell.strip() for line in re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE) for cell in (line, *line.split(", "))
    }
    for board in BOARDS.values():
        assert {panel["title"] for panel in panels(board)} <= cells, board["uid"]
    shown = set(re.findall(r"\(pictures/([\w-]+\.png)\)", text))
    assert shown == {path.name for path in (DASHBOARDS / "pictures").glob("*.png")}

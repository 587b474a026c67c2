"""promtool accepts configuration and rules, and every alert has a test in which it fires and one in which not."""

import re
import shutil
import subprocess

import pytest
import yaml
from queries import HERE as DASHBOARDS
from queries import dashboards

PROMETHEUS = DASHBOARDS / "prometheus"
UNIT_TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
SEVERITIES = {"page", "warning", "info"}


def promtool(*arguments):
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_is_valid(tmp_path):
    shutil.copytree(PROMETHEUS, tmp_path / "prometheus")
    (tmp_path / "prometheus" / "memwatch.token").write_text("the token")
    assert "SUCCESS" in promtool("check", "config", tmp_path / "prometheus" / "prometheus.yml")


def test_the_rules_are_valid():
    promtool("check", "rules", *sorted((PROMETHEUS / "rules").glob("*.yml")))


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_unit_tests_pass(path):
    promtool("test", "rules", path)


def expectations():
    """(what is asked for, whether something is expected) of every unit test."""
    for path in UNIT_TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for one in test.get("alert_rule_test", []):
                yield one["alertname"], bool(one["exp_alerts"])
            for one in test.get("promql_expr_test", []):
                yield one["expr"], bool(one["exp_samples"])


def test_every_alert_is_tested_firing_and_not_firing(rules):
    found = list(expectations())
    for rule in rules["memwatch.alerts"]:
        name = re.compile(rf"\b{rule['alert']}\b")
        seen = {fires for asked, fires in found if name.search(asked)}
        assert seen == {True, False}, rule["alert"]


def test_every_recording_rule_is_tested(rules):
    found = {asked for asked, expected in expectations() if expected}
    assert {rule["record"] for rule in rules["memwatch.recording"]} <= found


def test_a_broken_rule_does_not_pass(tmp_path):
    """promtool would notice: one limit moved, and the unit tests fail."""
    for name in ("rules", "tests"):
        (tmp_path / name).mkdir()
        for path in (PROMETHEUS / name).glob("*.yml"):
            (tmp_path / name / path.name).write_text(path.read_text().replace("> 0.8", "> 0.95"))
    with pytest.raises(AssertionError, match="MemwatchRingNearlyFull"):
        promtool("test", "rules", tmp_path / "tests" / "pressure_test.yml")


def test_every_alert_says_what_happened_and_what_to_do(rules):
    uids = {board["uid"] for board in dashboards().values()}
    for rule in rules["memwatch.alerts"]:
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "dashboard", "runbook"}, rule["alert"]
        assert rule["labels"]["severity"] in SEVERITIES
        assert re.fullmatch(r"Memwatch[A-Z]\w+", rule["alert"])
        assert len(notes["runbook"].split()) >= 20, rule["alert"]
        assert re.match(r"/d/([^?]+)", notes["dashboard"]).group(1) in uids


def test_the_readme_lists_every_alert(rules):
    """The list of README.md is the list of the rules."""
    written = (DASHBOARDS / "README.md").read_text()
    listed = set(re.findall(r"^\| `(Memwatch\w+)`", written, re.MULTILINE))
    assert listed == {rule["alert"] for rule in rules["memwatch.alerts"]}


def test_limits_of_the_scrape_are_set():
    [job] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    for limit in ("sample_limit", "target_limit", "body_size_limit", "label_limit", "label_value_length_limit"):
        assert job[limit]
    for source in ("static_configs", "file_sd_configs", "http_sd_configs"):
        assert job[source]

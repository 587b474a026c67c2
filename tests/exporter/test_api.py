"""The server against docs/openapi.yaml: requests made from it, good and bad, and answers held against it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .service import ROOT, TOKEN, Service

Start = Callable[..., Service]
schemathesis = pytest.importorskip("schemathesis")
yaml = pytest.importorskip("yaml")
jsonschema_rs = pytest.importorskip("jsonschema_rs")

DOCUMENT = yaml.safe_load((ROOT / "docs/openapi.yaml").read_text())


def validator(name: str) -> object:
    """Checks against one schema of the document, with its nullable made what JSON Schema knows."""

    def plain(node: object) -> object:
        if isinstance(node, list):
            return [plain(item) for item in node]
        if not isinstance(node, dict):
            return node
        result = {
            key: plain(value) for key, value in node.items() if key != "nullable" and (key, value) != ("format", "byte")
        }
        if node.get("nullable") and "type" in result:
            result["type"] = [result["type"], "null"]
        if node.get("nullable") and ("pattern" in result or "allOf" in result):
            result = {"anyOf": [result, {"type": "null"}]}
        return result

    schemas = plain(DOCUMENT["components"]["schemas"])
    return jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}})


def busy(service: Service) -> Service:
    """Makes one event of every kind that there is."""
    for command in (
        "temperature 36.6",
        "counter 9007199254740993",
        "weight 3 nan",
        "text Hello",
        "large 3",
        "secret 9",
        "post 3",
    ):
        service.do(command)
    service.do("many 24")
    service.do("touch 4")
    return service


def test_documents_are_as_described(service: Service) -> None:
    busy(service)
    page = service.json("/api/v1/events?limit=1000")
    validator("Page").validate(page)
    validator("Status").validate(service.json("/api/v1/status"))
    regions = service.json("/api/v1/regions?limit=1000")["regions"]
    assert len(regions) == 34
    for region in regions:
        validator("Region").validate(region)
        validator("Event").validate(page["events"][0])


def test_the_description_would_notice(service: Service) -> None:
    """The check above can fail."""
    busy(service)
    event = service.json("/api/v1/events")["events"][0]
    check = validator("Event")
    for change in ({"seq": "1"}, {"colour": 1}, {"old": 5}, {"kind": "other"}):
        with pytest.raises(jsonschema_rs.ValidationError):
            check.validate({**event, **change})


def test_every_address_is_described_and_the_other_way_round(service: Service) -> None:
    text = (ROOT / "docs/http.md").read_text()
    for path in DOCUMENT["paths"]:
        assert path.replace("{key}", "KEY").replace("{id}", "ID") in text
        if "{" not in path:
            expected = 401 if path == "/api/v1/token" else 200  # which a code alone opens
            assert service.get(path, method="HEAD")[0] == expected, path


def test_regions_come_page_by_page(service: Service) -> None:
    service.do("many 500")
    ids: list[str] = []
    following: str | None = ""
    while following is not None:
        page = service.json("/api/v1/regions?limit=97" + (f"&continue={following}" if following else ""))
        ids += [region["region_id"] for region in page["regions"]]
        following = page["next"]
        assert len(page["regions"]) <= 97
    assert len(ids) == len(set(ids)) == 510


def test_status_tells_what_is_so(service: Service) -> None:
    status = service.json("/api/v1/status")
    assert status["pid"] == service.process.pid
    assert status["regions"] == 9
    assert [backend["name"] for backend in status["backends"] if backend["chosen"]] == [status["backend"]]
    assert abs(status["now_ms"] - status["start_time_ms"]) < 60000


@pytest.mark.timeout(300)
def test_schemathesis(start: Start, tmp_path: Path) -> None:
    """Streams are left out: they do not end."""
    service = busy(start(feed_limit=100, connection_limit=200))
    document = json.loads(json.dumps(DOCUMENT))
    del document["paths"]["/api/v1/events/stream"]
    parameters = document["paths"]["/api/v1/events"]["get"]["parameters"]
    document["paths"]["/api/v1/events"]["get"]["parameters"] = [one for one in parameters if one.get("name") != "wait"]
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    checks = ",".join(
        [
            "not_a_server_error",
            "status_code_conformance",
            "content_type_conformance",
            "response_schema_conformance",
            "negative_data_rejection",
        ]
    )
    refusals = ["400", "401", "403", "404", "405", "406", "410", "413", "414", "431"]
    (tmp_path / "schemathesis.toml").write_text(f"[checks]\nnegative_data_rejection.expected-statuses = {refusals}\n")
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "--config-file",
        str(tmp_path / "schemathesis.toml"),
        "run",
        str(tmp_path / "openapi.json"),
        "--url",
        f"http://127.0.0.1:{service.port}",
        "--header",
        f"Authorization: Bearer {TOKEN}",
        "--checks",
        checks,
        "--max-examples",
        "30",
        "--seed",
        "1",
        "--no-color",
        "--phases",
        "examples,coverage,fuzzing",
    ]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    with contextlib.suppress(KeyError):
        assert service.sample('memwatch_http_requests_total{handler="events",code="500"}') == 0

"""The published description: made from the rules, and every answer fits it (P11)."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from chalicelib import errors
from chalicelib.fleet.query import PARAMETERS
from chalicelib.http import api, openapi
from chalicelib.http.formats import MEDIA_TYPES, ErrorBody
from chalicelib.simulators.fleet import Fleet
from tests.fixtures import GZ, US, App

DOCUMENT = json.loads(openapi.document())


def test_it_is_openapi_3_1() -> None:
    from openapi_spec_validator import validate

    validate(DOCUMENT)
    assert DOCUMENT["openapi"] == "3.1.0"


def test_paths_and_methods_are_the_apis() -> None:
    documented = {path: {method.upper() for method in methods} for path, methods in DOCUMENT["paths"].items()}
    assert documented == {path: set(methods) for path, methods in api.ROUTES.items() if path not in api.PAGES}


def test_parameters_are_the_querys() -> None:
    for method in ("get", "head"):
        documented = [p for p in DOCUMENT["paths"]["/twocloud/servers"][method]["parameters"] if p["in"] == "query"]
        assert [p["name"] for p in documented] == [p.name for p in PARAMETERS]
        assert [p["required"] for p in documented] == [p.required for p in PARAMETERS]


def test_every_error_is_described_under_its_status() -> None:
    statuses = {status for path in DOCUMENT["paths"].values() for operation in path.values()
                for status in operation["responses"]}
    kinds = {kind for of in openapi._ERRORS.values() for kind in of}
    for kind in kinds:
        assert str(kind.status) in statuses
    missing = {errors.TwocloudError, errors.SettingsError, errors.Conflict, errors.SnapshotReplaced,
               errors.UnknownRegion, errors.NotFound, errors.PartyError}
    everything = {kind for kind in vars(errors).values() if isinstance(kind, type)
                  and issubclass(kind, errors.TwocloudError)}
    assert ({(kind.status, kind.code) for kind in kinds}        # an unknown path is in no path's description
            == {(kind.status, kind.code) for kind in everything - missing})


def test_names_of_operations_are_one_each() -> None:
    names = [operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))
    assert all(name.isidentifier() for name in names)


def test_the_seeds_example() -> None:
    answer = DOCUMENT["paths"]["/twocloud/servers"]["get"]["responses"]["200"]["content"]["application/json"]
    assert answer["example"]["vm_servers"][0]["instance_name"] == "hehe"


def schema(name: str) -> dict:
    return {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}


def test_every_format_has_its_media_type_and_its_body_fits(served: App) -> None:
    answers = DOCUMENT["paths"]["/twocloud/servers"]["get"]["responses"]["200"]
    for written, name in (("csv", ""), ("ndjson", "FullRow"), ("prometheus", "TargetGroups"),
                          ("ansible", "AnsibleInventory")):
        answer = served.get(f"{GZ}&format={written}&view=full")
        assert answer.headers["Content-Type"] in answers["content"]
        if name == "FullRow":
            for line in answer.text.splitlines():
                jsonschema.validate(json.loads(line), schema(name))
        elif name:
            jsonschema.validate(answer.json(), schema(name))
            assert {"$ref": f"#/components/schemas/{name}"} in answers["content"]["application/json"]["schema"]["anyOf"]
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(answer.json(), schema("ListBody"))
    assert set(answers["content"]) == set(MEDIA_TYPES.values())
    assert "X-Without-Address" in answers["headers"]


def test_answers_fit_and_an_error_is_no_list(served: App) -> None:
    several = "party=all&tenant_id=123&region=gz,us-east-1"
    since = "changed_since=2026-09-21T14:00:00Z"
    for query in (several, f"{several}&view=basic&f=2&t=3", f"{several}&{since}", f"{GZ}&{since}", GZ, US,
                  f"{GZ}&view=full", f"{US}&view=full&t=3", f"{GZ}&f=99"):
        jsonschema.validate(served.get(query).json(), schema("ListBody"))
    for answer in (served.get("x=1"), served.get(GZ, token=""), served.get("party=qcloud&tenant_id=9&region=gz")):
        jsonschema.validate(answer.json(), schema("ErrorBody"))
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(answer.json(), schema("ListBody"))
    assert "vm_servers" not in ErrorBody.__struct_fields__
    for path, name in (("/twocloud/parties", "PartiesBody"), ("/twocloud/health", "HealthBody"),
                       ("/twocloud/me", "MeBody")):
        jsonschema.validate(served.get("", path=path).json(), schema(name))


CONFIG = """
generation.max-examples = {examples}
generation.allow-x00 = true
request-timeout = 30
suppress-health-check = ["all"]
hooks = "{hooks}"

[auth.openapi.basic]
username = "{token}"
password = "password"

[auth.openapi.bearer]
bearer = "{token}"

[auth.openapi.password]
username = "bob"
password = "{password}"
"""

HOOKS = '''
import re

import schemathesis

from chalicelib import parties
from chalicelib.http.openapi import _ERRORS

WORDS = {}
for kinds in _ERRORS.values():
    WORDS.setdefault(kinds[0].status, set()).update(kind.code for kind in kinds)


@schemathesis.check
def the_body_says_what_the_status_says(context, response, case):
    """One ErrorBody for all: makers of SDKs leave out errors that have a schema for each status."""
    if response.status_code >= 400 and case.method != "HEAD":
        body = response.json()
        assert body["code"] == response.status_code, body
        assert body["error"] in WORDS[response.status_code] | {"not_found"}, body


@schemathesis.hook
def before_call(context, case, kwargs):
    """What a schema cannot say: t is not before f, each party has regions of its own, changes are kept for a while,
    what goes with which format."""
    query = case.query or {}
    written = query.get("format", "json")
    for name, good in (("port", "[1-9][0-9]{0,4}"), ("address", "lan|wan"), ("f", "[1-9][0-9]{0,6}"),
                       ("t", "[1-9][0-9]{0,6}"),
                       ("changed_since", "[0-9]{4}-[0-9][0-9]-[0-9][0-9]T.*")):
        fits = {"port": written == "prometheus", "address": written == "prometheus",
                "f": written not in ("prometheus", "ansible"),
                "t": written not in ("prometheus", "ansible"), "changed_since": written == "json"}[name]
        if not fits and re.fullmatch(good, str(query.get(name, ""))):
            del query[name]
    if written != "json" and query.get("on_error") == "partial":
        query["on_error"] = "stale"
    for name in ("changed_since", "since"):
        if re.match("[0-9]{4}-[0-9][0-9]-[0-9][0-9]T", str(query.get(name, ""))):
            query[name] = "2026-09-20T00:00:00Z"
    first, last = str(query.get("f", "")), str(query.get("t", ""))
    if first.isdigit() and last.isdigit() and int(last) < int(first):
        query["f"], query["t"] = query["t"], query["f"]
    names, region = str(query.get("party", "all")).split(","), query.get("region")
    if (set(names) <= set(parties.names()) or names == ["all"]) and isinstance(region, str):
        if re.fullmatch("[A-Za-z0-9._-]{1,64}(,[A-Za-z0-9._-]{1,64})*", region):
            one = parties.load(names[0]).default_region if names != ["all"] else "gz"
            several = len(names) > 1 and "qcloud" in names
            query["region"] = f"{one},gz" if several else "all" if len(region) == 7 else one
            if query.get("on_error") == "partial" and len(names) == 1 and names != ["all"] and query["region"] == one:
                query["on_error"] = "stale"
        if re.fullmatch("[A-Za-z0-9._-]{1,64}", str(query.get("tenant_id", ""))) and len(str(query["tenant_id"])) % 3:
            query["tenant_id"] = "123"      # the one that has accounts
'''


@pytest.mark.slow
@pytest.mark.parametrize("examples", [10, pytest.param(60, marks=pytest.mark.slow)])
def test_schemathesis_finds_nothing(served: App, tmp_path: Path, examples: int) -> None:
    """All phases, authenticated: examples, edges, fuzzing, sequences."""
    password = "pw"
    served.user("bob", password=password, tenants=("123", "0"))
    wide = served.issue(served.user("eve", tenants=("*",)))
    served.clouds["qcloud"].rates.clear()                                       # type: ignore[attr-defined]
    served.clouds["aws"]._rate = None                                           # type: ignore[attr-defined]
    served.deployment.transport.pace = lambda *_: None                          # type: ignore[method-assign,assignment]
    served.clouds["qcloud"].fleets["ap-guangzhou"] = Fleet(3)                   # type: ignore[attr-defined]
    (tmp_path / "hooks.py").write_text(HOOKS)
    (tmp_path / "schemathesis.toml").write_text(CONFIG.format(
        examples=examples, token=wide, password=password, hooks=str(tmp_path / "hooks.py")))
    (tmp_path / "schemathesis.toml").rename(tmp_path / "schemathesis.secret")
    done = subprocess.run(
        [Path(sys.executable).parent / "schemathesis", "--config-file", tmp_path / "schemathesis.secret", "run",
         f"{served.url}/twocloud/openapi.json", "--phases", "examples,coverage,fuzzing,stateful", "--checks", "all",
         "--no-color", "--seed", "7", "--workers", "1"],
        capture_output=True, text=True, timeout=110, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

"""The same code as Lambda runs it: the Chalice app's route, the custom authorizer, and what packaging makes of them."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from chalice.test import Client

import app as functions
from chalicelib import settings
from chalicelib.access import tokens, users
from chalicelib.errors import SettingsError
from chalicelib.fleet import many_sources
from chalicelib.http import admission, api, authorizer
from tests import ROOT
from tests.fixtures import App, Clock, settings_in

ARN = "arn:aws:execute-api:us-east-1:123456789012:abcdef/api"
SEED = "/twocloud/servers?party=qcloud&tenant_id=123&region=gz&f=1&t=10"


@pytest.fixture
def lambda_app(app: App) -> App:
    functions.use(app.deployment)
    return app


@pytest.fixture
def client(lambda_app: App) -> Iterator[Client]:
    with Client(functions.app, project_dir=str(ROOT)) as client:
        yield client


def basic(token: str, password: str = "password") -> str:
    return "Basic " + base64.b64encode(f"{token}:{password}".encode()).decode()


def event(path: str, header: str | None, method: str = "GET", query: dict[str, list[str]] | None = None,
          stage: str = "/api", body: str | None = None) -> dict[str, Any]:
    """What API Gateway sends to a Lambda proxy integration."""
    headers = {"Authorization": header} if header else {}
    return {"resource": path, "path": path, "httpMethod": method, "headers": headers,
            "multiValueHeaders": {k: [v] for k, v in headers.items()},
            "queryStringParameters": {k: v[-1] for k, v in query.items()} if query else None,
            "multiValueQueryStringParameters": query, "pathParameters": None, "stageVariables": None, "body": body,
            "isBase64Encoded": False, "requestContext": {"resourcePath": path, "httpMethod": method, "requestId": "r-1",
                                                         "path": stage + path, "stage": "api", "identity": {}}}


class Context:
    def __init__(self, milliseconds: int = 28_000) -> None:
        self.milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds


# ---------------------------------------------------------------- through the framework's own test client

def test_the_seeds_request(client: Client, lambda_app: App) -> None:
    answer = client.http.get(SEED, headers={"Authorization": basic(lambda_app.token)})
    assert answer.status_code == 200
    assert len(answer.json_body["vm_servers"]) == 10
    assert answer.headers["X-Total-Count"] == "25"
    assert answer.headers["Content-Type"] == "application/json"
    assert isinstance(answer.body, bytes)
    assert answer.headers["X-Request-Id"]


def test_every_format_passes_the_framework(client: Client, lambda_app: App) -> None:
    for written, media in (("csv", "text/csv; charset=utf-8"), ("ndjson", "application/x-ndjson"),
                           ("prometheus", "application/json"),
                           ("ansible", "application/json")):
        answer = client.http.get(f"{SEED.partition('&f=')[0]}&format={written}",
                                 headers={"Authorization": basic(lambda_app.token)})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == media
        assert b"hehe" not in answer.body
        assert len(answer.body) > 2000


def test_head_is_bound_like_get(client: Client, lambda_app: App) -> None:
    head = client.http.request("HEAD", SEED, headers={"Authorization": basic(lambda_app.token)})
    get = client.http.get(SEED, headers={"Authorization": basic(lambda_app.token)})
    assert head.status_code == 200
    assert head.headers["ETag"] == get.headers["ETag"]


def test_other_methods_need_no_token(client: Client) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = client.http.request(method, "/twocloud/servers")
        assert (answer.status_code, answer.headers["Allow"],
                answer.json_body["error"]) == (405, "GET, HEAD", "method_not_allowed")


def test_any_content_type_on_a_get(client: Client, lambda_app: App) -> None:
    answer = client.http.get(SEED, headers={"Authorization": basic(lambda_app.token), "Content-Type": "text/weird"})
    assert answer.status_code == 200


# ---------------------------------------------------------------- events, as the gateway sends them

def test_origins_and_trusted_proxies_in_a_function(lambda_app: App) -> None:
    """The gateway names the address that came to it; whoever is not trusted writes no prefix into links."""
    chosen = settings.load({"TWOCLOUD_CORS_ORIGINS": "https://dash.example.com",
                            "TWOCLOUD_TRUSTED_PROXY": "198.51.100.0/24"})
    functions.use(msgspec.structs.replace(lambda_app.deployment, settings=msgspec.structs.replace(
        lambda_app.deployment.settings, cors_origins=chosen.cors_origins, trusted_proxies=chosen.trusted_proxies)))
    query = {"party": ["qcloud"], "tenant_id": ["123"], "region": ["gz"], "f": ["1"], "t": ["10"]}
    prefixes = {}
    for address in ("198.51.100.7", "203.0.113.9"):
        sent = event("/twocloud/servers", basic(lambda_app.token), query=query)
        sent["requestContext"]["identity"] = {"sourceIp": address}
        sent["headers"] |= {"Origin": "https://dash.example.com", "X-Forwarded-Prefix": "/inventory"}
        sent["multiValueHeaders"] |= {"Origin": ["https://dash.example.com"], "X-Forwarded-Prefix": ["/inventory"]}
        answer = functions.app(sent, Context())
        assert answer["statusCode"] == 200
        headers = answer["headers"]
        assert headers["Access-Control-Allow-Origin"] == "https://dash.example.com"
        prefixes[address] = headers["Link"].partition("?")[0]
    assert prefixes == {"198.51.100.7": "</inventory/twocloud/servers", "203.0.113.9": "</api/twocloud/servers"}
    preflight = event("/twocloud/servers", None, "OPTIONS")
    preflight["headers"] = {"Origin": "https://dash.example.com", "Access-Control-Request-Method": "GET"}
    answer = functions.app(preflight, Context())
    assert (answer["statusCode"], answer["headers"]["Access-Control-Allow-Methods"]) == (204, "GET, HEAD")


def test_repeated_parameters_are_seen(lambda_app: App) -> None:
    query = {"party": ["qcloud"], "tenant_id": ["7", "123"], "region": ["gz"]}
    answer = functions.app(event("/twocloud/servers", basic(lambda_app.token), query=query), Context())
    assert answer["statusCode"] == 400
    assert json.loads(answer["body"])["parameter"] == "tenant_id"


def test_the_stage_of_the_url_is_kept_in_links(lambda_app: App) -> None:
    query = {"party": ["qcloud"], "tenant_id": ["123"], "region": ["gz"], "t": ["5"]}
    answer = functions.app(event("/twocloud/servers", basic(lambda_app.token), query=query), Context())
    assert answer["headers"]["Link"].startswith("</api/twocloud/servers?")
    assert answer["headers"]["X-Request-Id"] == "r-1"
    for value in answer["headers"].values():
        assert isinstance(value, str)
        assert "\n" not in value


def test_the_handler_reads_the_rows_again_whatever_the_authorizer_said(lambda_app: App) -> None:
    """The gateway would still serve the cached policy; the handler decides."""
    query = {"party": ["qcloud"], "tenant_id": ["123"], "region": ["gz"]}
    sent = event("/twocloud/servers", basic(lambda_app.token), query=query)
    sent["requestContext"]["authorizer"] = {"principalId": "somebody", "blocked": "0"}
    assert functions.app(sent, Context())["statusCode"] == 200
    tokens.revoke(lambda_app.deployment.store, tokens.every(lambda_app.deployment.store)[0].token_id)
    refused = functions.app(sent, Context())
    assert refused["statusCode"] == 401
    assert json.loads(refused["body"])["error"] == "unauthorized"


def test_the_functions_own_time_is_the_deadline(lambda_app: App) -> None:
    lambda_app.clouds["qcloud"].fail("hang")
    query = {"party": ["qcloud"], "tenant_id": ["123"], "region": ["gz"]}
    answer = functions.app(event("/twocloud/servers", basic(lambda_app.token), query=query), Context(5_000))
    assert answer["statusCode"] == 504


def test_an_unfit_answer_of_a_store_is_our_fault(lambda_app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("disk on fire")

    monkeypatch.setattr(lambda_app.deployment.store, "get", broken)
    answer = functions.app(event("/twocloud/health", None), Context())
    assert answer["statusCode"] == 500
    assert "fire" not in answer["body"]


# ---------------------------------------------------------------- the authorizer

def ask(header: str, method: str = "GET", path: str = "twocloud/servers") -> dict[str, Any]:
    return authorizer.authorize({"type": "TOKEN", "authorizationToken": header, "methodArn": f"{ARN}/{method}/{path}"},
                                {})


def test_a_token_opens_every_route(lambda_app: App) -> None:
    for header in (basic(lambda_app.token), f"Bearer {lambda_app.token}"):
        answer = ask(header)
        assert answer["policyDocument"]["Statement"][0]["Resource"] == [f"{ARN}/*/*"]
        assert answer["principalId"] == tokens.every(lambda_app.deployment.store)[0].token_id
        assert answer["context"] == {}


def test_every_bad_header_raises_the_gateways_word(lambda_app: App) -> None:
    lambda_app.user("bob", password="pw")
    for header in ("", "x", "Basic !", basic("tc_wrong"), f"Bearer {lambda_app.token}x", basic("bob", "pw"),
                   basic("bob", "wrong")):
        with pytest.raises(Exception) as refused:
            ask(header)
        assert refused.value.args == ("Unauthorized",)
        assert type(refused.value) is Exception
        assert refused.value.__suppress_context__       # no token's text in the runtime's log


def test_a_password_opens_the_one_route_that_gives_tokens(lambda_app: App) -> None:
    lambda_app.user("bob", password="pw")
    answer = ask(basic("bob", "pw"), "POST", "twocloud/tokens")
    assert answer["policyDocument"]["Statement"][0]["Resource"] == [f"{ARN}/POST/twocloud/tokens"]
    for header, method in ((basic("bob", "wrong"), "POST"), (basic("bob", "pw"), "DELETE"),
                           (basic(lambda_app.token), "POST")):
        with pytest.raises(Exception, match="Unauthorized"):
            ask(header, method, "twocloud/tokens")


def test_too_many_passwords_pass_the_authorizer_to_be_told_by_the_handler(lambda_app: App) -> None:
    lambda_app.user("bob", password="pw")
    for _ in range(5):
        with pytest.raises(Exception, match="Unauthorized"):
            ask(basic("bob", "wrong"), "POST", "twocloud/tokens")
    answer = ask(basic("bob", "pw"), "POST", "twocloud/tokens")
    assert answer["context"] == {"blocked": "1"}
    assert answer["policyDocument"]["Statement"][0]["Resource"] == [f"{ARN}/POST/twocloud/tokens"]
    handled = functions.app(event("/twocloud/tokens", basic("bob", "pw"), "POST"), Context())
    assert handled["statusCode"] == 429
    assert handled["headers"]["Retry-After"]


def test_a_password_is_checked_once_for_authorizer_and_handler(lambda_app: App,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """And the handler checks it itself where the rows have changed since, or nobody has checked it."""
    store, header = lambda_app.deployment.store, basic("bob", "pw")
    lambda_app.user("bob", password="pw")
    counts: list[int] = []
    real = users._scrypt
    monkeypatch.setattr(users, "_scrypt", lambda *arguments: counts.append(1) or real(*arguments))
    sent = event("/twocloud/tokens", header, "POST")
    sent["requestContext"]["authorizer"] = ask(header, "POST", "twocloud/tokens")["context"]

    def status(**authorizer: str) -> tuple[int, int]:
        counts.clear()
        tried = {**sent, "requestContext": {**sent["requestContext"],
                                            "authorizer": {**sent["requestContext"]["authorizer"], **authorizer}}}
        return functions.app(tried, Context())["statusCode"], len(counts)

    assert counts == [1]
    assert status() == (200, 0)
    assert status(proof="") == (200, 1)
    assert status(proof="x" * 64) == (200, 1)
    other = event("/twocloud/tokens", basic("bob", "other"), "POST")
    other["requestContext"]["authorizer"] = sent["requestContext"]["authorizer"]
    assert functions.app(other, Context())["statusCode"] == 401
    for change, code in ((lambda user: users.with_password(user, users.hash_password("new"), 0), 401),
                         (lambda user: msgspec.structs.replace(user, disabled=True), 401)):
        before = users.find(store, "bob")
        users.change(store, "bob", change)
        assert status()[0] == code
        assert before
        users.change(store, "bob", lambda _, before=before: before)
    users.remove(store, "bob")
    assert status()[0] == 401


def test_another_sites_page_gets_no_token(lambda_app: App) -> None:
    lambda_app.user("bob", password="pw")
    sent = event("/twocloud/tokens", basic("bob", "pw"), "POST")
    for site, code in (("cross-site", 403), ("Cross-Site", 403), ("same-origin", 200), ("none", 200)):
        sent["headers"]["Sec-Fetch-Site"] = site
        assert functions.app(sent, Context())["statusCode"] == code


def test_the_gateways_pattern_lets_every_good_header_through() -> None:
    import re

    for header in (basic("tc_x"), "Bearer tc_x", "bearer  tc_x", "BASIC abc="):
        assert re.fullmatch(admission.HEADER_FORM, header)
    for header in ("", "Basic", "Basic ", "Digest x", "Basic a b", " Basic a"):
        assert not re.fullmatch(admission.HEADER_FORM, header)


# ---------------------------------------------------------------- start

def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TWOCLOUD_", "AWS_"))}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT,
                          env={**clean, **environment})


def test_the_authorizers_function_imports_only_what_it_needs() -> None:
    loaded = python("import sys, chalicelib.http.authorizer; print(*sys.modules)").stdout.split()
    for heavy in ("boto3", "botocore", "requests", "urllib3", "cryptography", "chalicelib.cloud.sender",
                  "chalicelib.http.api",
                  "chalicelib.parties.qcloud", "waitress", "click", "rich"):
        assert heavy not in loaded
    assert "chalicelib.access.tokens" in loaded


def test_the_api_function_does_not_load_the_command_or_the_store_it_does_not_use() -> None:
    loaded = python("import sys, app; print(*sys.modules)").stdout.split()
    for heavy in ("boto3", "botocore", "waitress", "click", "rich", "chalicelib.parties.aws", "chalicelib.cli",
                  "chalicelib.simulators"):
        assert heavy not in loaded


@pytest.mark.parametrize("environment", [
    {"TWOCLOUD_STORE": "dynamodb://twocloud", "TWOCLOUD_LOCAL": "1"}, {"TWOCLOUD_STORE": "sqlite:///x.db"}, {},
    {"TWOCLOUD_STORE": "dynamodb://twocloud", "TWOCLOUD_KEY": "file:key"}])
def test_in_lambda_bad_settings_end_in_one_clear_line(environment: dict[str, str]) -> None:
    done = python("from chalicelib import settings; settings.load()", AWS_LAMBDA_FUNCTION_NAME="f", **environment)
    assert done.returncode
    assert "SettingsError: TWOCLOUD_" in done.stderr.splitlines()[-1]


def test_every_route_is_bound_with_its_guard() -> None:
    assert set(functions.app.routes) == set(api.ROUTES)
    for path, methods in functions.app.routes.items():
        assert set(methods) == set(api.METHODS)
        for method, entry in methods.items():
            guarded = method in api.ROUTES[path] and path not in api.OPEN_ROUTES
            assert bool(entry.authorizer) == guarded, (path, method)


def test_packaging_finds_the_app_and_the_authorizer(tmp_path: Path) -> None:
    """`chalice package`'s own view of the app: an authorizer of its own module, a stated cache time, HEAD beside
    GET."""
    code = ("import json, sys; sys.path.insert(0, '.')\n"
            "from chalice.cli.factory import CLIFactory\n"
            "from chalice.deploy.swagger import TemplatedSwaggerGenerator\n"
            "a = CLIFactory('.').load_chalice_app()\n"
            "print(json.dumps({'auth': [(x.name, x.handler_string, x.ttl_seconds) for x in a.builtin_auth_handlers],"
            "'paths': {p: sorted(m) for p, m in TemplatedSwaggerGenerator().generate_swagger(a)['paths'].items()}}))")
    done = python(code, AWS_DEFAULT_REGION="us-east-1")
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    assert body["auth"] == [["authorize", "chalicelib.http.authorizer.authorize", authorizer.TTL_SECONDS]]
    assert "head" in body["paths"]["/twocloud/servers"]


def test_a_deployment_is_opened_on_first_use(tmp_path: Path, clock: Clock) -> None:
    made = many_sources.open_deployment(settings_in(tmp_path, key="file:/proc/nowhere/key"), clock)
    functions.use(made)
    answer = functions.app(event("/twocloud/health", None), Context())
    assert answer["statusCode"] == 200      # who may see what needs no key
    with pytest.raises(SettingsError):
        made.sealer()
    made.close()




KNOWN_KEYS = {"version", "app_name", "autogen_policy", "api_gateway_endpoint_type", "minimum_compression_size",
              "lambda_architecture",
              "lambda_timeout", "lambda_memory_size", "stages", "api_gateway_stage", "lambda_functions", "api_handler",
              "authorize",
              "spread", "work", "iam_policy_file", "prod"}


def test_the_packaging_settings_hold_only_keys_that_the_framework_knows() -> None:
    """Unknown ones are ignored without a word; times fit the budget of a request."""
    config = json.loads((ROOT / ".chalice/config.json").read_text())

    def keys(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, below in value.items():
                yield key
                yield from keys(below)

    assert set(keys(config)) <= KNOWN_KEYS
    assert many_sources.REQUEST_SECONDS < config["lambda_timeout"] < 29
    from chalicelib.http import serve
    assert config["minimum_compression_size"] == serve._COMPRESS_FROM


# ---------------------------------------------------------------- events that lack what the gateway usually sends

def every_null(value: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, below in value.items():
        yield (*path, key)
        if isinstance(below, dict):
            yield from every_null(below, (*path, key))


FULL = event("/twocloud/servers", "Bearer x", query={"party": ["qcloud"], "tenant_id": ["123"], "region": ["gz"]},
             body="{}")
FULL["requestContext"] |= {"identity": {"sourceIp": "203.0.113.7"}, "authorizer": {"principalId": "x"},
                           "accountId": "1", "apiId": "a"}
FULL |= {"pathParameters": {"proxy": "x"}, "stageVariables": {"name": "x"}}


@pytest.mark.parametrize("how", ["null", "missing", "text", "list"])
@pytest.mark.parametrize("path", [(), *every_null(FULL)], ids=".".join)
def test_an_event_that_lacks_a_part_gets_our_envelope(lambda_app: App, path: tuple[str, ...], how: str) -> None:
    """API Gateway's test console sends null where it usually sends objects."""
    sent: Any = json.loads(json.dumps(FULL))
    sent["headers"]["Authorization"] = sent["multiValueHeaders"]["Authorization"][0] = f"Bearer {lambda_app.token}"
    odd = {"null": None, "text": "x", "list": ["x", None]}
    if path:
        *above, last = path
        part = sent
        for key in above:
            part = part[key]
        if how == "missing":
            del part[last]
        else:
            part[last] = odd[how]
    else:
        sent = {} if how == "missing" else odd[how]
    answer = functions.app(sent, Context())
    body = json.loads(answer["body"])
    assert answer["statusCode"] == body["code"] in (200, 400, 401, 403, 404, 405)
    assert ("error" in body) == (body["code"] != 200)
    assert answer["headers"]["X-Content-Type-Options"] == "nosniff"
    assert body["code"] == 200 or body["request_id"] == answer["headers"]["X-Request-Id"]
    if path == ("headers",) and how == "null":
        assert body["code"] == 200          # the same headers stand in multiValueHeaders


# the nulls that the gateway's test console sends for what a request does not have
BARE = {"headers": None, "multiValueHeaders": None, "queryStringParameters": None,
        "multiValueQueryStringParameters": None, "pathParameters": None, "stageVariables": None, "body": None}


@pytest.mark.parametrize("route", api.ROUTES)
@pytest.mark.parametrize("identity", [{"sourceIp": "203.0.113.7"}, None], ids=["identity", "no-identity"])
def test_a_request_without_any_header_is_answered_on_every_route(lambda_app: App, route: str,
                                                                 identity: dict[str, str] | None) -> None:
    """Open routes answer, with or without their query; guarded ones say that credentials are missing."""
    for method in api.METHODS:
        sent = {**event(route, None, method), **BARE}
        sent["requestContext"]["identity"] = identity
        answer = functions.app(sent, Context())
        body, own = answer["body"], method in api.ROUTES[route]
        expected = {405} if not own else {200} if route in api.OPEN_ROUTES else {401}
        assert answer["statusCode"] in expected, (method, answer)
        assert answer["headers"]["X-Request-Id"] == "r-1"
        if answer["statusCode"] != 200 and method != "HEAD":
            assert json.loads(body)["request_id"] == "r-1"


@pytest.mark.parametrize("token", [None, "", 7])
@pytest.mark.parametrize("arn", [None, "", "x", f"{ARN}", f"{ARN}/GET", f"{ARN}/GET/", f"{ARN}/GET/twocloud/servers",
                                 f"{ARN}/POST/twocloud/tokens"])
def test_an_authorizer_without_a_token_says_the_gateways_word(lambda_app: App, token: object, arn: object) -> None:
    with pytest.raises(Exception) as refused:
        authorizer.authorize({"type": "TOKEN", "authorizationToken": token, "methodArn": arn}, {})
    assert (type(refused.value), refused.value.args) == (Exception, ("Unauthorized",))


def test_an_authorizer_opens_nothing_for_a_method_that_it_cannot_read(lambda_app: App) -> None:
    lambda_app.user("bob", password="pw")
    for arn in (None, "x", f"{ARN}/POST"):
        with pytest.raises(Exception, match=r"^Unauthorized$"):
            authorizer.authorize({"type": "TOKEN", "authorizationToken": basic("bob", "pw"), "methodArn": arn}, {})


def test_an_event_whose_body_is_no_base64_gets_our_envelope(lambda_app: App) -> None:
    sent = event("/twocloud/tokens", "Basic x", "POST", body="x")
    answer = functions.app({**sent, "isBase64Encoded": True}, Context())
    assert answer["statusCode"] == 500
    assert json.loads(answer["body"])["error"] == "internal"


def test_what_the_gateway_could_not_decode_is_refused(lambda_app: App) -> None:
    query = {"party": ["qcloud"], "tenant_id": ["123"], "region": ["gz"], "name": ["\ufffd"]}
    answer = functions.app(event("/twocloud/servers", basic(lambda_app.token), query=query), Context())
    body = json.loads(answer["body"])
    assert (body["code"], body["parameter"]) == (400, "name")
    assert "UTF-8" in body["msg"]

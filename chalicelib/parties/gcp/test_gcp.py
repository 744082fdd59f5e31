"""Google's own signer beside ours, and Google's own client (where it is installed) against the simulator."""

import base64
import json
import time
from contextlib import ExitStack
from typing import Any

import pytest
import requests
import time_machine

pytest.importorskip("google.auth")

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from google.auth import crypt, jwt
from google.oauth2 import service_account

from tests import canaries
from tests.fixtures import App
from tests.unit.test_discovery import Organisation
from tests.verified import assert_same, lister, reference

from ... import parties
from ...access import accounts
from ...errors import InvalidParameter, PartyDenied, PartyUnavailable, UnknownRegion
from ...fleet import check, many_sources
from ...fleet.many_sources import Window
from ...model import Status
from ...simulators.fleet import Fleet, seed_machine
from .. import gcp
from .simulator import EMAIL, PROJECT, Gcp, start

READ = "https://www.googleapis.com/auth/compute.readonly"
BASE = f"/compute/v1/projects/{PROJECT}"


def signer(credentials: dict[str, Any], **claims: Any) -> service_account.Credentials:
    return service_account.Credentials.from_service_account_info(
        credentials["service_account"], always_use_jwt_access=True, **{"scopes": [READ], **claims})


def token(credentials: dict[str, Any], audience: str | None = None, **more: Any) -> str:
    made = signer(credentials, **({"scopes": None} if audience else {}), **more)
    made._create_self_signed_jwt(audience)
    made._jwt_credentials.refresh(None)
    return made._jwt_credentials.token.decode() if isinstance(made._jwt_credentials.token,
                                                              bytes) else made._jwt_credentials.token


def by_hand(url: str, credentials: dict[str, Any], region: str) -> dict[str, dict[str, Any]]:
    """What the aggregated list says, opened by Google's own signer."""
    headers = {"Authorization": f"Bearer {token(credentials, 'https://compute.googleapis.com/')}"}

    def get(path: str, **parameters: str) -> Any:
        answer = requests.get(f"{url}{BASE}/{path}", params=parameters, headers=headers, timeout=9)
        answer.raise_for_status()
        return answer.json()

    types = {t["name"]: (t["guestCpus"], t["memoryMb"]) for t in get(f"zones/{region}-a/machineTypes")["items"]}
    by_id: dict[str, dict[str, Any]] = {}
    follow = ""
    while True:
        page = get("aggregated/instances", maxResults="100", **({"pageToken": follow} if follow else {}))
        by_id |= {row["id"]: reference("gcp").machine(row, types) for zone, part in page["items"].items()
                  if zone.startswith(f"zones/{region}-")
                  for row in part.get("instances", ())}
        if not (follow := page.get("nextPageToken", "")):
            return by_id


machines = lister("gcp")


@pytest.fixture
def cloud(stack: ExitStack) -> Gcp:
    simulator, credentials = start({"us-central1": Fleet(1000, first=seed_machine()), "asia-east1": Fleet(0)},
                           canaries.secret("gcp"), limited=False)
    assert isinstance(simulator, Gcp)
    simulator.credentials = credentials                   # type: ignore[attr-defined]
    canaries.watch(credentials["service_account"]["private_key"].splitlines()[9])     # type: ignore[index]
    return stack.enter_context(simulator)


def keys(cloud: Gcp) -> dict[str, Any]:
    return cloud.credentials                      # type: ignore[attr-defined]


def ours(app: App, cloud: Gcp, region: str = "us-central1", **more: Any) -> many_sources.Answer:
    if "gcp" not in app.clouds:
        app.clouds["gcp"] = cloud
        app.account("gcp", keys(cloud), cloud.url)
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "gcp", region), **more)


# ---------------------------------------------------------------- the signature

def test_googles_signer_makes_the_same_token(cloud: Gcp) -> None:
    with time_machine.travel("2026-01-02T03:04:05Z", tick=False):
        mine = gcp.sign(gcp._key({"service_account": json.dumps(keys(cloud)["service_account"])}), int(time.time()))
        assert mine == token(keys(cloud))
        public = cloud.keys[EMAIL].public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        claims = jwt.decode(mine, certs=public)
    assert claims == {"iss": EMAIL, "sub": EMAIL, "scope": READ, "iat": 1767323045, "exp": 1767326645}
    text, _, signature = mine.rpartition(".")
    assert crypt.RSAVerifier.from_string(public).verify(text.encode(), base64.urlsafe_b64decode(signature + "=="))


@pytest.mark.sample(4)
@pytest.mark.parametrize("universe", ["googleapis.com", "s3nsapis.fr", "apis-berlin-build0.goog", "apis-tpc.example"])
def test_a_key_of_another_universe(cloud: Gcp, universe: str) -> None:
    """The host is the one of Google's client, the token the one of Google's signer."""
    from google.cloud import compute_v1

    credentials = {"service_account": {**keys(cloud)["service_account"], "universe_domain": universe}}
    client = compute_v1.InstancesClient(credentials=signer(credentials), client_options={"universe_domain": universe})
    account = accounts.check("1", parties.load("gcp"), credentials, project=None, regions=(), deep=False, endpoint=None,
                             local=False)
    sent = []

    def send(operation: str, sign: Any) -> Any:
        sent.append(sign())
        raise PartyUnavailable()

    with time_machine.travel("2026-01-02T03:04:05Z", tick=False), pytest.raises(PartyUnavailable):
        parties.list_regions(account, send)
    with time_machine.travel("2026-01-02T03:04:05Z", tick=False):
        assert sent[0].headers["Authorization"] == f"Bearer {token(credentials)}"
    assert sent[0].url.startswith(f"https://{client.api_endpoint}/compute/v1/projects/")
    assert signer(credentials).universe_domain == universe


@pytest.mark.parametrize("universe", ["evil.example/", "a@b.example", "127.0.0.1", "localhost", "a.example:1", "x y.fr",
                                      "", ".example", "A.example", "a..b.example", "é.example", 7])
def test_a_universe_is_a_domain(cloud: Gcp, universe: object) -> None:
    credentials = {"service_account": {**keys(cloud)["service_account"], "universe_domain": universe}}
    with pytest.raises(InvalidParameter, match="universe_domain"):
        accounts.check("1", parties.load("gcp"), credentials, project=None, regions=(), deep=False, endpoint=None,
                       local=False)


def test_a_projects_number_is_refused_in_words(cloud: Gcp) -> None:
    with pytest.raises(InvalidParameter, match="number"):
        accounts.check("1", parties.load("gcp"), {**keys(cloud), "project_id": "123456789012"}, project=None,
                       regions=(), deep=False, endpoint=None, local=False)


def test_the_keys_own_address_is_never_asked(app: App, cloud: Gcp) -> None:
    assert keys(cloud)["service_account"]["token_uri"] == "https://evil.example/token"
    assert ours(app, cloud).total == 1000
    assert {call.method for call in cloud.calls} == {"GET"}


@pytest.mark.parametrize(("change", "status"), [
    ("signature", 401), ("claims", 401), ("header", 401), ("scheme", 401), ("old", 401), ("early", 401), ("long", 401),
    ("another key", 401), ("another scope", 401), ("another audience", 401), ("audience", 200), (None, 200)])
def test_the_simulator_refuses_a_changed_byte(cloud: Gcp, change: str | None, status: int) -> None:
    now, fields = int(time.time()), keys(cloud)
    at = {"old": now - 3601, "early": now + 400}.get(change or "", now)
    made = gcp.sign(gcp._key({"service_account": json.dumps(fields["service_account"])}), at)
    head, claims, signature = made.split(".")
    if change == "signature":
        signature = signature[:9] + ("A" if signature[9] != "A" else "B") + signature[10:]
    elif change == "claims":
        claims = base64.urlsafe_b64encode(
            base64.urlsafe_b64decode(claims + "==").replace(b"readonly", b"allall!!")).decode().rstrip("=")
    elif change == "header":
        head = base64.urlsafe_b64encode(b'{"alg": "none"}').decode().rstrip("=")
    made = f"{head}.{claims}.{signature}"
    if change in ("long", "another key"):
        pem = fields["service_account"]["private_key"] if change == "long" else _pem(
            rsa.generate_private_key(65537, 2048))
        made = jwt.encode(crypt.RSASigner.from_string(pem), {
            "iss": EMAIL, "sub": EMAIL, "iat": now, "exp": now + (7200 if change == "long" else 3600),
            "scope": READ}).decode()
    elif change == "another scope":
        made = token(fields, scopes=["https://www.googleapis.com/auth/drive"])
    elif change in ("audience", "another audience"):
        made = token(fields, "https://compute.googleapis.com/" if change == "audience"
                     else "https://drive.googleapis.com/")
    answer = requests.get(f"{cloud.url}{BASE}/regions", timeout=9, headers={
        "Authorization": f"{'Basic' if change == 'scheme' else 'Bearer'} {made}"})
    assert answer.status_code == status, answer.text


def _pem(key: Any, **how: Any) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how.get("encryption", NoEncryption())).decode()


@pytest.mark.parametrize("change", [
    {"private_key": "example"}, {"private_key": None}, {"client_email": None}, {"client_email": "a b@c"},
    {"client_email": "a@b\n"},
    {"type": "authorized_user"}, {"private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"},
    {"private_key": lambda: _pem(ec.generate_private_key(ec.SECP256R1()))},
    {"private_key": lambda: _pem(rsa.generate_private_key(65537, 2048), encryption=BestAvailableEncryption(b"x"))}])
def test_a_key_that_cannot_sign_is_not_stored(cloud: Gcp, change: dict[str, Any]) -> None:
    name, value = next(iter(change.items()))
    made = {**keys(cloud)["service_account"], name: value() if callable(value) else value}
    for key in (made, {k: v for k, v in made.items() if v is not None}):
        with pytest.raises(InvalidParameter, match="whole JSON key file") as refused:
            accounts.check("1", parties.load("gcp"), {"project_id": PROJECT, "service_account": key}, project=None,
                           regions=(), deep=False, endpoint=None, local=False)
        assert "BEGIN" not in refused.value.text
        assert EMAIL not in refused.value.text


@pytest.mark.parametrize("project", ["../x", "a/b", "UPPER-case", "short", "ends-with-", "a" * 31, "x?y=zzz", "x#yzzzz",
                                     ""])
def test_a_project_stays_inside_its_part_of_the_path(cloud: Gcp, project: str) -> None:
    with pytest.raises(InvalidParameter):
        accounts.check("1", parties.load("gcp"), {**keys(cloud), "project_id": project}, project=None, regions=(),
                       deep=False,
                       endpoint=None, local=False)


# ---------------------------------------------------------------- the same machines

def test_googles_signer_opens_the_same_list(app: App, cloud: Gcp) -> None:
    answer = ours(app, cloud)
    assert_same(answer.servers, by_hand(cloud.url, keys(cloud), "us-central1"))
    assert answer.total == 1000
    assert [(s.zone, s.name) for s in answer.servers] == sorted((s.zone, s.name) for s in answer.servers)
    assert {s.status for s in answer.servers} == {Status.ACTIVE, Status.SHUTOFF, Status.STARTING, Status.STOPPING}


def test_googles_client_and_we_list_the_same_machines(app: App, cloud: Gcp) -> None:
    pytest.importorskip("google.cloud.compute_v1")
    assert_same(ours(app, cloud).servers, machines(cloud.url, keys(cloud), "us-central1"))
    assert {"kind", "id", "items", "nextPageToken", "selfLink", "warning"} == _list_fields()


def _list_fields() -> set[str]:
    """Why `fields` may not name `unreachables`: a zone's list has none."""
    from google.cloud import compute_v1

    return {field.json_name for field in compute_v1.InstanceList.pb().DESCRIPTOR.fields}


def test_calls_of_a_list_and_of_a_window(app: App, cloud: Gcp) -> None:
    ours(app, cloud)
    assert cloud.count() == 5               # region, three zones, machine types
    cloud.forget()
    window = ours(app, cloud, window=Window(11, 20))
    assert cloud.count() == 2
    assert len(window.servers) == 10
    assert window.total is None
    cloud.forget()
    assert ours(app, cloud, "asia-east1").servers == []
    assert cloud.count() == 4


def test_the_token_is_kept_for_its_hour_and_made_again_if_refused(app: App, cloud: Gcp,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    sign = gcp.sign
    monkeypatch.setattr(gcp, "sign", lambda *arguments: made.append(arguments[1]) or sign(*arguments))
    for _ in range(3):
        ours(app, cloud, window=Window(1, 5))
    assert len(made) == 1
    with time_machine.travel(time.time() + 3600 - 59):
        ours(app, cloud, window=Window(1, 5))
    assert len(made) == 2


def test_googles_signer_finds_the_same_projects(stack: ExitStack) -> None:
    """With the scope that reads and with the audience; a token for Compute Engine opens nothing of the organisation."""
    behind = Organisation("gcp", stack, more=120)
    fields = {"service_account": json.loads(behind.account.credentials["service_account"])}
    scope = "https://www.googleapis.com/auth/cloud-platform.read-only"

    def get(opened: str, follow: str = "") -> requests.Response:
        return requests.get(f"{behind.cloud.url}/v3/projects:search", headers={"Authorization": f"Bearer {opened}"},
                            params={"pageSize": "500", "pageToken": follow}, timeout=9)

    assert get(token(fields)).status_code == get(token(fields, "https://compute.googleapis.com/")).status_code == 403
    for opened in (token(fields, scopes=[scope]), token(fields, "https://cloudresourcemanager.googleapis.com/")):
        rows: list[dict[str, str]] = []
        follow = ""
        while not rows or follow:
            page = get(opened, follow).json()
            rows, follow = rows + page["projects"], page.get("nextPageToken", "")
        assert {(member.id, member.name) for member in behind.discover()} == {
            (row["projectId"], row["displayName"]) for row in rows}
    assert len(rows) == 126
    made = signer(fields, scopes=[scope])
    now = int(time.time())
    with time_machine.travel(now, tick=False):
        made._create_self_signed_jwt(None)
        made._jwt_credentials.refresh(None)
        mine = gcp.sign(gcp._key({"service_account": json.dumps(fields["service_account"])}), now, scope)
    assert jwt.decode(mine, verify=False) == jwt.decode(made._jwt_credentials.token, verify=False)


def test_a_project_without_the_api_is_no_source(stack: ExitStack) -> None:
    behind = Organisation("gcp", stack)
    door: Any = behind.cloud
    door.without = {door.ids["empty"]}
    assert {member.name: member.closed for member in behind.discover() if member.closed} == {
        "old": "DELETE_REQUESTED", "empty": "SERVICE_DISABLED"}
    with pytest.raises(PartyDenied, match="enable the Compute Engine API"):
        behind.servers(behind.named("empty"))


def test_a_zone_that_is_down_is_no_shorter_list(app: App, cloud: Gcp) -> None:
    cloud.down = {"us-central1-b"}
    with pytest.raises(PartyUnavailable):
        ours(app, cloud)
    headers = {"Authorization": f"Bearer {token(keys(cloud))}"}
    partial = requests.get(f"{cloud.url}{BASE}/aggregated/instances?returnPartialSuccess=true", headers=headers,
                           timeout=9)
    assert partial.status_code == 200
    assert partial.json()["unreachables"]


@pytest.mark.parametrize(("path", "status"), [
    ("zones/us-central1-a/instances?maxResults=501", 400), ("zones/us-central1-a/instances?pageToken=made-up", 400),
    ("zones/us-central1-a/instances?fields=unreachables", 400), ("zones/us-central1-a/instances?fields=items(", 400),
    ("zones/us-central1-a/instances?filter=x", 400), ("zones/mars-a/instances", 400), ("regions/mars", 404),
    ("zones/us-central1-a/instances?maxResults=500&fields=kind", 200)])
def test_the_simulator_enforces_what_is_documented(cloud: Gcp, path: str, status: int) -> None:
    answer = requests.get(f"{cloud.url}{BASE}/{path}", headers={"Authorization": f"Bearer {token(keys(cloud))}"},
                          timeout=9)
    assert answer.status_code == status
    assert (status != 200 or answer.json() == {"kind": "compute#instanceList"})


def test_what_is_not_there_is_told_apart(app: App, cloud: Gcp) -> None:
    with pytest.raises(UnknownRegion):
        ours(app, cloud, "mars-west1")
    assert check.check_account(app.deployment, "123", "gcp") == "us-central1"
    with pytest.raises(UnknownRegion):
        check.check_account(app.deployment, "123", "gcp", "mars-west1")
    app.account("gcp", {**keys(cloud), "project_id": "another-project"}, cloud.url)
    with pytest.raises(PartyDenied, match="wrong project"):
        ours(app, cloud)
    app.account("gcp", {**keys(cloud), "service_account": {**keys(cloud)["service_account"],
                                                             "client_email": "a@b.example"}}, cloud.url)
    with pytest.raises(PartyDenied, match="wrong key"):
        ours(app, cloud)

"""Accounts: the form of what operators type, sealed storage, and whose keys sign whose call."""

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from chalicelib import parties
from chalicelib.access import accounts
from chalicelib.errors import AccountNotFound, Conflict, Internal, InvalidParameter
from chalicelib.fleet import many_sources
from chalicelib.fleet.many_sources import Deployment
from chalicelib.model import Account
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators.fleet import Fleet
from tests.canaries import secret
from tests.fixtures import App, qcloud_keys
from tests.unit.test_parties import WHAT

QCLOUD = {"secret_id": "AKID", "secret_key": "k"}


def checked(party: str = "qcloud", credentials: object = QCLOUD, tenant: str = "123", **more: object) -> Account:
    options = {"project": None, "regions": (), "deep": False, "endpoint": None, "local": True, **more}
    return accounts.check(tenant, parties.load(party), credentials, **options)      # type: ignore[arg-type]


@pytest.mark.parametrize(("party", "credentials"), [
    ("qcloud", QCLOUD), ("qcloud", {**QCLOUD, "token": "t"}),
    ("aws", {"access_key_id": "A", "secret_access_key": "s"}),
    ("aws", {"access_key_id": "A", "secret_access_key": "s", "session_token": "t"}),
    ("aws", {"role_arn": "arn:aws:iam::1:role/x"}), ("aws", {"role_arn": "arn:aws:iam::1:role/x", "external_id": "e"}),
])
def test_every_documented_set_of_fields(party: str, credentials: dict[str, str]) -> None:
    assert checked(party, credentials).credentials == credentials


@pytest.mark.parametrize(("party", "credentials"), [
    ("qcloud", {}), ("qcloud", {"secret_id": "A"}), ("qcloud", {**QCLOUD, "more": "x"}),
    ("qcloud", {**QCLOUD, "token": ""}),
    ("qcloud", {**QCLOUD, "token": None}), ("qcloud", {"secret_id": 1, "secret_key": "k"}), ("qcloud", []),
    ("qcloud", "x"),
    ("qcloud", None), ("qcloud", {**QCLOUD, "secret_key": ["k"]}), ("qcloud", {**QCLOUD, "secret_key": "k\n"}),
    ("qcloud", {**QCLOUD, "secret_key": "a b"}), ("qcloud", {**QCLOUD, "secret_key": "ключ"}),
    ("qcloud", {**QCLOUD, "secret_key": "k" * 16_001}), ("aws", QCLOUD), ("aws", {"external_id": "e"}),
    ("aws", {"access_key_id": "A", "secret_access_key": "s", "role_arn": "r"}),
])
def test_other_fields_are_refused_without_repeating_them(party: str, credentials: object) -> None:
    with pytest.raises(InvalidParameter) as refused:
        checked(party, credentials)
    for value in credentials.values() if isinstance(credentials, dict) else ():
        assert not isinstance(value, str) or len(value) < 4 or value not in refused.value.text


@pytest.mark.parametrize(("endpoint", "local", "good"), [
    ("https://cloud.example", False, True), ("https://cloud.example:8443", False, True),
    ("https://cloud.example/", False, True),
    ("https://10.0.0.1", False, True), ("https://[::1]:443", False, True), ("http://127.0.0.1:9", True, True),
    ("http://localhost:9", True, True), ("http://[::1]:9", True, True), ("http://127.0.0.1:9", False, False),
    ("http://cloud.example", True, False), ("http://10.0.0.1", True, False), ("http://127.1:9", True, False),
    ("http://2130706433", True, False), ("http://0x7f.1", True, False), ("http://0177.0.0.1", True, False),
    ("http://localhost.evil.com", True, False), ("http://127.0.0.1.evil.com", True, False),
    ("http://[::ffff:10.0.0.1]", True, False),
    ("https://user:pw@cloud.example", True, False), ("https://cloud.example/path", True, False),
    ("https://cloud.example?x", True, False),
    ("https://cloud.example#x", True, False), ("ftp://cloud.example", True, False), ("cloud.example", True, False),
    ("", True, False),
    ("https://", True, False), ("https://a b", True, False), ("https://a\n", True, False), ("https://a:0", True, False),
    ("https://a:99999", True, False), ("https://[::1", True, False), ("HTTPS://cloud.example", True, False),
    ("https://é", True, False),
])
def test_endpoints(endpoint: str, local: bool, good: bool) -> None:
    if good:
        assert checked(endpoint=endpoint, local=local).endpoint == endpoint
    else:
        with pytest.raises(InvalidParameter):
            checked(endpoint=endpoint, local=local)


def test_projects_regions_deep_and_tenants() -> None:
    assert checked(project="1002189").project == "1002189"
    assert checked("aws", {"role_arn": "r"}, project="team=web 1").project == "team=web 1"
    for party, credentials, project in (("qcloud", QCLOUD, "x"), ("qcloud", QCLOUD, ""), ("qcloud", QCLOUD, "01"),
                                        ("qcloud", QCLOUD, "1\n"), ("aws", {"role_arn": "r"}, "team"),
                                        ("aws", {"role_arn": "r"}, "=x"), ("aws", {"role_arn": "r"}, "a\0=x")):
        with pytest.raises(InvalidParameter):
            checked(party, credentials, project=project)
    assert checked(regions=("gz", "ap-guangzhou", "sh")).regions == ("ap-guangzhou", "ap-shanghai")
    with pytest.raises(InvalidParameter):
        checked(regions=("x/y",))
    assert checked(deep=True).deep
    with pytest.raises(InvalidParameter):
        checked("aws", {"role_arn": "r"}, deep=True)
    for tenant in ("", "a/b", "a b", "x" * 65, "é", "1\n"):
        with pytest.raises(InvalidParameter):
            checked(tenant=tenant)


@pytest.mark.parametrize(("party", "site", "region", "refused"), [
    ("azure", "china", "chinanorth3", ""), ("azure", "china", "eastus", "china has no such region"),
    ("azure", "public", "usgovvirginia", "public has no such region"), ("azure", "usgovernment", "usdodeast", ""),
    ("azure", "germany", "", "must be public or china or usgovernment"), ("azure", "China", "", "must be public"),
    ("huaweicloud", "europe", "eu-west-101", ""), ("huaweicloud", "europe", "cn-north-4", "europe has no such region"),
    ("huaweicloud", "eu", "", "must be public or europe"), ("huaweicloud", "public", "ap-southeast-1", "")])
def test_a_site_and_its_regions(party: str, site: str, region: str, refused: str) -> None:
    def put() -> Account:
        return accounts.check("1", parties.load(party), {**WHAT[party]["credentials"], "site": site}, project=None,
                              regions=(region,) if region else (), deep=False, endpoint=None, local=False)

    if refused:
        with pytest.raises(InvalidParameter, match=refused):
            put()
    else:
        assert put().regions == (region,)


def test_put_load_replace_remove(deployment: Deployment) -> None:
    store, sealer = deployment.store, deployment.sealer
    one, two = secret("one"), secret("two")
    accounts.put(store, sealer(), checked(credentials={**QCLOUD, "secret_key": one}, regions=("gz",), project="7"), 100)
    first = accounts.load(store, sealer, "123", "qcloud", local=True)
    assert (first.credentials["secret_key"], first.regions, first.project) == (one, ("ap-guangzhou",), "7")
    with pytest.raises(Conflict, match="already has an account"):
        accounts.put(store, sealer(), checked(credentials={**QCLOUD, "secret_key": two}), 150)
    assert accounts.load(store, sealer, "123", "qcloud", local=True) == first
    row = accounts.put(store, sealer(), checked(credentials={**QCLOUD, "secret_key": two}), 200, replace=True)
    second = accounts.load(store, sealer, "123", "qcloud", local=True)
    assert (second.credentials["secret_key"], second.regions, second.revision != first.revision) == (two, (), True)
    assert (row.created_at, row.updated_at) == (100, 200)
    assert one not in repr(first)
    assert two not in repr(row)
    for tenant, party in (("123", "aws"), ("12", "qcloud"), ("1234", "qcloud"), ("", "qcloud")):
        with pytest.raises(AccountNotFound):
            accounts.load(store, sealer, tenant, party, local=True)
    accounts.put(store, sealer(), checked(tenant="12"), 300)
    assert [r.tenant_id for r in accounts.every(store)] == ["12", "123"]
    assert [r.tenant_id for r in accounts.every(store, "12")] == ["12"]
    accounts.remove(store, "123", "qcloud")
    with pytest.raises(AccountNotFound):
        accounts.find(store, "123", "qcloud")


def test_a_row_copied_to_another_tenant_or_party_does_not_open(deployment: Deployment) -> None:
    store, sealer = deployment.store, deployment.sealer
    accounts.put(store, sealer(), checked(credentials={**QCLOUD, "secret_key": secret("moved")}), 100)
    row = store.get("account", "123/qcloud")
    assert row
    for tenant, party in (("124", "qcloud"), ("123", "aws")):
        moved = msgspec.structs.replace(msgspec.json.decode(row.value, type=accounts.AccountRow), tenant_id=tenant,
                                        party=party)
        store.put("account", f"{tenant}/{party}", msgspec.json.encode(moved))
        with pytest.raises(Internal, match="belong to another account"):
            accounts.load(store, sealer, tenant, party, local=True)


def test_a_plain_endpoint_is_refused_where_it_is_not_allowed(deployment: Deployment) -> None:
    accounts.put(deployment.store, deployment.sealer(), checked(endpoint="http://127.0.0.1:9"), 100)
    with pytest.raises(Internal, match="must be https"):
        accounts.load(deployment.store, deployment.sealer, "123", "qcloud", local=False)


def test_one_tenants_credentials_never_sign_anothers_call(app: App) -> None:
    """Interleaved in one warm process a hundred times, on one host, over the same kept connections."""
    keys = [qcloud_keys() | {"secret_id": f"AKID{n}"} for n in range(4)]
    with Qcloud({k["secret_id"]: k["secret_key"] for k in keys}, {"ap-guangzhou": Fleet(2)}, limited=False) as cloud:
        for n, key in enumerate(keys):
            app.account("qcloud", key, cloud.url, tenant=f"t{n}")

        def ask(n: int) -> None:
            many_sources.list_servers(app.deployment, many_sources.source_of(f"t{n % 4}", "qcloud", "gz"),
                                   window=many_sources.Window(2, 2))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(100)))
        signed = [call.headers["authorization"].split("Credential=")[1].split("/")[0] for call in cloud.calls]
        assert {name: signed.count(name) for name in signed} == {f"AKID{n}": 25 for n in range(4)}

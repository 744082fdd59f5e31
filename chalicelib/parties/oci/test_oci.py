"""Oracle's SDK for Python: it signs as we do, lists the same machines at the simulator, and knows every field.

It takes half a gigabyte and minutes to install, so it has an environment of its own (`make .tools/oci/ready`) and its
tests are slow ones. Signatures that it made are here too.
"""

import json
import re
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from chalicelib.access import accounts
from chalicelib.errors import InvalidParameter, PartyDenied, PartyMalformed, UnknownRegion
from chalicelib.fleet import check, many_sources
from chalicelib.model import WHOLE, Server, Window
from chalicelib.parties import oci
from chalicelib.parties.oci.simulator import ABOVE, DATABASES, SHOP, STORE, TENANCY, Oci, second_addresses, start
from chalicelib.simulators.fleet import Fleet
from tests import ROOT, canaries
from tests.fixtures import App
from tests.unit.test_parties import WHAT, account_of
from tests.verified import Machines, assert_same

REGION, SIZE = "us-ashburn-1", 60
PYTHON = ROOT / ".tools/oci/bin/python"
KEY = WHAT["oci"]["credentials"]


@pytest.fixture
def cloud(stack: ExitStack, app: App) -> Oci:
    made, credentials = start({REGION: Fleet(SIZE, "oci", gone=True)}, canaries.secret("oci"))
    assert isinstance(made, Oci)
    stack.enter_context(made)
    app.account("oci", credentials, made.url)
    return made


def opened(app: App) -> Mapping[str, str]:
    return accounts.load(app.deployment.store, app.deployment.sealer, "123", "oci", local=True).credentials


def ours(app: App, window: Window = WHOLE, region: str = REGION) -> many_sources.Answer:
    return many_sources.list_servers(app.deployment, many_sources.source_of("123", "oci", region), window)


# ---------------------------------------------------------------- the SDK

SIGNED = (                                  # URL, and the SDK's signature with the key of cases.json at 1689310684
    ("https://iaas.us-ashburn-1.oraclecloud.com/20160918/bootVolumeAttachments?availabilityDomain=NQNU%3AUS-ASHBURN-"
     "AD-1&compartmentId=ocid1.compartment.oc1..aaaashop&limit=1000",
     "uoSrpOhWAYN7yBV3/tFWLuz8gIUMZvgHf84fQWd3RYn0+kF61g1nf4kF7+Cjzmk9hVtvvSFS0097Lqw02cLqKckG4AbiT2gxVbFtoQscxE/Q0kYp"
     "kVbPxU9ijogocLkVdq3bi+8tcCqelz/ByN7V12ibRFr3NZaV9W5wm+WG7udyHe2z/eoF2Cds0erXniOOv/V4p+P/C0K7jhb7y1uCPwU9ovYywDKp"
     "Bciuu70vYP5DGyFzWl/CqyyHAlVa2gbSreDmPaZWElV88hao5Qa9pSxesPwZ7ufx8a6WqfChX8nf05+/rijX/vzyGiRb4uTDHGrqyMCrgXVlIYrq"
     "3866Vg=="),
    ("https://identity.us-ashburn-1.oci.oraclecloud.com/20160918/tenancies/ocid1.tenancy.oc1..aaaaroot/"
     "regionSubscriptions",
     "YqC/ijmNbH9DscPHuZBvuFuDUMBrOOtrhv5DM0Lx4Kt/WAmALL7TyLSx6Eiw9wZhpVGUhmmJnPwwYPbEe41wBvgR5qdgTlGsMKnw6zc1yYuZf2wr"
     "myySQpkRxj40/6UHkzAZOlhhtcyKTwcC0e/N4OHQVsF3L2mSakMPtlnQuQ8sQ8ojP4VXyo8lq9TB/t2tIGTg1UL+i9A23Vht418MyW8MTTPWD7ia"
     "clE2uKM6M9pjhCGmW5MM6wHa7Bv4fz9je50bfSL+PTbIICIejKN9rYF90x/M1SmTHFbGYf4a4T17HfvQct0L9rWzRbPD1xP7dzRjtOfa3cngLc1p"
     "o5fUHg=="),
)

SDK = '''
import json, runpy, sys
from types import SimpleNamespace
import oci

task = json.load(sys.stdin)
reference = runpy.run_path(task["reference"])                  # which the rest of twocloud is not needed for
account = SimpleNamespace(credentials=task["credentials"], endpoint=task["url"], deep=False)
signer = oci.Signer(*(task["credentials"][name] for name in ("tenancy", "user", "fingerprint")), None,
                    private_key_content=task["credentials"]["private_key"])


def unknown(model, row):
    return sorted(set(row) - set(model().attribute_map.values()))


def signed(url):
    request = oci._vendor.requests.Request("GET", url, headers={"date": task["date"]}).prepare()
    signer(request)
    return request.headers["authorization"]


core, identity = oci.core.models, reference["client"](account, task["region"], oci.identity.IdentityClient)
models = {"ListInstances": core.Instance, "ListVnicAttachments": core.VnicAttachment, "GetVnic": core.Vnic,
          "ListBootVolumeAttachments": core.BootVolumeAttachment, "ListBootVolumes": core.BootVolume,
          "ListVolumeAttachments": core.ParavirtualizedVolumeAttachment, "ListVolumes": core.Volume,
          "ListPrivateIps": core.PrivateIp, "ListPublicIps": core.PublicIp,
          "GetVolume": core.Volume, "GetBootVolume": core.BootVolume,
          "ListCompartments": oci.identity.models.Compartment, "ListRegions": oci.identity.models.RegionSubscription}
json.dump({
    "machines": reference["list_servers"](account, task["region"]),
    "unknown": sorted({f"{name} {key}" for name, row in task["rows"] for key in unknown(models[name], row)}),
    "signed": [signed(url) for url in task["sign"]], "regions": oci.regions.REGIONS_SHORT_NAMES,
    "suffixes": oci.regions.REALMS, "states": sorted(
        value for name, value in vars(core.Instance).items() if name.startswith("LIFECYCLE_STATE_")),
    "subscribed": [row.region_name for row in identity.list_region_subscriptions(task["credentials"]["tenancy"]).data],
}, sys.stdout, default=str)
'''
REFERENCE = ROOT / "chalicelib/parties/oci/reference.py"


def sdk(url: str, credentials: Mapping[str, str], **more: Any) -> Any:
    if not PYTHON.exists():
        pytest.skip("NOT RUN: Oracle's SDK judges in .tools/oci: make .tools/oci/ready")
    task = {"url": url, "credentials": dict(credentials), "region": REGION, "reference": str(REFERENCE), "rows": [],
            "sign": [], "date": "", **more}
    done = subprocess.run([PYTHON, "-W", "ignore", "-c", SDK], input=json.dumps(task), capture_output=True, text=True,
                          timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    for row in answer["machines"].values():
        row["created_at"] = datetime.fromisoformat(row["created_at"])
    return answer


def machines(url: str, credentials: Mapping[str, str], region: str) -> Machines:
    """What the SDK lists, for the benchmarks."""
    by_id: Machines = sdk(url, credentials, region=region)["machines"]
    return by_id


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_sdk_and_we_list_the_same_machines(app: App, cloud: Oci) -> None:
    rows = [(exchange["operation"], row) for case in WHAT["oci"]["cases"]
            if not case["name"].startswith(("unknown shape", "an id that")) for exchange in case["exchanges"]
            if exchange["operation"] != "ListAllCompartments" and exchange["answer"]["status"] == 200
            for row in (lambda body: body if isinstance(body, list) else [body])(exchange["answer"]["json"])]
    rows += [(name, row) for name in ("ListInstances", "ListVnicAttachments", "ListVolumeAttachments", "GetVnic",
                                      "ListBootVolumeAttachments", "ListVolumes", "ListBootVolumes",
                                      "ListPrivateIps", "ListPublicIps")
             for row in cloud._made(name)[:20]]
    now = datetime.now(UTC)
    date = f"{now:%a, %d %b %Y %H:%M:%S} GMT"
    urls = [*(url for url, _ in SIGNED), f"{cloud.url}/20160918/vnics/ocid1.vnic.oc1.iad.aaaa1"]
    theirs = sdk(cloud.url, opened(app), rows=rows, sign=urls, date=date)
    servers = ours(app).servers
    assert 0 < len(servers) < SIZE            # some are terminated
    assert_same(servers, theirs["machines"])
    assert theirs["unknown"] == []
    assert theirs["regions"] == oci.PARTY.aliases
    assert all(oci._suffix(f"ocid1.tenancy.{realm}..a") == suffix for realm, suffix in theirs["suffixes"].items())
    assert set(theirs["states"]) == {*oci.PARTY.status, "TERMINATED"}
    with time_machine.travel(now.replace(microsecond=0), tick=False):
        credentials = opened(app)
        key = oci._rsa(credentials["private_key"])
        for url, header in zip(urls, theirs["signed"], strict=True):
            assert oci.sign(url, credentials, key).headers["Authorization"] == header


@pytest.mark.parametrize(("url", "signature"), SIGNED)
def test_a_signature_is_the_sdks(url: str, signature: str) -> None:
    """RSA with this padding gives the same signature each time."""
    with time_machine.travel(1_689_310_684, tick=False):
        made = oci.sign(url, KEY, oci._rsa(KEY["private_key"]))
    assert made.headers["Date"] == "Fri, 14 Jul 2023 04:58:04 GMT"
    assert made.headers["Authorization"] == (
        f'Signature algorithm="rsa-sha256",headers="date (request-target) host",keyId="{KEY["tenancy"]}/{KEY["user"]}/'
        f'{KEY["fingerprint"]}",signature="{signature}",version="1"')


# ---------------------------------------------------------------- compartments

def test_every_compartment_is_listed_whatever_its_pages(app: App, cloud: Oci) -> None:
    """Pages may be short, and the first one empty, although more follow."""
    whole = ours(app).servers
    assert {server.project_id for server in whole} == {TENANCY, SHOP, DATABASES}
    assert cloud.count("ListCompartments") == 1
    assert cloud.count("ListInstances") == 4                    # the tenancy and three below it; the deleted one not
    cloud.short = True
    assert ours(app).servers == whole
    assert cloud.count("ListCompartments") > 2


@pytest.mark.parametrize("lost", [TENANCY, SHOP, DATABASES, STORE])
def test_a_compartment_that_the_key_may_not_read_is_never_an_empty_list(app: App, cloud: Oci, lost: str) -> None:
    """One above others is named by the party, as these may be read; a leaf is not, and so it is not the key's."""
    cloud.readable -= {lost}
    if lost in (TENANCY, SHOP):
        with pytest.raises(PartyDenied, match="missing right"):
            ours(app)
        return
    assert not [server for server in ours(app).servers if server.project_id == lost]


def test_a_key_for_one_compartment(app: App, cloud: Oci) -> None:
    whole = [server for server in ours(app).servers if server.project_id != TENANCY]
    cloud.readable = {SHOP, DATABASES, STORE}
    credentials = opened(app)
    with pytest.raises(PartyDenied, match="--project"):
        check.check_account(app.deployment, "123", "oci")
    app.account("oci", credentials, cloud.url, project=SHOP)
    assert check.check_account(app.deployment, "123", "oci") == REGION
    assert ours(app).servers == whole
    app.account("oci", credentials, cloud.url, project=DATABASES)
    assert ours(app).servers == [server for server in whole if server.project_id == DATABASES]
    app.account("oci", credentials, cloud.url, project=f"{SHOP}x")
    with pytest.raises(PartyDenied, match="wrong project"):
        ours(app)


@pytest.mark.sample(4)
@pytest.mark.parametrize("operation", ["ListInstances", "ListVnicAttachments", "GetVnic", "ListBootVolumeAttachments",
                                       "ListVolumeAttachments", "ListVolumes", "ListBootVolumes", "ListCompartments"])
def test_each_right_is_needed(app: App, cloud: Oci, operation: str) -> None:
    cloud.denied = {operation}
    with pytest.raises(PartyDenied, match="missing right"):
        ours(app)


def test_deep_adds_secondary_private_addresses_and_their_public_ones(app: App, cloud: Oci) -> None:
    plain = ours(app).servers
    assert cloud.count("ListPrivateIps") == 0
    app.account("oci", opened(app), cloud.url, deep=True)
    further = {cloud._ocid("instance", machine): second_addresses(machine) for machine in map(
        cloud.fleet.__getitem__, range(SIZE))}
    servers = ours(app).servers
    assert [(server.id, set(server.lan_ipv4), set(server.wan_ipv4)) for server in servers] == [
        (server.id, {*server.lan_ipv4, *further[server.id][0]}, {*server.wan_ipv4, *further[server.id][1]})
        for server in plain]
    assert (cloud.count("ListPrivateIps"), cloud.count("ListPublicIps")) == (1, 4)     # the subnet; the compartments
    assert ours(app, Window(11, 20)).servers == servers[10:20]
    assert check.check_account(app.deployment, "123", "oci") == REGION
    for operation in ("ListPrivateIps", "ListPublicIps"):
        cloud.denied = {operation}
        with pytest.raises(PartyDenied, match="missing right"):
            ours(app)
    with pytest.raises(PartyDenied, match="missing right"):
        check.check_account(app.deployment, "123", "oci")


def test_a_volume_that_the_key_may_not_read_has_no_size(app: App, cloud: Oci) -> None:
    whole = ours(app).servers
    cloud.readable -= {STORE}
    servers = ours(app).servers
    assert [without_disks(server) for server in servers] == [without_disks(server) for server in whole]
    changed = [mine.disk_gib for mine, server in zip(servers, whole, strict=True) if mine.disk_gib != server.disk_gib]
    assert changed
    assert set(changed) == {None}


def without_disks(server: Server) -> Server:
    """And without the time at which their change was seen."""
    return msgspec.structs.replace(server, disk_gib=None, updated_at=None)


def test_compartments_that_nobody_may_name(app: App, cloud: Oci) -> None:
    """The tenancy alone would be a list without most servers."""
    cloud.readable -= set(ABOVE)
    with pytest.raises(PartyMalformed, match="inspect compartments"):
        ours(app)


# ---------------------------------------------------------------- the key

@pytest.mark.slow
def test_the_simulator_refuses_what_the_real_one_does(app: App, cloud: Oci) -> None:
    credentials = dict(opened(app))
    for changes in ({"user": "ocid1.user.oc1..other"}, {"private_key": KEY["private_key"],
                                                        "fingerprint": KEY["fingerprint"]}):
        app.account("oci", {**credentials, **changes}, cloud.url)
        with pytest.raises(PartyDenied, match="wrong key"):
            ours(app)
    app.account("oci", credentials, cloud.url)
    for late in (-600, 600):
        cloud.late = late
        with pytest.raises(PartyDenied, match="clock"):
            ours(app)
    cloud.late = 200
    assert ours(app).total


def test_keys_that_cannot_sign() -> None:
    key: Any = load_pem_private_key(KEY["private_key"].encode(), None)
    other = ec.generate_private_key(ec.SECP256R1())
    for private, words in (
            (key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")), "passphrase"),
            (other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "RSA key"),
            (key.public_key().public_bytes(Encoding.PEM, oci.PublicFormat.SubjectPublicKeyInfo), "RSA key"),
            (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "RSA key")):
        with pytest.raises(InvalidParameter, match=words) as refused:
            account_of("oci", {**KEY, "private_key": private.decode()})
        assert "BEGIN" not in refused.value.text
    with pytest.raises(InvalidParameter, match="fingerprint is not"):
        account_of("oci", {**KEY, "fingerprint": "00:" * 15 + "00"})
    with pytest.raises(InvalidParameter):
        account_of("oci", {**KEY, "region": "no.where"})
    old = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    for fields in ({"private_key": old}, {"private_key": f"{KEY['private_key']}OCI_API_KEY\n"},     # the console's file
                   {"fingerprint": KEY["fingerprint"].upper()}, {"region": "fra"}):
        assert account_of("oci", {**KEY, **fields}).credentials == {**KEY, **fields}
        oci.examine({**KEY, **fields})


# ---------------------------------------------------------------- regions

def test_regions_are_asked_where_the_tenancy_has_one(app: App, cloud: Oci) -> None:
    """In the credentials' region, or else in the account's first one."""
    def hosts(**more: Any) -> set[str]:
        names: set[str] = set()

        def send(operation: str, sign: Any) -> Any:
            names.add(re.sub(r"^https://([^/]+)/.*", r"\1", sign().url))
            raise PartyDenied

        account = replace(account_of("oci", {**KEY, **more.pop("fields", {})}), **more)
        region = (*account.regions, oci.PARTY.default_region)[0]
        with pytest.raises(PartyDenied):
            oci.list_regions(oci.api.Client(many_sources.source_of("1", "oci", region), account, send))
        return names

    assert hosts() == {"identity.us-ashburn-1.oci.oraclecloud.com"}
    assert hosts(regions=("eu-paris-1",)) == {"identity.eu-paris-1.oci.oraclecloud.com"}
    assert hosts(fields={"region": "fra"}) == {"identity.eu-frankfurt-1.oci.oraclecloud.com"}
    assert [region.open for region in oci.list_regions(oci.api.Client(
        many_sources.source_of("123", "oci", REGION), account_of("oci"), lambda *_: Subscriptions))] == [True, False]


Subscriptions = oci.api.Response(200, {}, json.dumps([
    {"regionName": "us-ashburn-1", "status": "READY"}, {"regionName": "ap-tokyo-1", "status": "IN_PROGRESS"}]).encode())


def test_a_region_to_which_the_tenancy_is_not_subscribed(app: App, cloud: Oci) -> None:
    cloud.fleet = Fleet(0)
    assert ours(app).total == 0
    with pytest.raises(UnknownRegion):
        ours(app, region="uk-london-1")

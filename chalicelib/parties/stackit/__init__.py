"""STACKIT: IaaS API v2, the servers of one project in one region.

https://docs.api.stackit.cloud/documentation/iaas/version/v2 and the models of stackit-iaas 1.7

Units: memory MB and disks GB. Times: RFC 3339, also of the last change; a year before 1970 stands for no time. Paging:
none, a list is whole. Without `details=true` a server has no network interfaces, so an answer in which no running
server has any is malformed, never a list without addresses.

Processors and memory come from the machine type, disks from the list of volumes: three calls, of which the types are
kept. A server's volumes are those that it names and those that name it; one that came or went between the two lists
makes the disk unknown. A server without any volume has the disk of its machine type. There is no documented order: all
are put into the order of creation.

A project that is not there, or that the key may not read, is 404, and a region that does not exist too: the list of its
zones tells them apart. No call lists the regions, so each known one is asked for its zones.

The key is a JSON file. It signs a JWT by RS512 for the token address, which is pinned here whatever the file says in
`aud`; the access token states its end. The long-lived tokens of older versions ended in December 2025 and are not
supported. No rate was found: careful ones here.
"""

import base64
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar
from urllib.parse import urlencode
from uuid import uuid4

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ...cloud import api

_REGIONS = {"eu01": "Germany", "eu02": "Austria"}     # the countries; the price list has EU01 as Germany South
_TOKEN = "https://service-account.api.stackit.cloud/token"
_JWT_SECONDS = 600
_USUAL_SECONDS = 600.0                      # of an access token that does not state its end
_T = TypeVar("_T")

_STATUS = {                                 # status, and powerStatus where it says more; both complete
    "CREATING": api.Status.BUILD,
    "ACTIVE": api.Status.ACTIVE,
    "ACTIVE STOPPED": api.Status.SHUTOFF,
    "ACTIVE CRASHED": api.Status.ERROR,
    "ACTIVE ERROR": api.Status.ERROR,
    "INACTIVE": api.Status.SHUTOFF,
    "DEALLOCATED": api.Status.SHELVED_OFFLOADED,
    "DEALLOCATING": api.Status.STOPPING,
    "STOPPING": api.Status.STOPPING,
    "STARTING": api.Status.STARTING,
    "ERROR": api.Status.ERROR,
    "RESCUE": api.Status.RESCUE,
    "RESCUING": api.Status.RESCUE,
    "UNRESCUING": api.Status.RESCUE,
    "RESIZING": api.Status.RESIZE,
    "REBUILD": api.Status.REBUILD,
    "REBUILDING": api.Status.REBUILD,
    "RESTORING": api.Status.REBUILD,
    "REBOOT": api.Status.REBOOT,
    "REBOOTING": api.Status.REBOOT,
    "MIGRATING": api.Status.MIGRATING,
    "PAUSED": api.Status.PAUSED,
    "BACKING-UP": api.Status.ACTIVE,        # it goes on as it was
    "BACKING-UP STOPPED": api.Status.SHUTOFF,
    "SNAPSHOTTING": api.Status.ACTIVE,
    "SNAPSHOTTING STOPPED": api.Status.SHUTOFF,
    "UPDATING": api.Status.ACTIVE,
    "UPDATING STOPPED": api.Status.SHUTOFF,
    "DELETING": api.Status.DELETED,
}
_GONE = "DELETED"

_ERRORS = {                                 # code of an error; of the token address: error
    "400": api.MALFORMED,
    "401": api.WRONG_KEY,
    "403": api.MISSING_RIGHT,
    "404": api.denied("wrong project: there is none of this id, or the service account may not read it"),
    "429": api.THROTTLED,
    "500": api.FAILED,
    "503": api.UNAVAILABLE,
    "invalid_grant": api.WRONG_KEY,
    "invalid_client": api.WRONG_KEY,
    "unauthorized_client": api.WRONG_KEY,
}


# ---------------------------------------------------------------- the shapes that we read

class _Signer(msgspec.Struct):
    aud: api.Text
    iss: api.Text
    kid: api.Text
    sub: api.Text
    privateKey: str | None = None           # missing if the customer made the pair


class _Key(msgspec.Struct):
    """The key file of a service account."""

    credentials: _Signer


class _List(msgspec.Struct, Generic[_T]):
    items: list[_T]


class _Nic(msgspec.Struct, gc=False):
    ipv4: str | None = None
    ipv6: str | None = None
    publicIp: str | None = None
    networkId: str | None = None
    nicSecurity: bool | None = None
    securityGroups: api.Whole[list[str] | None] = None


class _BootSource(msgspec.Struct, gc=False):
    id: str | None = None
    type: str | None = None


class _BootVolume(msgspec.Struct, gc=False):
    id: str | None = None
    source: _BootSource | None = None


class _Server(msgspec.Struct, gc=False):
    id: api.Text
    name: str | None = None
    machineType: str | None = None
    status: str | None = None
    powerStatus: str | None = None
    nics: list[_Nic] | None = None
    volumes: api.Whole[list[str] | None] = None
    bootVolume: _BootVolume | None = None
    availabilityZone: str | None = None
    labels: dict[str, str] | None = None
    imageId: str | None = None
    keypairName: str | None = None
    createdAt: str | None = None
    updatedAt: str | None = None


class _Volume(msgspec.Struct, gc=False):
    id: api.Text
    size: api.Count | None = None
    serverId: str | None = None


class _Type(msgspec.Struct, gc=False):
    name: api.Text
    vcpus: api.Count | None = None
    ram: api.Count | None = None
    disk: api.Count | None = None


class _Refusal(msgspec.Struct):
    code: int | None = None
    error: str | None = None


class _Login(msgspec.Struct):
    access_token: api.Text


class _Claims(msgspec.Struct):
    exp: api.Size | None = None


_key = msgspec.json.Decoder(_Key).decode
_claims = msgspec.json.Decoder(_Claims).decode


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    _open(client)                           # once, before the calls side by side
    rows, volumes = _in_region(client, lambda: client.run_all(
        lambda: _servers(client), lambda: _list(client, "ListVolumes", "volumes", _Volume)))
    rows = [row for row in rows if row.status != _GONE]
    if any(row.status == "ACTIVE" for row in rows) and all(row.nics is None for row in rows):
        raise api.PartyMalformed("The party lists running servers without any network interface.")
    types = api.cached_lookup(client.account, ("stackit", client.credentials["project_id"], client.region),
                              [row.machineType or "" for row in rows], lambda _: {
        row.name: row for row in _list(client, "ListMachineTypes", "machine-types", _Type)})
    attached = api.by_owner((volume.serverId, volume.id) for volume in volumes)
    sizes = {volume.id: volume.size for volume in volumes}
    return api.in_order((_server(client, row, types.get(row.machineType or ""), attached.get(row.id, ()), sizes)
                         for row in rows), window)


def _servers(client: api.Client) -> list[_Server]:
    return _list(client, "ListServers", "servers", _Server, details="true")


def _in_region(client: api.Client, call: Callable[[], _T]) -> _T:
    """What the call returns. Raises UnknownRegion if it is refused because there is no such region."""
    try:
        return call()
    except api.PartyDenied as refused:
        if refused.http_status != 404 or _is_region(client, client.region):
            raise
        raise api.UnknownRegion("STACKIT has no such region.") from None


def _server(client: api.Client, row: _Server, kind: _Type | None, attached: Iterable[str],
            sizes: Mapping[str, int | None]) -> api.Server:
    nics, boot = row.nics or [], row.bootVolume and row.bootVolume.id
    source = row.bootVolume and row.bootVolume.source
    volumes = {*attached, *(row.volumes or ()), *([boot] if boot else ())}
    ipv6 = api.by_scope(nic.ipv6 for nic in nics)
    return api.Server(
        id=row.id,
        name=row.name or "",
        cpu=kind and kind.vcpus,
        memory_mib=kind and kind.ram,
        disk_gib=api.disk_gib(0, volumes, sizes) if volumes else kind and kind.disk,
        **api.addresses(lan=(*(nic.ipv4 for nic in nics), *ipv6["lan_ipv6"]),
                        wan=(*(nic.publicIp for nic in nics), *ipv6["wan_ipv6"])),
        **PARTY.status_of(_state(row)),
        created_at=api.parse_time(row.createdAt),
        updated_at=api.parse_time(row.updatedAt),
        zone=row.availabilityZone or "",
        project_id=client.credentials["project_id"],
        instance_type=row.machineType or "",
        tags=row.labels or {},
        image_id=row.imageId or (source.id if source and source.type == "image" else None),
        subnet_id=nics[0].networkId if nics else None,
        security_groups=api.groups(() if nic.nicSecurity is False else nic.securityGroups for nic in nics),
        key_name=row.keypairName,
        charge_type=api.POSTPAID,
    )


def _state(row: _Server) -> str | None:
    both = f"{row.status} {row.powerStatus}"
    return both if both in _STATUS else row.status


# ---------------------------------------------------------------- regions, check

def list_regions(client: api.Client) -> list[api.Region]:
    _open(client)
    there = client.for_each(_REGIONS, lambda region: _is_region(client, region))
    if not any(there):
        raise api.PartyMalformed("The party knows none of its regions.")
    return [api.Region(region, name) for (region, name), known in zip(_REGIONS.items(), there, strict=True) if known]


def _is_region(client: api.Client, region: str) -> bool:
    """By the list of its zones, which belongs to no project."""
    try:
        return bool(_get(client, "ListZones", f"/v2/regions/{region}/availability-zones", _List[str]).items)
    except (api.PartyDenied, api.PartyMalformed) as refused:
        if refused.http_status in (400, 404):
            return False
        raise


# ---------------------------------------------------------------- the calls

def _list(client: api.Client, operation: str, what: str, row: type[_T], **query: str) -> list[_T]:
    shape: type[_List[_T]] = _List[row]
    path = f"/v2/projects/{client.credentials['project_id']}/regions/{client.region}/{what}"
    return _get(client, operation, f"{path}{'?' * bool(query)}{urlencode(query)}", shape).items


def _get(client: api.Client, operation: str, path: str, shape: type[_T]) -> _T:
    url = client.url(f"https://iaas.api.stackit.cloud{path}")
    return client.with_session("token", lambda: _login(client), lambda token: client.call(
        operation, lambda: api.Request("GET", url, {
            "Accept": "application/json", "Authorization": f"Bearer {token}"}), shape))


def _open(client: api.Client) -> None:
    client.with_session("token", lambda: _login(client), lambda _: None)


def _login(client: api.Client) -> tuple[float, str]:
    key, rsa = _read(client.credentials)
    url = client.url(_TOKEN)
    headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
    token = client.call("Login", lambda: api.Request("POST", url, headers, urlencode({
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": sign(key, rsa, int(time.time()), str(uuid4()))}).encode()), _Login).access_token
    return _end_of(token) or time.time() + _USUAL_SECONDS, token


def sign(key: _Signer, rsa: RSAPrivateKey, now: int, nonce: str) -> str:
    """A JSON web token by RS512. `now`: Unix time."""
    claims = {"iss": key.iss, "sub": key.sub, "aud": key.aud, "jti": nonce, "iat": now, "exp": now + _JWT_SECONDS}
    text = b".".join(_base64(json.dumps(part, separators=(",", ":")).encode()) for part in (
        {"alg": "RS512", "kid": key.kid, "typ": "JWT"}, claims))
    return b".".join((text, _base64(rsa.sign(text, PKCS1v15(), SHA512())))).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _end_of(token: str) -> float | None:
    """When an access token ends, which is a JWT itself."""
    try:
        claims = token.split(".")[1]
        return _claims(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))).exp
    except (IndexError, ValueError):
        return None


def _read(credentials: Mapping[str, str]) -> tuple[_Signer, RSAPrivateKey]:
    """Raises what `examine` catches."""
    signer = _key(credentials["service_account_key"]).credentials
    rsa = load_pem_private_key((signer.privateKey or credentials["private_key"]).encode(), None)
    if not isinstance(rsa, RSAPrivateKey):
        raise ValueError
    return signer, rsa


def examine(credentials: Mapping[str, str]) -> None:
    try:
        _read(credentials)
    except (KeyError, ValueError, TypeError, UnsupportedAlgorithm):
        raise api.InvalidParameter(
            "credentials", "service_account_key is the whole JSON file of a service account key, with aud, iss, kid, "
                           "sub and privateKey (RSA, PEM, no passphrase) in its credentials. If you made the key pair "
                           "yourself, pass the private one in private_key.") from None


def error_code(response: api.Response) -> str | None:
    if response.status < 400:
        return None
    refusal = api.refusal(response, _Refusal)
    return refusal and (refusal.error or (None if refusal.code is None else str(refusal.code)))


_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"

PARTY = api.Party(
    name="stackit",
    title="STACKIT",
    reference="https://docs.api.stackit.cloud/documentation/iaas/version/v2",
    order="no pages",
    credentials=(("service_account_key", "project_id", "private_key?"),),
    forms={"project_id": _UUID, "private_key": r"-----BEGIN [A-Z ]{3,30}-----[\s!-~]+"},
    objects=("service_account_key",),
    examine=examine,
    permissions=("reader on the project",),
    **api.region_names(_REGIONS),
    region_form=r"[a-z]{2,8}[0-9]{1,2}",
    default_region="eu01",
    limits=api.unpublished(10, "Login", "ListServers", "ListVolumes", "ListMachineTypes", "ListZones"),
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=lambda client: _in_region(client, lambda: _servers(client)),
)

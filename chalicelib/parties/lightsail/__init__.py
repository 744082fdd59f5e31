"""Amazon Lightsail: GetInstances 2016-11-28 over JSON 1.1, signed as EC2's calls are (cloud/amazon.py).

https://docs.aws.amazon.com/lightsail/2016-11-28/api-reference/API_GetInstances.html

Units: memory GB as a fraction (0.5), disks GB. Times: Unix seconds with a fraction; there is none of the last update.
Paging: opaque tokens, pages of a size that the cloud chooses, no total and no documented order; so the list is always
walked to its end and ordered by (created, id). Disks and addresses are in the rows: no other call is made.

There is no field for an id: the name can be used again after a deletion, so the id is the last part of the ARN. The
public address is missing, not empty, while a server without a static address is stopped. `state.name` has no list in
the model; its words are EC2's as far as samples show them, all except pending and running unconfirmed. A terminated
server is left out, as EC2's are.

Some regions of AWS have no Lightsail, and then no host; GetRegions in us-east-1 tells which do. There is none in the
partitions of China and of the US government. Rates: none are published, 10 calls a second are a careful guess.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from math import ceil
from typing import Annotated, TypeVar

import msgspec

from ...cloud import api

_HOME = "us-east-1"                         # which tells the regions
_T = TypeVar("_T")
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799)]            # to the end of the year 9999

_STATUS = {                                 # state.name
    "pending": api.Status.BUILD,            # also the start of a stopped server (unconfirmed)
    "running": api.Status.ACTIVE,
    "stopping": api.Status.STOPPING,
    "stopped": api.Status.SHUTOFF,
    "starting": api.Status.STARTING,
    "rebooting": api.Status.REBOOT,
    "shutting-down": api.Status.DELETED,
    "deleting": api.Status.DELETED,
}
_GONE = "terminated"

_SETUP = api.Meaning(api.PartyUnavailable, "Lightsail is still being set up for this account in this region; retry in "
                                           "some minutes")
_ERRORS = {                                 # the model's exceptions, and the common errors in the words of JSON APIs
    **api.amazon.ERRORS,
    "AccessDeniedException": api.MISSING_RIGHT,
    "UnauthenticatedException": api.WRONG_KEY,
    "MissingAuthenticationTokenException": api.WRONG_KEY,
    "IncompleteSignatureException": api.WRONG_KEY,
    "AccountSetupInProgressException": _SETUP,
    "RegionSetupInProgressException": _SETUP,
    "SerializationException": api.MALFORMED,
    "UnknownOperationException": api.MALFORMED,
    "NotFoundException": api.FAILED,
    "OperationFailureException": api.FAILED,
}


# ---------------------------------------------------------------- the shapes that we read

class _Location(msgspec.Struct, gc=False):
    availabilityZone: str | None = None
    regionName: api.Strict[str | None] = None


class _Disk(msgspec.Struct, gc=False):
    sizeInGb: api.Count | None = None


class _Hardware(msgspec.Struct, gc=False):
    cpuCount: api.Count | None = None
    ramSizeInGb: api.Size | None = None
    disks: api.Nested = msgspec.UNSET       # the system disk too


class _State(msgspec.Struct, gc=False):
    name: str | None = None


class _Tag(msgspec.Struct, gc=False):
    key: str | None = None
    value: str | None = None                # missing if it has none


class _Instance(msgspec.Struct, gc=False):
    arn: Annotated[str, msgspec.Meta(pattern=r"^arn:[a-z-]+:lightsail:[a-z0-9-]+:[0-9]*:Instance/[A-Za-z0-9-]+\Z")]
    name: str | None = None
    createdAt: _Seconds | None = None
    location: api.Strict[_Location | None] = None
    bundleId: str | None = None
    privateIpAddress: str | None = None
    publicIpAddress: str | None = None
    ipv6Addresses: list[str] | None = None
    hardware: _Hardware | None = None
    state: _State | None = None
    tags: list[_Tag] | None = None
    blueprintId: str | None = None
    blueprintName: str | None = None
    sshKeyName: str | None = None

    @property
    def id(self) -> str:
        return self.arn.rpartition("/")[2]

    @property
    def region(self) -> str:
        return (self.location and self.location.regionName) or self.arn.split(":")[3]


class _Instances(msgspec.Struct):
    instances: list[_Instance]
    nextPageToken: api.Strict[str | None] = None


class _Region(msgspec.Struct):
    name: api.Text
    displayName: str | None = None


class _Regions(msgspec.Struct):
    regions: list[_Region]


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    def fetch(token: str | None) -> api.Page[_Instance]:
        answer = _call(client, client.region, "GetInstances", api.given(pageToken=token), _Instances)
        rows = api.only(answer.instances, lambda row: row.region, client.region)
        return api.Page([(row.id, row) for row in rows], token=answer.nextPageToken)

    rows = api.by_token(fetch, stable=False).rows
    return api.in_order((_server(row) for row in rows if _word(row).strip() != _GONE), window)


def _server(row: _Instance) -> api.Server:
    hardware = row.hardware or _Hardware()
    return api.Server(
        id=row.id,
        name=row.name or "",
        cpu=hardware.cpuCount,
        memory_mib=None if hardware.ramSizeInGb is None else ceil(hardware.ramSizeInGb * 1024),
        disk_gib=_disk_gib(hardware.disks),
        **api.addresses(lan=[row.privateIpAddress], wan=[row.publicIpAddress, *(row.ipv6Addresses or ())]),
        **PARTY.status_of(_word(row)),
        created_at=None if row.createdAt is None else datetime.fromtimestamp(row.createdAt, UTC),
        zone=(row.location and row.location.availabilityZone) or "",
        instance_type=row.bundleId or "",
        tags=api.labelled((tag.key, tag.value) for tag in row.tags or ()),
        image_id=row.blueprintId,
        image_name=row.blueprintName,
        os=api.os_family((row.blueprintId or "").replace("_", " ")),
        key_name=row.sshKeyName,
        console_url=f"https://lightsail.aws.amazon.com/ls/webapp/{row.region}/instances/{row.name}/connect"
        if row.name else None,
    )


def _word(row: _Instance) -> str:
    return (row.state and row.state.name) or ""


def _disk_gib(listed: api.Nested) -> int | None:
    """All disks together; None if the row says nothing of disks."""
    disks = None if listed is msgspec.UNSET or bytes(listed) == b"null" else api.nested(listed, _Disk)
    return None if disks is None else api.total_gib(disk.sizeInGb for disk in disks)


# ---------------------------------------------------------------- regions, check, the call

def list_regions(client: api.Client) -> list[api.Region]:
    answer = _call(client, _HOME, "GetRegions", {}, _Regions)
    return [api.Region(region.name, region.displayName or "") for region in answer.regions]


def check(client: api.Client) -> None:
    _call(client, client.region, "GetInstances", {}, _Instances)


def _call(client: api.Client, region: str, action: str, query: Mapping[str, str], shape: type[_T]) -> _T:
    url = client.url(f"https://{api.amazon.host_of('lightsail', region, client.account, PARTY.title)}/")
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"Lightsail_20161128.{action}"}
    body = msgspec.json.encode(query)

    def signed(keys: api.Keys) -> Callable[[], api.Request]:
        return lambda: api.amazon.sign("lightsail", region, url, body, keys, headers)

    return api.amazon.opened(client, region, [api.amazon.allow(PARTY.permissions)],
                             lambda keys: client.call(action, signed(keys), shape))


_REGION_FORM = r"(?!cn-|us-gov-|us-iso)[a-z]{2,4}(-[a-z]{2,12}){1,2}-[0-9]{1,2}"

PARTY = api.Party(
    name="lightsail",
    title="Amazon Lightsail",
    reference="https://docs.aws.amazon.com/lightsail/2016-11-28/api-reference/API_GetInstances.html",
    order="none documented; opaque tokens that prove nothing",
    credentials=(("access_key_id", "secret_access_key", "session_token?"), ("role_arn", "external_id?")),
    permissions=("lightsail:GetInstances", "lightsail:GetRegions"),
    region_names=lambda: {code: name for code, name in api.amazon.region_names().items()
                          if re.fullmatch(_REGION_FORM, code)},
    region_form=_REGION_FORM,
    region_in_host=True,
    default_region=_HOME,
    limits=api.unpublished(10, "GetInstances", "GetRegions", "AssumeRole"),
    error_code=api.amazon.error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)

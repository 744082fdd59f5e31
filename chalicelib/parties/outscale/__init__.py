"""3DS OUTSCALE: OAPI, through Apache Libcloud's driver (see cloud/libcloud.py).

https://docs.outscale.com/api.html (ReadVms, ReadVolumes, ReadVmTypes). Libcloud follows no page and calls past every
seam: here its call is replaced, signed by its signer, and walked by NextPageToken. The VM types tinavX.cYrZ say their
size in their name (Y cores, Z GiB); others are in ReadVmTypes. Volumes GiB. Rates are not given in numbers.

Unconfirmed: no real account was asked; what Libcloud's fixtures do not hold is from the vendor's own clients.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ...cloud.cache import cached_lookup
from ...cloud.decoding import Strict
from ...cloud.joining import by_scope, groups, os_family
from ...cloud.libcloud import (
    Answer,
    Bridge,
    Call,
    Driven,
    matched,
    nodes_by_id,
    party_of,
    rounded_up,
    total,
)
from ...cloud.paging import Page, by_token
from ...errors import (
    ADDRESS,
    EXPIRED_KEY,
    LOCKED,
    MALFORMED,
    MISSING_RIGHT,
    REGION,
    THROTTLED,
    WRONG_KEY,
    PartyMalformed,
)
from ...model import Count, Listing, Region, Server, Size, Source, Status, Text, Window, parse_time

_PAGE = 500                                 # the most is 1000
_GONE = ("deleted", "terminated")           # finally gone, but still listed for a while

_STATUS = {
    "pending": Status.BUILD,
    "running": Status.ACTIVE,
    "stopping": Status.STOPPING,
    "stopped": Status.SHUTOFF,
    "shutting-down": Status.DELETED,
    "quarantine": Status.SUSPENDED,         # taken out of service by the cloud
}
_MOST_FILTERED = 100                        # how many values a filter takes is not documented
_TINA = re.compile(r"tinav[0-9]+\.c([0-9]{1,3})r([0-9]{1,4})(p[0-9])?", re.ASCII)


class _PublicIp(msgspec.Struct, gc=False):
    PublicIp: str | None = None


class _PrivateIp(msgspec.Struct, gc=False):
    PrivateIp: str | None = None
    IsPrimary: bool | None = None
    LinkPublicIp: _PublicIp | None = None


class _Nic(msgspec.Struct, gc=False):
    PrivateIps: list[_PrivateIp] | None = None


class _Group(msgspec.Struct, gc=False):
    SecurityGroupId: str | None = None


class _Bsu(msgspec.Struct, gc=False):
    VolumeId: Text


class _Device(msgspec.Struct, gc=False):
    Bsu: _Bsu | None = None


class _Placement(msgspec.Struct, gc=False):
    SubregionName: str | None = None


class _Tag(msgspec.Struct, gc=False):
    Key: str | None = None
    Value: str | None = None


class _Vm(msgspec.Struct, gc=False):
    VmId: Text
    Tags: list[_Tag] | None = None
    State: str | None = None
    VmType: str | None = None
    PrivateIp: str | None = None
    PublicIp: str | None = None
    Nics: list[_Nic] | None = None
    BlockDeviceMappings: list[_Device] | None = None
    CreationDate: str | None = None
    Placement: _Placement | None = None
    ImageId: str | None = None
    OsFamily: str | None = None
    NetId: str | None = None
    SubnetId: str | None = None
    SecurityGroups: list[_Group] | None = None
    KeypairName: str | None = None


class _Vms(msgspec.Struct):
    Vms: list[_Vm]
    NextPageToken: Strict[str | None] = None


class _Volume(msgspec.Struct, gc=False):
    VolumeId: Text
    Size: Count | None = None


class _Volumes(msgspec.Struct):
    Volumes: list[_Volume]
    NextPageToken: Strict[str | None] = None


class _Type(msgspec.Struct, gc=False):
    VmTypeName: str = ""
    VcoreCount: Count | None = None
    MemorySize: Size | None = None


class _Types(msgspec.Struct):
    VmTypes: list[_Type]
    NextPageToken: Strict[str | None] = None


class _Region(msgspec.Struct):
    RegionName: Text


class _Regions(msgspec.Struct):
    Regions: list[_Region]


def _mend(driven: Driven) -> None:
    """It calls past its own connection: here the same call goes through the door, freshly signed for each try."""
    driver = driven.driver
    nodes_by_id(driver, "_to_node", "VmId")

    def call(action: str, data: str) -> Answer:
        return driven.door.ask("POST", f"/api/{driver.version}/{action}",
                               lambda: driver._ex_generate_headers(action, data), data)

    driver._call_api = call


def _list_servers(driven: Driven, source: Source, window: Window) -> Listing:
    size = _PAGE if window.last is None else min(_PAGE, window.last + 1)

    def fetch(token: str | None) -> Page[_Vm]:
        nodes = driven.driver.list_nodes(ex_data=_page(size, token))
        answer: _Vms = driven.door.answers["ListVms"]
        return Page([(row.VmId, row) for row in matched(nodes, answer.Vms, lambda row: row.VmId)
                     if row.State not in _GONE], token=answer.NextPageToken)

    machines = by_token(fetch, window, stable=False)
    sizes = _volumes(driven, machines.rows) if machines.rows else {}
    types = _types(driven, source.region, {row.VmType or "" for row in machines.rows})
    return Listing([_server(row, sizes, types) for row in machines.rows], machines.total)


def _page(size: int, token: str | None, **more: Any) -> str:
    return msgspec.json.encode({"ResultsPerPage": size, **({"NextPageToken": token} if token else {}), **more}).decode()


def _volumes(driven: Driven, vms: Sequence[_Vm]) -> dict[str, int | None]:
    only = {"Filters": {"LinkVolumeVmIds": [row.VmId for row in vms]}} if len(vms) <= _MOST_FILTERED else {}

    def fetch(token: str | None) -> Page[_Volume]:
        driven.driver._call_api("ReadVolumes", _page(_PAGE, token, **only))
        answer: _Volumes = driven.door.answers["ListVolumes"]
        return Page([(volume.VolumeId, volume) for volume in answer.Volumes], token=answer.NextPageToken)

    return {volume.VolumeId: volume.Size for volume in by_token(fetch).rows}


def _types(driven: Driven, region: str, names: Iterable[str]) -> dict[str, _Type]:
    def fetch(missing: Sequence[str]) -> dict[str, _Type]:
        driven.driver._call_api("ReadVmTypes", msgspec.json.encode(
            {"Filters": {"VmTypeNames": list(missing)}, "DryRun": False}).decode())
        answer: _Types = driven.door.answers["ListVmTypes"]
        if answer.NextPageToken:
            raise PartyMalformed()
        return {kind.VmTypeName: kind for kind in answer.VmTypes}

    stated = {name: _Type(name, int(match[1]), int(match[2]))
            for name in names if (match := _TINA.fullmatch(name))}
    others = sorted(name for name in names if name and name not in stated)
    return stated | cached_lookup(driven.account, ("outscale", region), others, fetch)


def _server(row: _Vm, sizes: Mapping[str, int | None],
              types: Mapping[str, _Type]) -> Server:
    kind = types.get(row.VmType or "")
    ips = [ip for nic in row.Nics or () for ip in nic.PrivateIps or ()]
    devices = row.BlockDeviceMappings
    tags = {tag.Key: tag.Value or "" for tag in row.Tags or () if tag.Key is not None}
    return Server(
        id=row.VmId,
        name=tags.get("Name", ""),
        cpu=kind and kind.VcoreCount,
        memory_mib=None if kind is None or kind.MemorySize is None else rounded_up(kind.MemorySize * 1024, 1),
        disk_gib=None if devices is None else total(
            (sizes.get(one.Bsu.VolumeId) if one.Bsu else None for one in devices), 1),
        **by_scope([
            row.PrivateIp, row.PublicIp, *(text for ip in ips for text in (
                ip.PrivateIp, ip.LinkPublicIp and ip.LinkPublicIp.PublicIp))]),
        status=_STATUS.get(row.State or "", Status.UNKNOWN),
        party_status=row.State or "",
        created_at=parse_time(row.CreationDate),
        zone=(row.Placement and row.Placement.SubregionName) or "",
        instance_type=row.VmType or "",
        tags=tags,
        image_id=row.ImageId,
        os=os_family(row.OsFamily),
        vpc_id=row.NetId,
        subnet_id=row.SubnetId,
        security_groups=groups([None if row.SecurityGroups is None else [
            group.SecurityGroupId for group in row.SecurityGroups]]),
        key_name=row.KeypairName,
    )


BRIDGE = Bridge(
    module="outscale",
    driver="OutscaleNodeDriver",
    keys=("access_key", "secret_key"),
    url=lambda credentials, region: f"https://api.{region}.outscale.com",
    arguments=lambda credentials, region: {"region": region},
    calls=(Call("ListVms", r"POST /api/latest/ReadVms", _Vms),
           Call("ListVolumes", r"POST /api/latest/ReadVolumes", _Volumes),
           Call("ListVmTypes", r"POST /api/latest/ReadVmTypes", _Types),
           Call("ListRegions", r"POST /api/latest/ReadRegions", _Regions, rows=False)),
    mend=_mend,
    servers=_list_servers,
    regions=lambda driven: [Region(one["RegionName"]) for one in driven.driver.ex_list_regions()],
    check=lambda driven, source: driven.driver.list_nodes(ex_data=_page(1, None)),
)

PARTY = party_of(
    BRIDGE,
    name="outscale",
    order="none documented; opaque tokens that prove nothing",
    title="3DS OUTSCALE",
    reference="https://docs.outscale.com/api.html#readvms",
    permissions=("api:ReadVms", "api:ReadVolumes", "api:ReadVmTypes", "api:ReadRegions"),
    region_form=r"(cloudgouv-)?[a-z]{2}-[a-z]{4,9}-[0-9]{1,2}",
    default_region="eu-west-2",
    calls_a_second=5,
    code=lambda answer: "{Type}.{Code}".format(**answer["Errors"][0]),
    errors={                                # https://docs.outscale.com/api-errors.html
        "AccessDenied.1": WRONG_KEY,
        "AccessDenied.4": MISSING_RIGHT,
        "AccessDenied.5": MISSING_RIGHT,
        "AccessDenied.7": MISSING_RIGHT,
        "AccessDenied.6": THROTTLED,
        "AccessDenied.24": THROTTLED,
        "AccessDenied.25": THROTTLED,
        "AccessDenied.11": LOCKED,          # until the support unlocks it
        "AccessDenied.13": LOCKED,          # for 60 seconds
        "AccessDenied.14": ADDRESS,         # the account's API access rules: addresses and certificates
        "PasswordExpired": EXPIRED_KEY,
        "AuthFailure": WRONG_KEY,
        "InvalidResource.5043": REGION,
        "InvalidParameterValue": MALFORMED,
    },
)

"""Volcano Engine ECS: DescribeInstances 2020-04-01, signed with HMAC-SHA256 (SigV4 with other names).

https://www.volcengine.com/docs/6396/70466 (ECS), /docs/6396/76562 (volumes), /docs/6369/67269 (signature),
/docs/6408/78947 (common errors); the same API in English: https://docs.byteplus.com/en/docs/ecs/DescribeInstances

Units: MemorySize MiB, volumes GiB (Size is a number or a text with one). Times: RFC 3339 with +08:00; UpdatedAt is the
party's own. Paging: opaque tokens, MaxResults at most 100 (default 10!); TotalCount is in the model, but nowhere is it
stated to be filled, so it is not used. No documented order. Lists may be null.

The list names volumes by id only: EBS DescribeVolumes (service storage_ebs) gives their sizes, 100 ids to a call, for
the servers that are shown. A volume that it does not show any more makes the server's disks unknown. Local disks are
in the list itself. Of an interface the list gives the primary address and IPv6; --deep reads the interfaces (VPC
DescribeNetworkInterfaces 2020-04-01 by the models of volcenginesdk-vpc, 100 rows to a page) for their secondary private
addresses and the elastic address of each. How many ids that call takes was not found; 100 are sent.

Host names: SERVICE.REGION.volcengineapi.com, with "-" for "_" (the SDK's StandardEndpointResolver; its default takes
open.volcengineapi.com for most regions, which answers the same). What an unknown region gives is not documented, so
an empty list is believed only of a region that DescribeRegions names.

Rates: none are published, 10 calls a second are a careful guess. A role: STS AssumeRole 2018-01-01, an hour, narrowed
to what is called here. The names of the rights follow the service names; the vendor's list of them was not seen.
"""

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Generic, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from ...cloud import api

_PAGE = 100
_VOLUMES = 100                              # most ids, and most volumes, of one call
_INTERFACES = 100                           # most interfaces that one call gives
_WORKERS = 10
_T = TypeVar("_T")

_STATUS = {                                 # Status, all words of the documented filter
    "CREATING": api.Status.BUILD,
    "RUNNING": api.Status.ACTIVE,
    "STOPPING": api.Status.STOPPING,
    "STOPPED": api.Status.SHUTOFF,
    "REBOOTING": api.Status.REBOOT,
    "STARTING": api.Status.STARTING,
    "REBUILDING": api.Status.REBUILD,       # the system volume is replaced
    "RESIZING": api.Status.RESIZE,
    "ERROR": api.Status.ERROR,
    "DELETING": api.Status.DELETED,
    # of the life-cycle page (/docs/6396/67717); how the API spells them is inferred
    "MIGRATING": api.Status.MIGRATING,
    "MAINTAINING": api.Status.ACTIVE,
}
_CHARGES = {"PrePaid": api.PREPAID, "PostPaid": api.POSTPAID}

_ERRORS = {                                 # the exact code, or what stands before its first dot
    "MissingAuthenticationToken": api.WRONG_KEY,
    "MissingSignature": api.WRONG_KEY,
    "InvalidAuthorization": api.WRONG_KEY,
    "InvalidCredential": api.WRONG_KEY,
    "InvalidAccessKey": api.WRONG_KEY,
    "SignatureDoesNotMatch": api.WRONG_KEY,
    "InvalidAccessKeyId": api.WRONG_KEY,
    "AccessKeyNotExist": api.WRONG_KEY,
    "InvalidAccessKeyStatus": api.DISABLED_KEY,
    "AccessKeyIsExpire": api.EXPIRED_KEY,
    "InvalidSecretToken": api.WRONG_TOKEN,
    "InvalidSecurityToken": api.WRONG_TOKEN,
    "SessionTokenInvalid": api.WRONG_TOKEN,
    "RoleNotExist": api.ROLE,
    "UserNotExist": api.WRONG_KEY,
    "AccountNotExist": api.SUSPENDED,
    "AccountNotVerified": api.UNVERIFIED,
    "AccountOverdueError": api.ARREARS,
    "InvalidTimestamp": api.CLOCK,
    "LackPolicy": api.MISSING_RIGHT,
    "LackProjectPolicy": api.MISSING_RIGHT,
    "AccessDenied": api.MISSING_RIGHT,
    "AccessDeniedException": api.MISSING_RIGHT,
    "FlowLimitExceeded": api.THROTTLED,
    "InvalidRegion": api.REGION,            # not documented
    "InvalidRegionId": api.REGION,
    "ServiceNotFound": api.MALFORMED,
    "MethodNotAllowed": api.MALFORMED,
    "MissingParameter": api.MALFORMED,
    "MissingRequestInfo": api.MALFORMED,
    "InvalidArgument": api.MALFORMED,
    "InvalidParameter": api.MALFORMED,
    "InvalidNextToken": api.MALFORMED,
    "InvalidActionOrVersion": api.MALFORMED,
    "InternalError": api.FAILED,
    "InternalServiceError": api.FAILED,
    "InternalServiceTimeout": api.FAILED,
    "ServiceFailure": api.FAILED,
    "ServiceUnavailable": api.UNAVAILABLE,
}


# ---------------------------------------------------------------- the shapes that we read

class _Volume(msgspec.Struct, gc=False):
    VolumeId: api.Text


class _LocalVolume(msgspec.Struct, gc=False):
    Size: api.Count | None = None           # GiB of each
    number: api.Count | None = msgspec.field(default=None, name="Count")


class _Interface(msgspec.Struct, gc=False):
    NetworkInterfaceId: str | None = None
    Type: str | None = None
    PrimaryIpAddress: str | None = None
    Ipv6Addresses: list[str] | None = None
    VpcId: str | None = None
    SubnetId: str | None = None
    SecurityGroupIds: api.Whole[list[str] | None] = None


class _Placement(msgspec.Struct, gc=False):
    DedicatedHostId: str | None = None


class _Eip(msgspec.Struct, gc=False):
    IpAddress: str | None = None


class _Tag(msgspec.Struct, gc=False):
    Key: str | None = None
    Value: str | None = None


class _Instance(msgspec.Struct, gc=False):
    InstanceId: api.Text
    InstanceName: str | None = None
    Status: str | None = None
    InstanceTypeId: str | None = None
    Cpus: api.Count | None = None
    MemorySize: api.Count | None = None
    Volumes: list[_Volume] | msgspec.UnsetType | None = msgspec.UNSET
    LocalVolumes: api.Nested = msgspec.UNSET
    NetworkInterfaces: list[_Interface] | None = None
    EipAddress: _Eip | None = None
    RdmaIpAddresses: list[str] | None = None        # of a high-performance cluster's own network
    CreatedAt: str | None = None
    UpdatedAt: str | None = None
    ZoneId: str | None = None
    ProjectName: str | None = None
    Tags: list[_Tag] | None = None
    ImageId: str | None = None
    OsType: str | None = None
    VpcId: str | None = None
    KeyPairName: str | None = None
    InstanceChargeType: str | None = None
    SpotStrategy: str | None = None
    ExpiredAt: str | None = None
    Placement: _Placement | None = None


class _Instances(msgspec.Struct):
    Instances: list[_Instance] | None
    NextToken: api.Strict[str | None] = None


class _EbsVolume(msgspec.Struct, gc=False):
    VolumeId: api.Text
    Size: api.Count | Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}\Z")] | None = None


class _Volumes(msgspec.Struct):
    TotalCount: api.Count
    Volumes: list[_EbsVolume] | None


class _ElasticIp(msgspec.Struct, gc=False):
    EipAddress: str | None = None


class _PrivateIp(msgspec.Struct, gc=False):
    PrivateIpAddress: str | None = None
    Primary: bool | None = None
    AssociatedElasticIp: _ElasticIp | None = None


class _PrivateIps(msgspec.Struct, gc=False):
    PrivateIpSet: list[_PrivateIp] | None = None


class _FullInterface(msgspec.Struct, gc=False):
    NetworkInterfaceId: api.Text
    AssociatedElasticIp: _ElasticIp | None = None
    PrivateIpSets: _PrivateIps | None = None

    @property
    def private(self) -> list[_PrivateIp]:
        sets = (self.PrivateIpSets and self.PrivateIpSets.PrivateIpSet) or ()
        return sorted(sets, key=lambda one: not one.Primary)

    @property
    def elastic(self) -> list[_ElasticIp | None]:
        return [self.AssociatedElasticIp, *(one.AssociatedElasticIp for one in self.private)]


class _FullInterfaces(msgspec.Struct):
    TotalCount: api.Count
    NetworkInterfaceSets: list[_FullInterface] | None


class _Region(msgspec.Struct):
    RegionId: api.Text


class _Regions(msgspec.Struct):
    Regions: list[_Region]
    NextToken: api.Strict[str | None] = None


class _Credentials(msgspec.Struct):
    AccessKeyId: api.Text
    SecretAccessKey: api.Text
    SessionToken: api.Text
    ExpiredTime: datetime


class _Assumed(msgspec.Struct):
    Credentials: _Credentials


class _Envelope(msgspec.Struct, Generic[_T]):
    Result: _T


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    size = _PAGE if window.last is None else min(_PAGE, window.last + 1)    # one more tells whether more follow

    def fetch(token: str | None) -> api.Page[_Instance]:
        query = {"MaxResults": str(size), **api.given(ProjectName=client.project, NextToken=token)}
        answer = _call(client, "DescribeInstances", query, _Instances)
        rows = client.of_project(answer.Instances or [], lambda row: row.ProjectName)
        return api.Page([(row.InstanceId, row) for row in rows], token=answer.NextToken)

    rows = api.by_token(fetch, window, stable=False)
    sizes, full = client.run_all(
        lambda: _sizes(client, [volume.VolumeId for row in rows.rows for volume in row.Volumes or ()]),
        lambda: _full(client, rows.rows) if client.account.deep else {})
    return rows.listing(lambda row: _server(row, sizes, full))


def _server(row: _Instance, sizes: Mapping[str, int | None], full: Mapping[str, _FullInterface]) -> api.Server:
    """`full`: the interfaces that --deep has read, by their id."""
    interfaces = sorted(row.NetworkInterfaces or (), key=lambda i: i.Type != "primary")
    primary = interfaces[0] if interfaces else _Interface()
    is_spot = row.SpotStrategy in ("SpotAsPriceGo", "SpotWithPriceLimit")
    charge = api.SPOT if is_spot else _CHARGES.get(row.InstanceChargeType or "")
    lan: list[str | None] = []
    wan = [row.EipAddress and row.EipAddress.IpAddress]
    for interface in interfaces:
        more = full.get(interface.NetworkInterfaceId or "")
        lan += [interface.PrimaryIpAddress, *(one.PrivateIpAddress for one in (more.private if more else ())),
                *(interface.Ipv6Addresses or ())]
        wan += [one and one.EipAddress for one in (more.elastic if more else ())]
    return api.Server(
        id=row.InstanceId,
        name=row.InstanceName or "",
        cpu=row.Cpus,
        memory_mib=row.MemorySize,
        disk_gib=_disk_gib(row, sizes),
        **api.addresses([*lan, *(row.RdmaIpAddresses or ())], wan),
        **PARTY.status_of(row.Status),
        created_at=api.parse_time(row.CreatedAt),
        updated_at=api.parse_time(row.UpdatedAt),
        zone=row.ZoneId or "",
        project_id=row.ProjectName or "",
        instance_type=row.InstanceTypeId or "",
        tags=api.labelled((tag.Key, tag.Value) for tag in row.Tags or ()),
        image_id=row.ImageId,
        os=api.os_family(row.OsType),
        vpc_id=row.VpcId or primary.VpcId,
        subnet_id=primary.SubnetId,
        security_groups=api.groups(interface.SecurityGroupIds for interface in interfaces),
        key_name=row.KeyPairName,
        charge_type=charge,
        expires_at=api.parse_time(row.ExpiredAt) if charge == api.PREPAID else None,
        host_id=row.Placement and row.Placement.DedicatedHostId,
    )


def _disk_gib(row: _Instance, sizes: Mapping[str, int | None]) -> int | None:
    """None if the answer says nothing of volumes, or names one whose size is not known."""
    local = api.nested(row.LocalVolumes, _LocalVolume)
    if row.Volumes is msgspec.UNSET or local is None:
        return None
    own = api.total_gib(None if disk.number is None or disk.Size is None else disk.number * disk.Size for disk in local)
    return api.disk_gib(own, {volume.VolumeId for volume in row.Volumes or ()}, sizes)


def _sizes(client: api.Client, ids: Sequence[str]) -> dict[str, int | None]:
    """Volume -> GiB, of those that are still there."""
    def walk(batch: Sequence[str]) -> list[_EbsVolume]:
        def fetch(number: int, size: int) -> api.Page[_EbsVolume]:
            query = {**api.numbered("VolumeIds", batch), "PageNumber": str(number), "PageSize": str(size)}
            answer = _call(client, "DescribeVolumes", query, _Volumes)
            return api.Page([(volume.VolumeId, volume) for volume in answer.Volumes or ()], answer.TotalCount)

        return api.by_page(fetch, api.Window(1, len(batch)), _VOLUMES, _WORKERS, _VOLUMES).rows

    return {volume.VolumeId: None if volume.Size is None else int(volume.Size)
            for volume in client.in_batches(list(dict.fromkeys(ids)), _VOLUMES, walk)}


def _full(client: api.Client, rows: Sequence[_Instance]) -> dict[str, _FullInterface]:
    """The interfaces of these rows, by id; one that went meanwhile is missing."""
    def walk(batch: Sequence[str]) -> list[_FullInterface]:
        def fetch(number: int, size: int) -> api.Page[_FullInterface]:
            query = {**api.numbered("NetworkInterfaceIds", batch), "PageNumber": str(number), "PageSize": str(size)}
            answer = _call(client, "DescribeNetworkInterfaces", query, _FullInterfaces)
            return api.Page([(one.NetworkInterfaceId, one) for one in answer.NetworkInterfaceSets or ()],
                            answer.TotalCount)

        interfaces = api.by_page(fetch, api.Window(1, len(batch)), _INTERFACES, _WORKERS, _INTERFACES).rows
        if not interfaces:                  # one may have gone meanwhile, but hardly all: no right to see them
            raise api.PartyMalformed("The party shows none of the interfaces that it listed.")
        return interfaces

    ids = [i.NetworkInterfaceId for row in rows for i in row.NetworkInterfaces or () if i.NetworkInterfaceId]
    return {one.NetworkInterfaceId: one for one in client.in_batches(list(dict.fromkeys(ids)), _INTERFACES, walk)}


# ---------------------------------------------------------------- regions, check

def list_regions(client: api.Client) -> list[api.Region]:
    """https://docs.byteplus.com/en/docs/ecs/DescribeRegions"""
    def fetch(token: str | None) -> api.Page[api.Region]:
        answer = _call(client, "DescribeRegions", {"MaxResults": "100", **api.given(NextToken=token)}, _Regions)
        return api.Page([(row.RegionId, api.Region(row.RegionId)) for row in answer.Regions], token=answer.NextToken)

    return api.by_token(fetch).rows


def check(client: api.Client) -> None:
    """Each right that a listing needs."""
    one = {"PageNumber": "1", "PageSize": "1"}
    client.run_all(lambda: _call(client, "DescribeInstances", {"MaxResults": "1"}, _Instances),
                   lambda: _call(client, "DescribeVolumes", one, _Volumes),
                   lambda: client.account.deep and _call(client, "DescribeNetworkInterfaces", one, _FullInterfaces))


# ---------------------------------------------------------------- the call, with the account's keys or an assumed role

_SERVICES = {"DescribeVolumes": "storage_ebs", "DescribeNetworkInterfaces": "vpc"}      # of other calls: ecs
_VERSIONS = {"ecs": "2020-04-01", "storage_ebs": "2020-04-01", "vpc": "2020-04-01", "sts": "2018-01-01"}
_STS_REGION = "cn-beijing"                  # STS has one host and this region for all


def _call(client: api.Client, action: str, query: Mapping[str, str], shape: type[_T]) -> _T:
    service = _SERVICES.get(action, "ecs")
    url = client.url(f"https://{service.replace('_', '-')}.{client.region}.volcengineapi.com/")

    def signed(keys: api.Keys) -> _T:
        return client.call(action, lambda: sign(service, action, client.region, url, query, keys, time.time()),
                           _Envelope[shape]).Result

    if "role_trn" in client.credentials:
        return client.with_session("role", lambda: _assume(client), signed)
    return signed(_own_keys(client))


def _assume(client: api.Client) -> tuple[float, api.Keys]:
    """AssumeRole, narrowed to what we call, whatever the role itself may do.

    https://www.volcengine.com/docs/6257/86374
    """
    rights = [*PARTY.permissions, *(PARTY.deep_permissions if client.account.deep else ())]
    narrowed = {"Statement": [{"Effect": "Allow", "Action": rights, "Resource": ["*"]}]}
    query = {"RoleTrn": client.credentials["role_trn"], "RoleSessionName": "twocloud", "DurationSeconds": "3600",
             "Policy": msgspec.json.encode(narrowed).decode()}
    url = client.url("https://sts.volcengineapi.com/")
    session = client.call("AssumeRole", lambda: sign("sts", "AssumeRole", _STS_REGION, url, query, _own_keys(client),
                                                     time.time()), _Envelope[_Assumed]).Result.Credentials
    return session.ExpiredTime.timestamp(), api.Keys(
        session.AccessKeyId, session.SecretAccessKey, session.SessionToken)


def _own_keys(client: api.Client) -> api.Keys:
    keys = client.credentials
    return api.Keys(keys["access_key_id"], keys["secret_access_key"], keys.get("session_token"))


def sign(service: str, action: str, region: str, url: str, query: Mapping[str, str], keys: api.Keys,
         now: float) -> api.Request:
    """HMAC-SHA256. `now`: Unix time; the party allows fifteen minutes of difference."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    query = {"Action": action, "Version": _VERSIONS[service], **query}
    quoted = urlencode(sorted(query.items()), quote_via=quote, safe="")
    headers = {"host": urlsplit(url).netloc, "x-content-sha256": hashlib.sha256().hexdigest(), "x-date": stamp,
               **({"x-security-token": keys.session_token} if keys.session_token else {})}
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = "\n".join(("GET", "/", quoted, lines, names, headers["x-content-sha256"]))
    scope = f"{stamp[:8]}/{region}/{service}/request"
    to_sign = f"HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = keys.secret_access_key.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return api.Request("GET", f"{url}?{quoted}", {
        **headers, "authorization": f"HMAC-SHA256 Credential={keys.access_key_id}/{scope}, SignedHeaders={names}, "
                                    f"Signature={signature}"})


_code = api.error_at("ResponseMetadata.Error.Code")


def error_code(response: api.Response) -> str | None:
    """A throttle's word may be part of a longer one."""
    code = _code(response)
    return "FlowLimitExceeded" if code and "FlowLimitExceeded" in code else code


# https://github.com/volcengine/mcp-server, server/mcp_server_vke: both READMEs
_REGION_NAMES = {
    "cn-beijing": ("China North 2 (Beijing)", "华北2（北京）"),
    "cn-beijing2": ("China North 3 (Beijing)", "华北3（北京）"),
    "cn-datong": ("China North 4 (Datong)", "华北4（大同）"),
    "cn-wulanchabu": ("China North 5 (Ulanqab)", "华北5（乌兰察布）"),
    "cn-shanghai": ("China East 2 (Shanghai)", "华东2（上海）"),
    "cn-guangzhou": ("China South 1 (Guangzhou)", "华南1（广州）"), "cn-hongkong": ("China (Hong Kong)", "中国香港"),
    "ap-southeast-1": ("Asia Pacific SE 1 (Johor)", "亚太东南（柔佛）"),
    "ap-southeast-3": ("Asia Pacific SE 3 (Jakarta)", "亚太东南（雅加达）"),
}

PARTY = api.Party(
    name="volcengine",
    title="Volcano Engine ECS",
    reference="https://docs.byteplus.com/en/docs/ecs/DescribeInstances",
    order="none documented; opaque tokens that prove nothing",
    credentials=(("access_key_id", "secret_access_key", "session_token?"),
                 ("access_key_id", "secret_access_key", "role_trn")),
    forms={"role_trn": r"trn:iam::[0-9]{1,20}:role/[A-Za-z0-9_.@+=,-]{1,64}"},
    permissions=("ecs:DescribeInstances", "storage_ebs:DescribeVolumes", "ecs:DescribeRegions"),
    deep_permissions=("vpc:DescribeNetworkInterfaces",),
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z]{2,4}(-[a-z0-9]{1,13}){1,4}",
    default_region="cn-beijing",
    unknown_region_is_empty=True,
    project="a project's name",
    project_form=r"[A-Za-z0-9_.-]{1,64}",
    regional_limits=True,
    limits=api.unpublished(10, "DescribeInstances", "DescribeVolumes", "DescribeNetworkInterfaces", "DescribeRegions",
                           "AssumeRole"),
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)

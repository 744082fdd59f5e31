"""Volcano Engine ECS: DescribeInstances 2020-04-01, signed with HMAC-SHA256 (SigV4 with other names).

https://www.volcengine.com/docs/6396/70466 (ECS), /docs/6396/76562 (volumes), /docs/6369/67269 (signature),
/docs/6408/78947 (common errors); the same API in English: https://docs.byteplus.com/en/docs/ecs/DescribeInstances

Units: MemorySize MiB, volumes GiB (Size is a number or a text with one). Times: RFC 3339 with +08:00; UpdatedAt is the
party's own. Paging: opaque tokens, MaxResults at most 100 (default 10!); TotalCount is in the model, but nowhere is it
said to be filled, so it is not used. No documented order. Lists may be null.

The list names volumes by id only: EBS DescribeVolumes (service storage_ebs) gives their sizes, 100 ids to a call, for
the servers that are shown. A volume that it does not show any more makes the server's disks unknown. Local disks are
in the list itself. Of an interface the list gives the primary address and IPv6; secondary private addresses and
elastic addresses of other interfaces than the server's own are in neither call.

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
from typing import Annotated, Generic, Protocol, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from ...cloud.cache import with_session
from ...cloud.decoding import Nested, Strict, nested, read, refusal
from ...cloud.paging import Page, by_page, by_token
from ...concurrency import run_all, run_both
from ...errors import (
    ARREARS,
    CLOCK,
    DISABLED_KEY,
    EXPIRED_KEY,
    FAILED,
    MALFORMED,
    MISSING_RIGHT,
    REGION,
    ROLE,
    SUSPENDED,
    THROTTLED,
    UNAVAILABLE,
    UNVERIFIED,
    WRONG_KEY,
    WRONG_TOKEN,
    PartyMalformed,
)
from ...model import (
    WHOLE,
    Account,
    Count,
    Keys,
    Limit,
    Listing,
    Party,
    Region,
    Request,
    Response,
    Send,
    Server,
    Source,
    Status,
    Text,
    Window,
    addresses,
    labelled,
    parse_time,
    total_gib,
)

_PAGE = 100
_VOLUMES = 100                              # most ids, and most volumes, of one call
_WORKERS = 10
_T = TypeVar("_T")

_STATUS = {                                 # Status, all words of the documented filter
    "CREATING": Status.BUILD,
    "RUNNING": Status.ACTIVE,
    "STOPPING": Status.STOPPING,
    "STOPPED": Status.SHUTOFF,
    "REBOOTING": Status.REBOOT,
    "STARTING": Status.STARTING,
    "REBUILDING": Status.REBUILD,           # the system volume is replaced
    "RESIZING": Status.RESIZE,
    "ERROR": Status.ERROR,
    "DELETING": Status.DELETED,
    # of the life-cycle page (/docs/6396/67717); how the API spells them is inferred
    "MIGRATING": Status.MIGRATING,
    "MAINTAINING": Status.ACTIVE,
}

_ERRORS = {                                 # the exact code, or what stands before its first dot
    "MissingAuthenticationToken": WRONG_KEY,
    "MissingSignature": WRONG_KEY,
    "InvalidAuthorization": WRONG_KEY,
    "InvalidCredential": WRONG_KEY,
    "InvalidAccessKey": WRONG_KEY,
    "SignatureDoesNotMatch": WRONG_KEY,
    "InvalidAccessKeyId": WRONG_KEY,
    "AccessKeyNotExist": WRONG_KEY,
    "InvalidAccessKeyStatus": DISABLED_KEY,
    "AccessKeyIsExpire": EXPIRED_KEY,
    "InvalidSecretToken": WRONG_TOKEN,
    "InvalidSecurityToken": WRONG_TOKEN,
    "SessionTokenInvalid": WRONG_TOKEN,
    "RoleNotExist": ROLE,
    "UserNotExist": WRONG_KEY,
    "AccountNotExist": SUSPENDED,
    "AccountNotVerified": UNVERIFIED,
    "AccountOverdueError": ARREARS,
    "InvalidTimestamp": CLOCK,
    "LackPolicy": MISSING_RIGHT,
    "LackProjectPolicy": MISSING_RIGHT,
    "AccessDenied": MISSING_RIGHT,
    "AccessDeniedException": MISSING_RIGHT,
    "FlowLimitExceeded": THROTTLED,
    "InvalidRegion": REGION,                # not documented
    "InvalidRegionId": REGION,
    "ServiceNotFound": MALFORMED,
    "MethodNotAllowed": MALFORMED,
    "MissingParameter": MALFORMED,
    "MissingRequestInfo": MALFORMED,
    "InvalidArgument": MALFORMED,
    "InvalidParameter": MALFORMED,
    "InvalidNextToken": MALFORMED,
    "InvalidActionOrVersion": MALFORMED,
    "InternalError": FAILED,
    "InternalServiceError": FAILED,
    "InternalServiceTimeout": FAILED,
    "ServiceFailure": FAILED,
    "ServiceUnavailable": UNAVAILABLE,
}


# ---------------------------------------------------------------- the shapes that we read

class _Volume(msgspec.Struct, gc=False):
    VolumeId: Text


class _LocalVolume(msgspec.Struct, gc=False):
    Size: Count | None = None               # GiB of each
    number: Count | None = msgspec.field(default=None, name="Count")


class _Interface(msgspec.Struct, gc=False):
    Type: str | None = None
    PrimaryIpAddress: str | None = None
    Ipv6Addresses: list[str] | None = None


class _Eip(msgspec.Struct, gc=False):
    IpAddress: str | None = None


class _Tag(msgspec.Struct, gc=False):
    Key: str | None = None
    Value: str | None = None


class _Instance(msgspec.Struct, gc=False):
    InstanceId: Text
    InstanceName: str | None = None
    Status: str | None = None
    InstanceTypeId: str | None = None
    Cpus: Count | None = None
    MemorySize: Count | None = None
    Volumes: list[_Volume] | msgspec.UnsetType | None = msgspec.UNSET
    LocalVolumes: Nested = msgspec.UNSET
    NetworkInterfaces: list[_Interface] | None = None
    EipAddress: _Eip | None = None
    CreatedAt: str | None = None
    UpdatedAt: str | None = None
    ZoneId: str | None = None
    ProjectName: str | None = None
    Tags: list[_Tag] | None = None


class _Instances(msgspec.Struct):
    Instances: list[_Instance] | None
    NextToken: Strict[str | None] = None


class _EbsVolume(msgspec.Struct, gc=False):
    VolumeId: Text
    Size: Count | Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}\Z")] | None = None


class _Volumes(msgspec.Struct):
    TotalCount: Count
    Volumes: list[_EbsVolume] | None


class _Region(msgspec.Struct):
    RegionId: Text


class _Regions(msgspec.Struct):
    Regions: list[_Region]
    NextToken: Strict[str | None] = None


class _Credentials(msgspec.Struct):
    AccessKeyId: Text
    SecretAccessKey: Text
    SessionToken: Text
    ExpiredTime: datetime


class _Assumed(msgspec.Struct):
    Credentials: _Credentials


class _Envelope(msgspec.Struct, Generic[_T]):
    Result: _T


class _Error(msgspec.Struct):
    Code: str


class _Metadata(msgspec.Struct):
    Error: _Error | None = None


class _Refusal(msgspec.Struct):
    ResponseMetadata: _Metadata


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    call = _caller(source.region, account, send)
    size = _PAGE if window.last is None else min(_PAGE, window.last + 1)    # one more tells whether more follow
    asked = {"MaxResults": str(size), **({"ProjectName": account.project} if account.project is not None else {})}

    def fetch(token: str | None) -> Page[_Instance]:
        answer = call("ecs", "DescribeInstances", {**asked, **({"NextToken": token} if token else {})}, _Instances)
        rows = answer.Instances or []
        if account.project is not None and any(row.ProjectName != account.project for row in rows):
            raise PartyMalformed("The party listed servers of another project than the account's.")
        return Page([(row.InstanceId, row) for row in rows], token=answer.NextToken)

    found = by_token(fetch, window, stable=False)
    sizes = _sizes(call, [volume.VolumeId for row in found.rows for volume in row.Volumes or ()])
    return Listing([_server(row, sizes) for row in found.rows], found.total)


def _server(row: _Instance, sizes: Mapping[str, int | None]) -> Server:
    interfaces = sorted(row.NetworkInterfaces or (), key=lambda i: i.Type != "primary")
    lan4, lan6 = addresses(*(ip for i in interfaces for ip in (i.PrimaryIpAddress, *(i.Ipv6Addresses or ()))))
    wan4, wan6 = addresses(row.EipAddress and row.EipAddress.IpAddress)
    return Server(
        id=row.InstanceId,
        name=row.InstanceName or "",
        cpu=row.Cpus,
        memory_mib=row.MemorySize,
        disk_gib=_disk_gib(row, sizes),
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_STATUS.get((row.Status or "").strip(), Status.UNKNOWN),
        party_status=row.Status or "",
        created_at=parse_time(row.CreatedAt),
        updated_at=parse_time(row.UpdatedAt),
        zone=row.ZoneId or "",
        project_id=row.ProjectName or "",
        instance_type=row.InstanceTypeId or "",
        tags=labelled((tag.Key, tag.Value) for tag in row.Tags or ()),
    )


def _disk_gib(row: _Instance, sizes: Mapping[str, int | None]) -> int | None:
    """None if the answer says nothing of volumes, or names one whose size is not known."""
    local = nested(row.LocalVolumes, _LocalVolume)
    if row.Volumes is msgspec.UNSET or local is None:
        return None
    ids = {volume.VolumeId for volume in row.Volumes or ()}
    return total_gib([*(sizes.get(key) for key in ids), *(
        None if disk.number is None or disk.Size is None else disk.number * disk.Size for disk in local)])


def _sizes(call: "_Call", ids: Sequence[str]) -> dict[str, int | None]:
    """Volume -> GiB, of those that are still there."""
    def walk(batch: Sequence[str]) -> list[_EbsVolume]:
        asked = {f"VolumeIds.{n}": key for n, key in enumerate(batch, 1)}

        def fetch(number: int, size: int) -> Page[_EbsVolume]:
            answer = call("storage_ebs", "DescribeVolumes",
                          {**asked, "PageNumber": str(number), "PageSize": str(size)}, _Volumes)
            return Page([(volume.VolumeId, volume) for volume in answer.Volumes or ()], answer.TotalCount)

        return by_page(fetch, WHOLE, _VOLUMES, _WORKERS).rows

    ids = list(dict.fromkeys(ids))
    batches = [ids[at:at + _VOLUMES] for at in range(0, len(ids), _VOLUMES)]
    found = run_all([lambda batch=batch: walk(batch) for batch in batches], _WORKERS)
    return {volume.VolumeId: None if volume.Size is None else int(volume.Size) for part in found for volume in part}


# ---------------------------------------------------------------- regions, check

def list_regions(account: Account, send: Send) -> list[Region]:
    """https://docs.byteplus.com/en/docs/ecs/DescribeRegions"""
    call = _caller(account.regions[0] if account.regions else PARTY.default_region, account, send)

    def fetch(token: str | None) -> Page[Region]:
        answer = call("ecs", "DescribeRegions", {"MaxResults": "100", **({"NextToken": token} if token else {})},
                      _Regions)
        return Page([(found.RegionId, Region(found.RegionId)) for found in answer.Regions], token=answer.NextToken)

    return by_token(fetch).rows


def check(source: Source, account: Account, send: Send) -> None:
    """Both rights that a listing needs."""
    call = _caller(source.region, account, send)
    run_both(lambda: call("ecs", "DescribeInstances", {"MaxResults": "1"}, _Instances),
         lambda: call("storage_ebs", "DescribeVolumes", {"PageNumber": "1", "PageSize": "1"}, _Volumes))


# ---------------------------------------------------------------- an assumed role

_STS_REGION = "cn-beijing"                  # STS has one host and this region for all


def _assume(account: Account, send: Send) -> tuple[float, Keys]:
    """AssumeRole, narrowed to what we call, whatever the role itself may do.

    https://www.volcengine.com/docs/6257/86374
    """
    narrowed = {"Statement": [{"Effect": "Allow", "Action": list(PARTY.permissions), "Resource": ["*"]}]}
    asked = {"RoleTrn": account.credentials["role_trn"], "RoleSessionName": "twocloud", "DurationSeconds": "3600",
             "Policy": msgspec.json.encode(narrowed).decode()}
    url = account.url("https://sts.volcengineapi.com/")
    made = _read(send("AssumeRole", lambda: sign("sts", "AssumeRole", _STS_REGION, url, asked, _own_keys(account),
                                                 time.time())), _Assumed).Credentials
    return made.ExpiredTime.timestamp(), Keys(made.AccessKeyId, made.SecretAccessKey, made.SessionToken)


# ---------------------------------------------------------------- the call

_VERSIONS = {"ecs": "2020-04-01", "storage_ebs": "2020-04-01", "sts": "2018-01-01"}


class _Call(Protocol):
    def __call__(self, service: str, action: str, asked: Mapping[str, str], shape: type[_T], /) -> _T: ...


def _caller(region: str, account: Account, send: Send) -> _Call:
    """Signs with the account's own keys, or those of the role that it names."""
    def call(service: str, action: str, asked: Mapping[str, str], shape: type[_T]) -> _T:
        url = account.url(f"https://{service.replace('_', '-')}.{region}.volcengineapi.com/")

        def signed(keys: Keys) -> _T:
            return _read(send(action, lambda: sign(service, action, region, url, asked, keys, time.time())), shape)

        if "role_trn" in account.credentials:
            return with_session(account, "role", lambda: _assume(account, send), signed)
        return signed(_own_keys(account))

    return call


def _own_keys(account: Account) -> Keys:
    given = account.credentials
    return Keys(given["access_key_id"], given["secret_access_key"], given.get("session_token"))


def _read(response: Response, shape: type[_T]) -> _T:
    answer: _Envelope[_T] = read(response, _Envelope[shape])
    return answer.Result


def sign(service: str, action: str, region: str, url: str, asked: Mapping[str, str], keys: Keys,
         now: float) -> Request:
    """HMAC-SHA256. `now`: Unix time; the party allows fifteen minutes of difference."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    asked = {"Action": action, "Version": _VERSIONS[service], **asked}
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(asked.items()))
    headers = {"host": urlsplit(url).netloc, "x-content-sha256": hashlib.sha256().hexdigest(), "x-date": stamp,
               **({"x-security-token": keys.session_token} if keys.session_token else {})}
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = "\n".join(("GET", "/", query, lines, names, headers["x-content-sha256"]))
    scope = f"{stamp[:8]}/{region}/{service}/request"
    to_sign = f"HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = keys.secret_access_key.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return Request("GET", f"{url}?{query}", {
        **headers, "authorization": f"HMAC-SHA256 Credential={keys.access_key_id}/{scope}, SignedHeaders={names}, "
                                    f"Signature={signature}"})


def error_code(response: Response) -> str | None:
    """A throttle's word may be part of a longer one."""
    if b'"Error"' not in response.body:
        return None
    said = refusal(response, _Refusal)
    error = said and said.ResponseMetadata.Error
    return error and ("FlowLimitExceeded" if "FlowLimitExceeded" in error.Code else error.Code)


PARTY = Party(
    name="volcengine",
    title="Volcano Engine ECS",
    reference="https://docs.byteplus.com/en/docs/ecs/DescribeInstances",
    order="none documented; opaque tokens that prove nothing",
    credentials=(("access_key_id", "secret_access_key", "session_token?"),
                 ("access_key_id", "secret_access_key", "role_trn")),
    forms={"role_trn": r"trn:iam::[0-9]{1,20}:role/[A-Za-z0-9_.@+=,-]{1,64}"},
    permissions=("ecs:DescribeInstances", "storage_ebs:DescribeVolumes", "ecs:DescribeRegions"),
    region_form=r"[a-z]{2,4}(-[a-z0-9]{1,13}){1,4}",
    default_region="cn-beijing",
    unknown_region_is_empty=True,
    project="a project's name",
    project_form=r"[A-Za-z0-9_.-]{1,64}",
    limits={action: Limit(10) for action in ("DescribeInstances", "DescribeVolumes", "DescribeRegions", "AssumeRole")},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)

"""Alibaba Cloud ECS: DescribeInstances 2014-05-26, signed with ACS3-HMAC-SHA256.

https://help.aliyun.com/zh/ecs/developer-reference/api-ecs-2014-05-26-describeinstances; signed by cloud/alibaba.py

Units: Memory MiB, disks GiB. Times: UTC, minutes only. There is no time of the last update. Paging: numbered pages of
at most 100 (default 10!) with TotalCount; with MaxResults or NextToken in the request TotalCount means nothing.
Lists are wrapped twice. No documented order. Sent as the vendor's own SDK sends it: POST, no body, words in the query.

The list names no disks; DescribeDisks does, 500 to a call, but its filter takes one instance only. So a whole list
reads the region's disks side by side with its instances, and a window asks for each of its servers or for the
region's disks, whichever takes fewer calls. A disk counts for each instance that it is attached to. An instance
without any listed disk came or went between the two lists: its disks are not known.

Until 2025-12-20 keys without the right were answered with an empty list and HTTP 200, now with 403 Forbidden.RAM
(Announcement of changes to the authentication mechanism for ECS query APIs). Private installations may still do it:
an empty list is believed only after a DryRun of the same call, which is answered DryRunOperation if all is well.

ResourceGroupId as a request parameter knows neither the default group nor groups of more than 1000 resources, so
--project is applied to the rows of the whole list, and the keys need the right for the whole account.

The list names the addresses of every interface, but of public addresses only the instance's own; --deep asks for the
elastic addresses bound to secondary interfaces (DescribeNetworkInterfaces, 100 interfaces to a call).

Organisations: a resource directory's ListAccounts 2022-04-19 names its members, 100 to a page with a total, without the
management account; below a folder there are calls for direct children only, so its folders are walked. A member is
opened by a role, the account whose keys they are by these. Fields and words are those of the vendor's documents and
model; the host of the API and the codes of its errors are unconfirmed.
https://www.alibabacloud.com/help/en/resource-management/resource-directory/developer-reference/

Rates: none are published (Quota Center shows an account its own), 10 calls a second are a careful guess. Host names:
the vendor's SDK has a table of exceptions, those in it that are open to customers are here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from ...cloud import api

_PAGE = 100
_DISKS = 500                                # most disks, or interfaces, that one call gives
_INTERFACES = 100                           # most interfaces that one call takes
_WORKERS = 10
_T = TypeVar("_T")

_STATUS = {                                 # Status, all documented words; there is none for a reboot or an error
    "Pending": api.Status.BUILD,            # being created
    "Starting": api.Status.STARTING,
    "Running": api.Status.ACTIVE,
    "Stopping": api.Status.STOPPING,
    "Stopped": api.Status.SHUTOFF,
}

_MEMBER = ("CreateSuccess", "InviteSuccess", "PromoteSuccess", "PromoteVerifying", "PromoteFailed", "PromoteExpired",
           "PromoteCancelled")              # Status of a member; before these it is none yet. Promotions change nothing
_LEAVING = ("Deleting",)                    # DeletionStatus; before it, deletion is only checked, or it has failed

_NO_DIRECTORY = api.denied("no organisation: the account is not the management account of a resource directory, nor "
                           "its delegated administrator")
_NO_FOLDER = api.denied("wrong folder: the resource directory has no folder of this id")
_ELSEWHERE = api.Meaning(api.PartyFailed, "the region does not offer this call")
_ERRORS = {                                 # https://api.aliyun.com/document/Ecs/2014-05-26/errorCode
    **api.alibaba.ERRORS,
    "EntityNotExists": _NO_FOLDER,          # these six: unconfirmed
    "EntityNotExists.Folder": _NO_FOLDER,
    "EntityNotExist.Folder": _NO_FOLDER,
    "EntityNotExists.ResourceDirectory": _NO_DIRECTORY,
    "EntityNotExist.ResourceDirectory": _NO_DIRECTORY,
    "ResourceDirectoryNotInUse": _NO_DIRECTORY,
    "RegionId": _ELSEWHERE,                 # RegionId.ApiNotSupported
    "DryRunOperation": api.MALFORMED,       # meant where we ask for it, see _confirm
}

_HOSTS = {
    "cn-hangzhou": "ecs-cn-hangzhou", "cn-shanghai-finance-1": "ecs-cn-hangzhou",
    "cn-shenzhen-finance-1": "ecs-cn-hangzhou", "cn-north-2-gov-1": "ecs", "cn-hangzhou-finance": "ecs",
}


# ---------------------------------------------------------------- the shapes that we read

_CHARGES = {"PrePaid": api.PREPAID, "PostPaid": api.POSTPAID}


class _Ips(msgspec.Struct, gc=False):
    IpAddress: list[str] | None = None


class _Vpc(msgspec.Struct, gc=False):
    PrivateIpAddress: _Ips | None = None
    VpcId: str | None = None
    VSwitchId: str | None = None


class _Groups(msgspec.Struct, gc=False):
    SecurityGroupId: api.Whole[list[str] | None] = None


class _Host(msgspec.Struct, gc=False):
    DedicatedHostId: str | None = None


class _Eip(msgspec.Struct, gc=False):
    IpAddress: str | None = None


class _PublicIp(msgspec.Struct, gc=False):
    PublicIpAddress: str | None = None


class _PrivateIp(msgspec.Struct, gc=False):
    PrivateIpAddress: str | None = None
    Primary: bool | None = None
    AssociatedPublicIp: _PublicIp | None = None


class _PrivateIps(msgspec.Struct, gc=False):
    PrivateIpSet: list[_PrivateIp] | None = None


class _Ipv6(msgspec.Struct, gc=False):
    Ipv6Address: str | None = None


class _Ipv6s(msgspec.Struct, gc=False):
    Ipv6Set: list[_Ipv6] | None = None


class _Interface(msgspec.Struct, gc=False):
    NetworkInterfaceId: str | None = None
    Type: str | None = None
    PrimaryIpAddress: str | None = None
    PrivateIpSets: _PrivateIps | None = None
    Ipv6Sets: _Ipv6s | None = None


class _Interfaces(msgspec.Struct, gc=False):
    NetworkInterface: list[_Interface] | None = None


class _Tag(msgspec.Struct, gc=False):
    TagKey: str | None = None
    TagValue: str | None = None


class _Tags(msgspec.Struct, gc=False):
    Tag: list[_Tag] | None = None


class _Instance(msgspec.Struct, gc=False):
    InstanceId: api.Text
    InstanceName: str | None = None
    Status: str | None = None
    InstanceType: str | None = None
    Cpu: api.Count | None = None
    Memory: api.Count | None = None
    VpcAttributes: _Vpc | None = None
    NetworkInterfaces: _Interfaces | None = None
    InnerIpAddress: _Ips | None = None      # of the classic network, as is PublicIpAddress
    RdmaIpAddress: _Ips | None = None       # of a high-performance cluster's own network
    PublicIpAddress: _Ips | None = None
    EipAddress: _Eip | None = None
    CreationTime: str | None = None
    ZoneId: str | None = None
    ResourceGroupId: api.Strict[str | None] = None      # "" is the default group
    Tags: _Tags | None = None
    ImageId: str | None = None
    OSType: str | None = None
    SecurityGroupIds: _Groups | None = None
    KeyPairName: str | None = None
    InstanceChargeType: str | None = None
    SpotStrategy: str | None = None
    ExpiredTime: str | None = None          # a day in 2099 if it does not end
    DedicatedHostAttribute: _Host | None = None


class _InstanceList(msgspec.Struct):
    Instance: list[_Instance]


class _Instances(msgspec.Struct):
    TotalCount: api.Count
    Instances: _InstanceList


class _Attachment(msgspec.Struct, gc=False):
    InstanceId: Any = msgspec.UNSET


class _Attachments(msgspec.Struct, gc=False):
    Attachment: api.Strict[list[_Attachment] | None] = None


class _Disk(msgspec.Struct, gc=False):
    DiskId: api.Text
    Size: api.Count | None = None
    InstanceId: Any = None                  # "" if several may attach it
    Attachments: api.Strict[_Attachments | None] = None


class _DiskList(msgspec.Struct):
    Disk: list[_Disk]


class _Disks(msgspec.Struct):
    Disks: _DiskList
    NextToken: api.Strict[str | None] = None


class _FullInterface(msgspec.Struct, gc=False):
    NetworkInterfaceId: api.Text
    AssociatedPublicIp: _PublicIp | None = None
    PrivateIpSets: _PrivateIps | None = None


class _FullInterfaceList(msgspec.Struct):
    NetworkInterfaceSet: list[_FullInterface]


class _FullInterfaces(msgspec.Struct):
    NetworkInterfaceSets: _FullInterfaceList
    NextToken: api.Strict[str | None] = None


class _Region(msgspec.Struct):
    RegionId: api.Text
    LocalName: str | None = None


class _RegionList(msgspec.Struct):
    Region: list[_Region]


class _Regions(msgspec.Struct):
    Regions: _RegionList


class _Caller(msgspec.Struct):
    AccountId: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,20}\Z")]


class _Account(msgspec.Struct):
    AccountId: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,20}\Z")]
    Status: api.Text
    DisplayName: str | None = None
    DeletionStatus: api.Strict[str | None] = None


class _AccountList(msgspec.Struct):
    Account: list[_Account]


class _Accounts(msgspec.Struct):
    TotalCount: api.Count
    Accounts: _AccountList


class _Folder(msgspec.Struct):
    FolderId: api.Text


class _FolderList(msgspec.Struct):
    Folder: list[_Folder]


class _Folders(msgspec.Struct):
    TotalCount: api.Count
    Folders: _FolderList


class _DryRun(msgspec.Struct):
    """Of its answer nothing is read."""


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    project = client.project
    wanted = window if project is None else api.WHOLE
    if window.last is None:
        instances, disks = client.run_all(lambda: _instances(client, wanted), lambda: _disks(client, [{}]))
        rows, total = _kept(instances, project, window)
    else:
        instances = _instances(client, wanted)
        rows, total = _kept(instances, project, window)
        each = len(rows) <= 1 + 2 * (instances.total or 0) // _DISKS        # about two disks to an instance
        disks = _disks(client, [{"InstanceId": row.InstanceId} for row in rows] if each else [{}])
    if rows and not disks:
        _confirm(client, "DescribeDisks")
    sizes = api.attached(((disk.InstanceId, *(a.InstanceId for a in _attachments(disk))), disk.Size) for disk in disks)
    elastic = _elastic(client, rows) if client.account.deep else {}
    return api.Listing([_server(row, sizes.of(row.InstanceId), elastic, client.region) for row in rows], total)


def _kept(instances: api.Rows[_Instance], project: str | None, window: api.Window) -> tuple[list[_Instance], int]:
    """The rows of the project and the window, and how many there are of the project."""
    if project is None:
        return instances.rows, instances.total or 0
    rows = [row for row in instances.rows
            if ("default" if row.ResourceGroupId == "" else row.ResourceGroupId) == project]
    return api.cut(rows, window), len(rows)


def _instances(client: api.Client, window: api.Window) -> api.Rows[_Instance]:
    def fetch(number: int, size: int) -> api.Page[_Instance]:
        query = {"PageNumber": str(number), "PageSize": str(size)}
        answer = _call(client, "DescribeInstances", query, _Instances)
        return api.Page([(row.InstanceId, row) for row in answer.Instances.Instance], answer.TotalCount)

    rows = api.by_page(fetch, window, _PAGE, _WORKERS)
    if not rows.total:
        _confirm(client, "DescribeInstances")
    return rows


def _confirm(client: api.Client, action: str) -> None:
    """Returns if these keys may make the call, raises what it is refused with else."""
    try:
        _call(client, action, {"DryRun": "true"}, _DryRun)
    except api.PartyMalformed as refused:
        if refused.party_code == "DryRunOperation":
            return
        raise
    raise api.PartyMalformed("The party listed nothing, and does not say whether the account may see it.")


def _charge(row: _Instance) -> str | None:
    is_spot = row.SpotStrategy in ("SpotWithPriceLimit", "SpotAsPriceGo")
    return api.SPOT if is_spot else _CHARGES.get(row.InstanceChargeType or "")


def _server(row: _Instance, disk_gib: int | None, elastic: Mapping[str, Sequence[str | None]],
            region: str) -> api.Server:
    lan: list[str | None] = [*_ips(row.VpcAttributes and row.VpcAttributes.PrivateIpAddress)]
    wan = [row.EipAddress.IpAddress if row.EipAddress else None, *_ips(row.PublicIpAddress)]
    for interface in sorted(_interfaces(row), key=lambda i: i.Type != "Primary"):
        sets = (interface.PrivateIpSets and interface.PrivateIpSets.PrivateIpSet) or ()
        lan += [interface.PrimaryIpAddress,
                *(one.PrivateIpAddress for one in sorted(sets, key=lambda one: not one.Primary)),
                *(one.Ipv6Address for one in (interface.Ipv6Sets and interface.Ipv6Sets.Ipv6Set) or ())]
        wan += elastic.get(interface.NetworkInterfaceId or "", ())
    return api.Server(
        id=row.InstanceId,
        name=row.InstanceName or "",
        cpu=row.Cpu,
        memory_mib=row.Memory,
        disk_gib=disk_gib,
        **api.addresses([*lan, *_ips(row.InnerIpAddress), *_ips(row.RdmaIpAddress)], wan),
        **PARTY.status_of(row.Status),
        created_at=api.parse_time(row.CreationTime),
        zone=row.ZoneId or "",
        project_id=row.ResourceGroupId or "",
        instance_type=row.InstanceType or "",
        tags=api.labelled((tag.TagKey, tag.TagValue) for tag in (row.Tags and row.Tags.Tag) or ()),
        image_id=row.ImageId,
        os=api.os_family(row.OSType),
        vpc_id=row.VpcAttributes and row.VpcAttributes.VpcId,
        subnet_id=row.VpcAttributes and row.VpcAttributes.VSwitchId,
        security_groups=api.ids(row.SecurityGroupIds and row.SecurityGroupIds.SecurityGroupId),
        key_name=row.KeyPairName,
        charge_type=_charge(row),
        expires_at=api.parse_time(row.ExpiredTime) if _charge(row) == api.PREPAID else None,
        host_id=row.DedicatedHostAttribute and row.DedicatedHostAttribute.DedicatedHostId,
        console_url=f"https://ecs.console.aliyun.com/server/{row.InstanceId}/detail?regionId={region}",
    )


def _attachments(disk: _Disk) -> Sequence[_Attachment]:
    return (disk.Attachments and disk.Attachments.Attachment) or ()


def _ips(ips: _Ips | None) -> list[str]:
    return (ips and ips.IpAddress) or []


def _interfaces(row: _Instance) -> list[_Interface]:
    return (row.NetworkInterfaces and row.NetworkInterfaces.NetworkInterface) or []


# ---------------------------------------------------------------- disks; --deep: elastic addresses of interfaces

def _disks(client: api.Client, filters: Sequence[Mapping[str, str]]) -> list[_Disk]:
    """The disks of each filter; {} for those of the region."""
    def walk(query: Mapping[str, str]) -> list[_Disk]:
        def fetch(token: str | None) -> api.Page[_Disk]:
            answer = _call(client, "DescribeDisks", {**query, **_after(token)}, _Disks)
            return api.Page([(disk.DiskId, disk) for disk in answer.Disks.Disk], token=answer.NextToken)

        return api.by_token(fetch).rows

    return list({disk.DiskId: disk for disks in client.for_each(filters, walk) for disk in disks}.values())


def _elastic(client: api.Client, rows: Iterable[_Instance]) -> dict[str, list[str | None]]:
    """Interface -> the elastic addresses bound to it, for the secondary interfaces of these rows."""
    def walk(ids: Sequence[str]) -> list[_FullInterface]:
        def fetch(token: str | None) -> api.Page[_FullInterface]:
            query = {**api.numbered("NetworkInterfaceId", ids), **_after(token)}
            answer = _call(client, "DescribeNetworkInterfaces", query, _FullInterfaces)
            return api.Page([(i.NetworkInterfaceId, i) for i in answer.NetworkInterfaceSets.NetworkInterfaceSet],
                            token=answer.NextToken)

        interfaces = api.by_token(fetch).rows
        if not interfaces:                  # one may have gone meanwhile, but hardly all: no right to see them
            raise api.PartyMalformed("The party shows none of the interfaces that it listed.")
        return interfaces

    ids = [i.NetworkInterfaceId for row in rows for i in _interfaces(row)
           if i.NetworkInterfaceId and i.Type != "Primary"]
    return {interface.NetworkInterfaceId: [one.PublicIpAddress for one in (
        interface.AssociatedPublicIp,
        *(ip.AssociatedPublicIp for ip in (interface.PrivateIpSets and interface.PrivateIpSets.PrivateIpSet) or ()),
    ) if one] for interface in client.in_batches(ids, _INTERFACES, walk)}


def _after(token: str | None) -> dict[str, str]:
    return {"MaxResults": str(_DISKS), **api.given(NextToken=token)}


# ---------------------------------------------------------------- regions, check

def list_regions(client: api.Client) -> list[api.Region]:
    answer = _call(client, "DescribeRegions", {"AcceptLanguage": "en-US"}, _Regions)
    return [api.Region(region.RegionId, region.LocalName or "") for region in answer.Regions.Region]


def check(client: api.Client) -> None:
    """Both rights that a listing needs, without listing anything."""
    client.for_each(("DescribeInstances", "DescribeDisks"), lambda action: _confirm(client, action))


# ---------------------------------------------------------------- the members of a resource directory

def discover(client: api.Client) -> list[api.Member]:
    """All members of the resource directory and the account itself, or the members below a folder."""
    caller, rows = client.run_all(
        lambda: _opened(client, lambda keys: api.alibaba.sts(client, "GetCallerIdentity", {}, _Caller, keys)),
        lambda: _accounts(client, None) if client.below is None else _below(client, client.below))
    members = [_member(row, caller.AccountId) for row in rows]
    if client.below is None and all(member.id != caller.AccountId for member in members):
        members.append(api.Member(id=caller.AccountId, door=True))
    return members


def _member(row: _Account, own: str) -> api.Member:
    closed = row.Status if row.Status not in _MEMBER else ""
    if row.DeletionStatus in _LEAVING:
        closed = row.DeletionStatus or ""
    return api.Member(id=row.AccountId, name=row.DisplayName or "", closed=closed, door=row.AccountId == own)


def _below(client: api.Client, folder: str) -> list[_Account]:
    return client.tree(folder, lambda parent: _accounts(client, parent), lambda parent: _folders(client, parent),
                       (lambda row: row.AccountId, lambda row: row.FolderId))


def _accounts(client: api.Client, parent: str | None) -> list[_Account]:
    """Of the whole directory, or directly in a folder."""
    action = "ListAccounts" if parent is None else "ListAccountsForParent"

    def fetch(number: int, size: int) -> api.Page[_Account]:
        answer = _directory(client, action, number, size, parent, _Accounts)
        return api.Page([(row.AccountId, row) for row in answer.Accounts.Account], answer.TotalCount)

    return api.by_page(fetch, api.WHOLE, _PAGE, _WORKERS).rows


def _folders(client: api.Client, parent: str) -> list[_Folder]:
    def fetch(number: int, size: int) -> api.Page[_Folder]:
        answer = _directory(client, "ListFoldersForParent", number, size, parent, _Folders)
        return api.Page([(row.FolderId, row) for row in answer.Folders.Folder], answer.TotalCount)

    return api.by_page(fetch, api.WHOLE, _PAGE, _WORKERS).rows


def _directory(client: api.Client, action: str, number: int, size: int, parent: str | None, shape: type[_T]) -> _T:
    url = client.url("https://resourcedirectory.aliyuncs.com/")
    query = {"PageNumber": str(number), "PageSize": str(size), **api.given(ParentFolderId=parent)}
    return _opened(client, lambda keys: api.alibaba.call(client, action, "2022-04-19", url, query, shape, keys))


# ---------------------------------------------------------------- the call, with the account's keys or an assumed role

def _call(client: api.Client, action: str, query: Mapping[str, str], shape: type[_T]) -> _T:
    url = client.url(f"https://{_HOSTS.get(client.region, f'ecs.{client.region}')}.aliyuncs.com/")
    query = {"RegionId": client.region, **query}
    return _opened(client, lambda keys: api.alibaba.call(client, action, "2014-05-26", url, query, shape, keys))


def _opened(client: api.Client, use: Callable[[api.Keys], _T]) -> _T:
    """`use` with the keys that open the account: its own, those of its role, or those of the role in a member."""
    member, discovery = client.account.member, client.account.discovery
    if member is not None and not member.door:
        role = f"acs:ram::{member.id}:role/{(discovery and discovery.role) or PARTY.role}"
        return client.with_session("member", lambda: _opened(client.door, lambda keys: api.alibaba.assume(
            client, role, keys, _narrowed(client))), use)
    return api.alibaba.opened(client, _narrowed(client.door), use)


def _narrowed(client: api.Client) -> list[api.alibaba.Statement]:
    """What a session may do: what we call, and of a door also to find and open members."""
    statements = [api.alibaba.allow((*PARTY.permissions, *PARTY.deep_permissions))]
    if client.account.discovery is not None and client.account.member is None:
        role = f"acs:ram::*:role/{client.account.discovery.role or PARTY.role}"
        statements += [api.alibaba.allow(_LISTING), api.alibaba.allow([_ASSUME], role)]
    return statements


_LISTING = ["resourcemanager:ListAccounts", "resourcemanager:ListAccountsForParent",
            "resourcemanager:ListFoldersForParent"]
_ASSUME = "sts:AssumeRole"                  # of the one role in members

PARTY = api.Party(
    name="aliyun",
    title="Alibaba Cloud ECS",
    reference="https://help.aliyun.com/zh/ecs/developer-reference/api-ecs-2014-05-26-describeinstances",
    order="none documented; numbered pages",
    credentials=(("access_key_id", "access_key_secret", "security_token?", "external_id?"),
                 ("access_key_id", "access_key_secret", "role_arn", "external_id?")),
    forms=api.alibaba.FORMS,
    permissions=("ecs:DescribeInstances", "ecs:DescribeDisks", "ecs:DescribeRegions"),
    deep_permissions=("ecs:DescribeNetworkInterfaces",),
    **api.region_names(api.alibaba.REGION_NAMES),
    region_form=r"[a-z]{2,4}(-[a-z0-9]{1,13}){1,4}",
    discover=discover,
    discover_permissions=(*_LISTING, _ASSUME),
    below="a folder of the resource directory, r-… or fd-…",
    below_form=r"(?:r|fd)-[A-Za-z0-9]{1,32}",
    role="ResourceDirectoryAccountAccessRole",
    role_form=r"[A-Za-z0-9.@_-]{1,64}",
    shared_limits=frozenset(("AssumeRole", "ListAccounts", "ListAccountsForParent", "ListFoldersForParent")),
    default_region="cn-beijing",
    project='a resource group, rg-…, or "default"',
    project_form=r"rg-[A-Za-z0-9]{1,60}|default",
    regional_limits=True,
    limits=api.unpublished(10, "DescribeInstances", "DescribeDisks", "DescribeNetworkInterfaces", "DescribeRegions",
                           "AssumeRole", "ListAccounts", "ListAccountsForParent", "ListFoldersForParent"),
    error_code=api.error_at("Code"),
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)

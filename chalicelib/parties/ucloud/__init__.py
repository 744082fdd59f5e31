"""UCloud UHost: DescribeUHostInstance (no version), signed with UCloud's SHA-1 over names and values.

https://docs.ucloud.cn/api/uhost-api/describe_uhost_instance (call), https://docs.ucloud.cn/api/summary/signature
(signature), https://docs.ucloud.cn/api/summary/public (error codes)

Units: memory MB (taken as MiB), disks GB. Times: Unix seconds. Paging: Offset from 0, Limit at most 100 (default 20!),
TotalCount always; no documented order. One call gives all fields: every disk and every address with its kind. There is
no time of the last update. Errors come inside HTTP 200 as a RetCode; an unknown region is 230 with "[Region]" in its
Message, which was seen but is not documented. A server's Tag is the one business group that it belongs to.

Without ProjectId an account shows its default project alone, with no hint of the others; so it is always sent: the
credentials' or the account's --project. Rows do not name their project; an unknown one is refused with 292.

The signature holds neither time nor nonce: a request that is overheard can be sent again for ever, so https alone.
SecurityToken (temporary keys of STS) is signed like any other parameter, as the vendor's Go SDK does it; its Python SDK
has no such field. No rate is published (153 says that one was passed): ten calls a second is a careful one.
The name of GetRegion's permission is unconfirmed; it is needed for region=all alone.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, TypeVar
from urllib.parse import urlencode

import msgspec

from ...cloud import api

_PAGE = 100
_WORKERS = 10                               # one second's worth of the rate
_Seconds = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]       # Unix time, to the end of the year 9999
_T = TypeVar("_T")

_STATUS = {                                 # State, all documented words; "" (their own query timed out) is UNKNOWN
    "Initializing": api.Status.BUILD,
    "Install Fail": api.Status.ERROR,
    "Starting": api.Status.STARTING,
    "Running": api.Status.ACTIVE,
    "Stopping": api.Status.STOPPING,
    "Stopped": api.Status.SHUTOFF,
    "Rebooting": api.Status.REBOOT,
}
_CHARGES = {                                # ChargeType
    "Year": api.PREPAID,
    "Month": api.PREPAID,
    "Dynamic": api.POSTPAID,                # by the hour
    "Postpay": api.POSTPAID,
    "Preemptive": api.SPOT,
}

_ERRORS = {                                 # RetCode; those of every product, then those that UHost gives for a list
    "110": api.FAILED,                      # their own answer took longer than 60 s
    "130": api.FAILED,                      # their gateway or their authentication
    "150": api.UNAVAILABLE,
    "153": api.THROTTLED,
    "160": api.MALFORMED,                   # no Action
    "161": api.MALFORMED,                   # unknown Action
    "170": api.MALFORMED,                   # no signature
    "171": api.WRONG_KEY,                   # signature; also keys of another UCloud than this one
    "172": api.WRONG_KEY,                   # no such user, by the public key
    "174": api.WRONG_TOKEN,                 # unknown token
    "230": api.MALFORMED,                   # a parameter
    "230.Region": api.REGION,               # that parameter, see error_code
    "292": api.Meaning(api.PartyDenied, "wrong project: the account has no project of this id"),
    "293": api.REGION_CLOSED,               # no right to the zone
    "294": api.ADDRESS,
    "295": api.MFA,                         # the safety lock: a second confirmation
    "299": api.MISSING_RIGHT,
    "8029": api.MALFORMED,
    "8300": api.MISSING_RIGHT,
    **dict.fromkeys(("8025", "8031", "8041", "8826", "8828", "8829", "8834", "8835", "8853", "8857", "8858", "8880",
                     "8881", "8884", "8906", "8981"), api.FAILED),
}


# ---------------------------------------------------------------- the shapes that we read

class _Disk(msgspec.Struct, gc=False):
    Size: api.Count | None = None


class _Address(msgspec.Struct, gc=False):
    IP: str | None = None
    Type: str | None = None
    Default: str | None = None
    Weight: int | None = None
    VPCId: str | None = None
    SubnetId: str | None = None


class _Instance(msgspec.Struct, gc=False):
    UHostId: api.Text
    Name: str | None = None
    State: str | None = None
    CPU: api.Count | None = None
    Memory: api.Count | None = None
    DiskSet: list[_Disk] | None = None
    IPSet: list[_Address] | None = None
    CreateTime: _Seconds | None = None
    Zone: str | None = None
    MachineType: str | None = None
    UHostType: str | None = None
    Tag: str | None = None
    BasicImageId: str | None = None         # ImageId is the system disk's
    BasicImageName: str | None = None
    OsType: str | None = None
    ChargeType: str | None = None
    ExpireTime: _Seconds | None = None      # of one that is paid by the hour: the end of this hour


class _Instances(msgspec.Struct):
    RetCode: api.Count
    TotalCount: api.Count
    UHostSet: list[_Instance] | None


class _Region(msgspec.Struct):
    Region: api.Text
    RegionName: str | None = None


class _Regions(msgspec.Struct):
    RetCode: api.Count
    Regions: list[_Region]


class _Refusal(msgspec.Struct):
    RetCode: api.Count
    Message: str | None = None


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    project = client.project or client.credentials["project_id"]

    def fetch(offset: int, limit: int) -> api.Page[_Instance]:
        query = {"Region": client.region, "ProjectId": project, "Offset": str(offset), "Limit": str(limit)}
        answer = _call(client, "DescribeUHostInstance", query, _Instances)
        return api.Page([(row.UHostId, row) for row in answer.UHostSet or ()], answer.TotalCount)

    return api.by_offset(fetch, window, _PAGE, _WORKERS).listing(lambda row: _server(row, project))


def _server(row: _Instance, project: str) -> api.Server:
    own = row.IPSet or ()
    private = sorted((a for a in own if a.Type == "Private"), key=lambda a: a.Default != "true")
    public = sorted((a for a in own if a.Type and a.Type != "Private"), key=lambda a: -(a.Weight or 0))
    primary, charge = private[0] if private else _Address(), _CHARGES.get(row.ChargeType or "")
    return api.Server(
        id=row.UHostId,
        name=row.Name or "",
        cpu=row.CPU,
        memory_mib=row.Memory,
        disk_gib=_sum(row.DiskSet),
        **api.addresses(lan=(address.IP for address in private),
                        wan=(address.IP for address in public)),     # Bgp, BGP, Internation; the one in use weighs most
        **PARTY.status_of(row.State),
        created_at=datetime.fromtimestamp(row.CreateTime, UTC) if row.CreateTime else None,
        zone=row.Zone or "",
        project_id=project,
        instance_type=row.MachineType or row.UHostType or "",
        tags={"Tag": row.Tag} if row.Tag else {},
        image_id=row.BasicImageId,
        image_name=row.BasicImageName,
        os=api.os_family(row.OsType),
        vpc_id=primary.VPCId,
        subnet_id=primary.SubnetId,
        charge_type=charge,
        expires_at=datetime.fromtimestamp(row.ExpireTime, UTC) if row.ExpireTime and charge == api.PREPAID else None,
    )


def _sum(disks: list[_Disk] | None) -> int | None:
    return None if disks is None else api.total_gib(disk.Size for disk in disks)


# ---------------------------------------------------------------- regions, the call

def list_regions(client: api.Client) -> list[api.Region]:
    """https://docs.ucloud.cn/api/uaccount-api/get_region: one row for each zone that the account may use."""
    names = {row.Region: row.RegionName or "" for row in _call(client, "GetRegion", {}, _Regions).Regions}
    return [api.Region(code, name) for code, name in names.items()]


def _call(client: api.Client, action: str, query: Mapping[str, str], shape: type[_T]) -> _T:
    url = client.url("https://api.ucloud.cn/")
    return client.call(action, lambda: sign(url, {"Action": action, **query}, client.credentials), shape)


def sign(url: str, query: Mapping[str, str], keys: Mapping[str, str]) -> api.Request:
    """SHA-1 of every name and value, sorted by name, and the private key: all bare, with nothing between them."""
    signed = {**query, "PublicKey": keys["public_key"]}
    if "security_token" in keys:
        signed["SecurityToken"] = keys["security_token"]
    text = "".join(name + signed[name] for name in sorted(signed)) + keys["private_key"]
    signed["Signature"] = hashlib.sha1(text.encode()).hexdigest()     # noqa: S324  the party knows no other
    return api.Request("POST", url, {"Content-Type": "application/x-www-form-urlencoded"}, urlencode(signed).encode())


def error_code(response: api.Response) -> str | None:
    """RetCode as text; "230.Region" for the refusal of a region, which its Message alone tells from others."""
    answer = api.refusal(response, _Refusal)
    if answer and answer.RetCode == 230 and "[Region]" in (answer.Message or ""):
        return "230.Region"
    return str(answer.RetCode) if answer and answer.RetCode else None


# https://docs.ucloud.cn/api/summary/regionlist (UCloudDoc-Team/api, with cn-hn1, which is no longer there); the
# English is a translation
_REGION_NAMES = {
    "cn-bj1": ("North China (Beijing)", "华北（北京）"), "cn-bj2": ("North China (Beijing 2)", "华北（北京2）"),
    "cn-wlcb": ("North China (Ulanqab)", "华北（乌兰察布）"),
    "cn-wlcb2": ("North China (Ulanqab 2)", "华北（乌兰察布2）"),
    "cn-sh2": ("East China (Shanghai 2)", "华东（上海2）"), "cn-jx": ("East China (Jiaxing)", "华东（嘉兴）"),
    "cn-sh": ("Financial cloud, East China (Shanghai)", "金融云-华东（上海）"),
    "cn-hn1": ("Central China (Puyang)", "华中（濮阳）"), "cn-gd2": ("South China (Guangzhou 2)", "华南（广州2）"),
    "cn-gd": ("South China (Guangzhou)", "华南（广州）"),
    "cn-guiyang1": ("Southwest China (Guiyang)", "西南（贵阳）"), "hk": ("Hong Kong", "香港"),
    "tw-tp": ("Taiwan (Taipei)", "台湾（台北）"), "sg": ("Singapore", "新加坡"),
    "jpn-tky": ("Japan (Tokyo)", "日本（东京）"), "kr-seoul": ("South Korea (Seoul)", "韩国（首尔）"),
    "th-bkk": ("Thailand (Bangkok)", "泰国（曼谷）"), "idn-jakarta": ("Indonesia (Jakarta)", "印度尼西亚（雅加达）"),
    "vn-sng": ("Vietnam (Ho Chi Minh City)", "越南（胡志明）"),
    "ph-mnl": ("Philippines (Manila)", "菲律宾（马尼拉）"), "ind-mumbai": ("India (Mumbai)", "印度（孟买）"),
    "pk-khi": ("Pakistan (Karachi)", "巴基斯坦（卡拉奇）"), "us-den": ("US (Denver)", "美国（丹佛）"),
    "us-ca": ("US (Los Angeles)", "美国（洛杉矶）"), "us-ws": ("US (Washington)", "美国（华盛顿）"),
    "bra-saopaulo": ("Brazil (Sao Paulo)", "巴西（圣保罗）"), "rus-mosc": ("Russia (Moscow)", "俄罗斯（莫斯科）"),
    "ge-fra": ("Germany (Frankfurt)", "德国（法兰克福）"), "uk-london": ("UK (London)", "英国（伦敦）"),
    "uae-dubai": ("UAE (Dubai)", "阿联酋（迪拜）"), "afr-nigeria": ("Nigeria (Lagos)", "尼日利亚（拉各斯）"),
    "uz-tas": ("Uzbekistan (Tashkent)", "乌兹别克斯坦（塔什干）"),
    "kz-ala": ("Kazakhstan (Almaty)", "哈萨克斯坦（阿拉木图）"),
    "mx-mex": ("Mexico (Mexico City)", "墨西哥（墨西哥城）"),
}

PARTY = api.Party(
    name="ucloud",
    title="UCloud UHost",
    reference="https://docs.ucloud.cn/api/uhost-api/describe_uhost_instance",
    order="none documented; pages at any row",
    credentials=(("public_key", "private_key", "project_id", "security_token?"),),
    forms={"project_id": r"[A-Za-z0-9._-]{1,64}"},
    permissions=("uhost:DescribeUHostInstance", "uaccount:GetRegion"),
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z]{2,4}(-[a-z]{2,16}[0-9]{0,2})?",
    default_region="cn-bj2",
    project="a project's id, asked for in place of the credentials' project_id",
    project_form=r"[A-Za-z0-9._-]{1,64}",
    limits=api.unpublished(10, "DescribeUHostInstance", "GetRegion"),
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
)

"""Amazon EC2: DescribeInstances 2016-11-15 over the query protocol, signed with botocore's SigV4.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html

Units: memory MiB (DescribeInstanceTypes), disks GiB (DescribeVolumes). Times: UTC. Paging: opaque tokens, no total,
no documented order, and a page may be short although more follow; so the list is always walked to its end and
ordered by (created, id). A whole list reads the volumes side by side with the instances; a window reads the volumes
of its own servers afterwards (200 ids to a filter). What a type has is asked once per process: types never change.

LaunchTime is the last start, so `created_at` is the attachment of the primary interface. There is no time of the
last update. Terminated instances stay listed for an hour and are left out. Instance store does not count as disk.
IncludeManagedResources: without it an account can hide machines that AWS services run in it.

Rates: a bucket of 100 calls that refills at 20 a second, per account, region and action
(https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html).
"""

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar, cast
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from ...cloud.cache import cached_lookup, with_session
from ...cloud.decoding import reading
from ...cloud.paging import Page, by_token, cut
from ...concurrency import run_all, run_both
from ...errors import (
    CLOCK,
    EXPIRED_KEY,
    FAILED,
    MALFORMED,
    MISSING_RIGHT,
    REGION_CLOSED,
    SUSPENDED,
    THROTTLED,
    UNAVAILABLE,
    UNVERIFIED,
    WRONG_KEY,
    Meaning,
    PartyDenied,
    PartyMalformed,
    UnknownRegion,
)
from ...model import (
    Account,
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
    Window,
    addresses,
    parse_time,
)

_DEEPEST = 50                               # elements within elements: EC2 has a dozen
_PAGE = 1000                                # most that DescribeInstances and DescribeVolumes take
_TYPES = 100                                # most names that DescribeInstanceTypes takes
_FILTER = 200                               # most values that a request's filters take
_WORKERS = 10
_T = TypeVar("_T")

_STATUS = {                                 # State.Name, the complete enumeration
    "pending": Status.BUILD,                # or STARTING, see _status
    "running": Status.ACTIVE,
    "stopping": Status.STOPPING,
    "stopped": Status.SHUTOFF,              # or SUSPENDED, see _status
    "shutting-down": Status.DELETED,
}
_GONE = "terminated"

_REFUSED = Meaning(PartyDenied, "wrong key, or a region that is not enabled for this account, or a wrong clock: AWS "
                                "says the same of all three")
_SUBSCRIPTION = Meaning(PartyDenied, "product not activated: the account is not signed up for EC2, or its payment is "
                                     "not verified yet")

_ERRORS = {                                 # EC2's and STS's common errors, and what botocore takes for throttling
    "AuthFailure": _REFUSED,
    "InvalidClientTokenId": _REFUSED,
    "UnrecognizedClientException": _REFUSED,
    "SignatureDoesNotMatch": WRONG_KEY,
    "SignatureDoesNotMatch.Expired": CLOCK,                     # our word for what its message says
    "InvalidSignatureException": WRONG_KEY,
    "IncompleteSignature": WRONG_KEY,
    "MissingAuthenticationToken": WRONG_KEY,
    "InvalidSecurity": WRONG_KEY,
    "Blocked": SUSPENDED,
    "PendingVerification": UNVERIFIED,
    "OptInRequired": _SUBSCRIPTION,
    "SubscriptionRequiredException": _SUBSCRIPTION,
    "RegionDisabledException": REGION_CLOSED,
    "RequestExpired": CLOCK,
    "RequestTimeTooSkewed": CLOCK,
    "ExpiredToken": EXPIRED_KEY,
    "ExpiredTokenException": EXPIRED_KEY,
    "UnauthorizedOperation": MISSING_RIGHT,
    "AccessDenied": Meaning(PartyDenied, "wrong role or missing right: the role does not exist, does not trust this "
                                         "key, or the key lacks a permission"),         # STS says no more than that
    "AccessDeniedException": MISSING_RIGHT,
    "NotAuthorized": MISSING_RIGHT,
    "RequestLimitExceeded": THROTTLED,
    "Throttling": THROTTLED,
    "ThrottlingException": THROTTLED,
    "ThrottledException": THROTTLED,
    "RequestThrottled": THROTTLED,
    "RequestThrottledException": THROTTLED,
    "TooManyRequestsException": THROTTLED,
    "EC2ThrottledException": THROTTLED,
    "PriorRequestNotComplete": THROTTLED,
    "BandwidthLimitExceeded": THROTTLED,
    "LimitExceededException": THROTTLED,
    "ProvisionedThroughputExceededException": THROTTLED,
    "TransactionInProgressException": THROTTLED,
    "SlowDown": THROTTLED,
    "InvalidParameterValue": MALFORMED,
    "InvalidParameterCombination": MALFORMED,
    "InvalidParameterDependency": MALFORMED,
    "InvalidParameter": MALFORMED,
    "InvalidQueryParameter": MALFORMED,
    "InvalidCharacter": MALFORMED,
    "MalformedQueryString": MALFORMED,
    "MalformedPolicyDocument": MALFORMED,
    "MissingParameter": MALFORMED,
    "MissingAction": MALFORMED,
    "UnknownParameter": MALFORMED,
    "UnsupportedProtocol": MALFORMED,
    "UnsupportedOperation": MALFORMED,
    "InvalidNextToken": MALFORMED,
    "InvalidPaginationToken": MALFORMED,
    "InvalidInstanceType": MALFORMED,
    "InvalidAction": MALFORMED,
    "NoSuchVersion": MALFORMED,
    "ValidationError": MALFORMED,
    "InternalError": FAILED,
    "InternalFailure": FAILED,
    "Unavailable": UNAVAILABLE,
    "ServiceUnavailable": UNAVAILABLE,
}
_NOT_KNOWN = ("UnknownParameter", "InvalidQueryParameter")      # said of a parameter that an older EC2 does not have


class _Volume(msgspec.Struct):
    size: int | None
    instances: tuple[str, ...]


class _Type(msgspec.Struct):
    cpu: int | None
    memory_mib: int | None


class _Instance(msgspec.Struct):
    """An instance as listed. `disks`: the ids of the volumes that it names. `typical`: it has its type's CPUs."""

    server: Server
    disks: tuple[str, ...]
    typical: bool


# ---------------------------------------------------------------- listing

def list_servers(source: Source, account: Account, window: Window, send: Send) -> Listing:
    call = _caller("ec2", source.region, account, send)

    def types_of(instances: Sequence[_Instance]) -> dict[str, _Type]:
        return _types(call, account, {instance.server.instance_type for instance in instances})

    def typed() -> tuple[list[_Instance], dict[str, _Type]]:
        found = _instances(call, account)
        return found, types_of(cut(found, window))

    if window.last is None or window.last - window.first >= 5 * _FILTER:
        (instances, types), volumes = run_both(typed, lambda: _volumes(call, ()))
        shown = cut(instances, window)
    else:
        instances = _instances(call, account)
        shown = cut(instances, window)
        batches = [shown[at:at + _FILTER] for at in range(0, len(shown), _FILTER)]
        found, types = run_both(lambda: run_all([
            lambda ids=tuple(i.server.id for i in batch): _volumes(call, ids) for batch in batches], _WORKERS),
            lambda: types_of(shown))
        volumes = {key: volume for part in found for key, volume in part.items()}
    sizes: dict[str, int | None] = {}
    for volume in volumes.values():
        for owner in volume.instances:      # a multi-attached volume counts for each instance
            known = sizes.get(owner, 0)
            sizes[owner] = None if known is None or volume.size is None else known + volume.size
    return Listing([_complete(i, volumes, sizes, types) for i in shown], len(instances))


def _complete(instance: _Instance, volumes: Mapping[str, _Volume], sizes: Mapping[str, int | None],
              types: Mapping[str, _Type]) -> Server:
    server, kind = instance.server, types.get(instance.server.instance_type)
    known = all(disk in volumes for disk in instance.disks)     # one came or went between the two lists: not known
    return msgspec.structs.replace(
        server,
        cpu=kind.cpu if instance.typical and kind else server.cpu,
        memory_mib=kind.memory_mib if kind else None,
        disk_gib=sizes.get(server.id, 0) if known else None)


def _instances(call: "_Call", account: Account) -> list[_Instance]:
    asked, ask = {"MaxResults": str(_PAGE)}, _with_managed(call, "DescribeInstances")
    key, _, value = (account.project or "").partition("=")
    if account.project is not None:
        asked |= _filter(f"tag:{key}", [re.sub(r"([\\*?])", r"\\\1", value)])

    def fetch(token: str | None) -> Page[_Instance | None]:
        page = _read(ask({**asked, **({"NextToken": token} if token else {})}), _INSTANCES, _instance)
        if account.project is not None and any(i and i.server.tags.get(key) != value for _, i in page.rows):
            raise PartyMalformed("The party listed instances without the account's tag.")
        return page

    found = [instance for instance in by_token(fetch, stable=False).rows if instance is not None]
    return sorted(found, key=lambda i: (i.server.created_at or _NEVER, i.server.id))


_NEVER = datetime.max.replace(tzinfo=UTC)


def _instance(item: Element, ns: str) -> tuple[str, _Instance | None]:
    key, state = _text(item, ns, "instanceId"), _text(item, ns, "instanceState", "name")
    if not key:
        raise PartyMalformed("The party listed an instance without an id.")
    if state.strip() == _GONE:
        return key, None
    interfaces = sorted(_items(item, ns, "networkInterfaceSet"),
                        key=lambda i: (_count(_text(i, ns, "attachment", "deviceIndex")) or 0,
                                       _count(_text(i, ns, "attachment", "networkCardIndex")) or 0))
    lan, wan = [_text(item, ns, "privateIpAddress")], [_text(item, ns, "ipAddress")]
    for interface in interfaces:
        lan.append(_text(interface, ns, "privateIpAddress"))
        wan.append(_text(interface, ns, "association", "publicIp"))
        for address in sorted(_items(interface, ns, "privateIpAddressesSet"),
                              key=lambda a: _text(a, ns, "primary") != "true"):
            lan.append(_text(address, ns, "privateIpAddress"))
            wan.append(_text(address, ns, "association", "publicIp"))
        lan += [_text(address, ns, "ipv6Address") for address in _items(interface, ns, "ipv6AddressesSet")]
    attached = next((parse_time(_text(i, ns, "attachment", "attachTime")) for i in interfaces
                     if _text(i, ns, "attachment", "deviceIndex") == "0"), None)
    launched = parse_time(_text(item, ns, "launchTime"))
    chosen = [_text(item, ns, "cpuOptions", name) for name in ("coreCount", "threadsPerCore")]
    cores, threads = map(_count, chosen)
    tags = {_text(tag, ns, "key"): _text(tag, ns, "value") for tag in _items(item, ns, "tagSet")}
    (lan4, lan6), (wan4, wan6) = addresses(*lan), addresses(*wan)
    server = Server(
        id=key,
        name=tags.get("Name", ""),
        cpu=cores * threads if cores and threads else None,
        lan_ipv4=lan4,
        wan_ipv4=wan4,
        lan_ipv6=lan6,
        wan_ipv6=wan6,
        status=_status(state.strip(), _text(item, ns, "stateReason", "code"), attached, launched),
        party_status=state,
        created_at=attached or launched,
        zone=_text(item, ns, "placement", "availabilityZone"),
        instance_type=_text(item, ns, "instanceType"),
        tags=tags,
    )
    return key, _Instance(server, tuple(_text(disk, ns, "ebs", "volumeId") or "?"       # "?": one that is never found
                                        for disk in _items(item, ns, "blockDeviceMapping")
                                        if disk.find(f"{ns}ebs") is not None), typical=not any(chosen))


def _status(state: str, reason: str, attached: datetime | None, launched: datetime | None) -> Status:
    """A stopped instance that starts is `pending` as well: its interface is then older than its launch."""
    if state == "pending" and attached and launched and launched - attached > timedelta(minutes=1):
        return Status.STARTING
    if state == "stopped" and reason == "Client.UserInitiatedHibernate":
        return Status.SUSPENDED
    return _STATUS.get(state, Status.UNKNOWN)


# ---------------------------------------------------------------- volumes and types

def _volumes(call: "_Call", instances: Sequence[str]) -> dict[str, _Volume]:
    """Volumes by id: those of the instances, or all of the region if none is named."""
    asked, ask = {"MaxResults": str(_PAGE)}, _with_managed(call, "DescribeVolumes")
    if instances:
        asked |= _filter("attachment.instance-id", instances)

    def fetch(token: str | None) -> Page[tuple[str, _Volume]]:
        return _read(ask({**asked, **({"NextToken": token} if token else {})}), _VOLUMES, _volume)

    return dict(by_token(fetch).rows)


def _with_managed(call: "_Call", action: str) -> Callable[[Mapping[str, str]], Response]:
    """Asks with IncludeManagedResources, and without it where an older EC2 or an emulator does not know it."""
    managed = {"IncludeManagedResources": "true"}

    def ask(asked: Mapping[str, str]) -> Response:
        try:
            return call(action, {**asked, **managed})
        except PartyMalformed as refused:
            if not managed or refused.party_code not in _NOT_KNOWN:
                raise
        managed.clear()
        return call(action, asked)

    return ask


def _volume(item: Element, ns: str) -> tuple[str, tuple[str, _Volume]]:
    key = _text(item, ns, "volumeId")
    owners = {_text(a, ns, "instanceId") for a in _items(item, ns, "attachmentSet")
              if _text(a, ns, "status") != "detached"}
    return key, (key, _Volume(_count(_text(item, ns, "size")), tuple(filter(None, owners))))


def _types(call: "_Call", account: Account, names: Iterable[str]) -> dict[str, _Type]:
    def fetch(missing: Sequence[str]) -> dict[str, _Type]:
        batches = [missing[at:at + _TYPES] for at in range(0, len(missing), _TYPES)]
        found = run_all([lambda batch=batch: _fetch_types(call, batch) for batch in batches], _WORKERS)
        return {name: kind for part in found for name, kind in part.items()}

    return cached_lookup(("aws", account.endpoint), sorted(names), fetch)


def _fetch_types(call: "_Call", names: Sequence[str]) -> dict[str, _Type]:
    try:
        answer = call("DescribeInstanceTypes", {f"InstanceType.{n}": name for n, name in enumerate(names, 1)})
        return dict(row for _, row in _read(answer, _INSTANCE_TYPES, _type).rows)
    except PartyMalformed as refused:
        if refused.party_code != "InvalidInstanceType":         # one retired name refuses the whole call
            raise

    def fetch(token: str | None) -> Page[tuple[str, _Type]]:    # as a filter it is just not found
        answer = call("DescribeInstanceTypes", {**_filter("instance-type", names), "MaxResults": str(_TYPES),
                                              **({"NextToken": token} if token else {})})
        return _read(answer, _INSTANCE_TYPES, _type)

    return dict(by_token(fetch).rows)


def _type(item: Element, ns: str) -> tuple[str, tuple[str, _Type]]:
    name = _text(item, ns, "instanceType")
    return name, (name, _Type(_count(_text(item, ns, "vCpuInfo", "defaultVCpus")),
                              _count(_text(item, ns, "memoryInfo", "sizeInMiB"))))


# ---------------------------------------------------------------- regions, check

def list_regions(account: Account, send: Send) -> list[Region]:
    """Asked in the one region of the partition that no account can disable."""
    partition = _partition((*account.regions, PARTY.default_region)[0])
    region = partition.usual if partition else PARTY.default_region
    call = _caller("ec2", region, account, send)
    page = _read(call("DescribeRegions", {"AllRegions": "true"}), _REGIONS,
                 lambda item, ns: (_text(item, ns, "regionName"), _text(item, ns, "optInStatus")))
    return [Region(name, "", opted != "not-opted-in") for name, opted in page.rows if name]


def check(source: Source, account: Account, send: Send) -> None:
    call = _caller("ec2", source.region, account, send)
    _read(call("DescribeInstances", {"MaxResults": "5"}), _INSTANCES, _instance)


# ---------------------------------------------------------------- an assumed role

def _assume(region: str, account: Account, send: Send) -> tuple[float, Keys]:
    """AssumeRole, narrowed to what we call, whatever the role itself may do.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
    """
    narrowed = {"Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Action": list(PARTY.permissions), "Resource": "*"}]}
    asked = {"RoleArn": account.credentials["role_arn"], "RoleSessionName": "twocloud", "DurationSeconds": "3600",
             "Policy": msgspec.json.encode(narrowed).decode()}
    if "external_id" in account.credentials:
        asked["ExternalId"] = account.credentials["external_id"]
    answer = _caller("sts", region, account, send, account.identity())("AssumeRole", asked)
    with reading():
        root = ElementTree.fromstring(answer.body)                     # noqa: S314  expat stops entity bombs: a test
        ns = root.tag[:root.tag.find("}") + 1]
        found = root.find(f"{ns}AssumeRoleResult/{ns}Credentials")
        ends = parse_time(_text(found, ns, "Expiration")) if found is not None else None
        if found is None or ends is None:
            raise ValueError
        keys = Keys(_text(found, ns, "AccessKeyId"), _text(found, ns, "SecretAccessKey"),
                    _text(found, ns, "SessionToken"))
    return ends.timestamp(), keys


# ---------------------------------------------------------------- the call

_Call = Callable[[str, Mapping[str, str]], Response]
_VERSIONS = {"ec2": "2016-11-15", "sts": "2011-06-15"}


class _Partition(msgspec.Struct):
    """A part of AWS with accounts and hosts of its own. `usual`: the region that is open to each of its accounts."""

    form: str
    suffix: str
    usual: str


@cache
def _partitions() -> list[_Partition]:
    """Botocore's list, which is a few kilobytes."""
    text = (files("botocore") / "data" / "partitions.json").read_bytes()
    return [_Partition(each["regionRegex"], each["outputs"]["dnsSuffix"], each["outputs"]["implicitGlobalRegion"])
            for each in msgspec.json.decode(text)["partitions"]]


def _partition(region: str) -> _Partition | None:
    return next((each for each in _partitions() if re.fullmatch(each.form, region, re.ASCII)), None)


def _host(service: str, region: str, account: Account) -> str:
    """Raises UnknownRegion before any call for a region of no partition: its host could be anybody's."""
    partition = _partition(region)
    if partition is None and account.endpoint is None:
        raise UnknownRegion(f"{PARTY.title} has no such region.")
    return f"{service}.{region}.{partition.suffix if partition else 'amazonaws.com'}"


def _caller(service: str, region: str, account: Account, send: Send, keys: Keys | None = None) -> _Call:
    """Signs with `keys`, or else with the account's own or those of the role that it names."""
    url = account.url(f"https://{_host(service, region, account)}/")
    given = account.credentials
    if keys is None and "role_arn" not in given:
        keys = Keys(given["access_key_id"], given["secret_access_key"], given.get("session_token"))

    def call(action: str, asked: Mapping[str, str]) -> Response:
        body = urlencode({"Action": action, "Version": _VERSIONS[service], **asked}).encode()

        def signed(keys: Keys) -> Response:
            return send(action, lambda: sign(service, region, url, body, keys))

        return signed(keys) if keys else with_session(account, "role", lambda: _assume(region, account, send), signed)

    return call


def sign(service: str, region: str, url: str, body: bytes, keys: Keys) -> Request:
    """Signature version 4 by botocore, at its clock's time."""
    request = AWSRequest("POST", url, data=body, headers={
        "Content-Type": "application/x-www-form-urlencoded; charset=utf-8", "Host": urlsplit(url).netloc})
    SigV4Auth(Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token),
              service, region).add_auth(request)
    return Request("POST", url, dict(request.headers.items()), body)


def _filter(name: str, values: Sequence[str]) -> dict[str, str]:
    return {"Filter.1.Name": name, **{f"Filter.1.Value.{n}": value for n, value in enumerate(values, 1)}}


# ---------------------------------------------------------------- XML

_INSTANCES = ("DescribeInstancesResponse", "reservationSet", "item", "instancesSet")
_VOLUMES = ("DescribeVolumesResponse", "volumeSet")
_INSTANCE_TYPES = ("DescribeInstanceTypesResponse", "instanceTypeSet")
_REGIONS = ("DescribeRegionsResponse", "regionInfo")


def _read(answer: Response, path: Sequence[str], read: Callable[[Element, str], tuple[str, _T]]) -> Page[_T]:
    """The items of the lists at this path, each read and dropped as soon as it is complete, and the next token."""
    with reading():
        try:
            return _read_strictly(answer.body, path, read)
        except SyntaxError:
            return _read_strictly(_FORBIDDEN.sub("\ufffd".encode(), answer.body), path, read)


_FORBIDDEN = re.compile(                    # characters that XML cannot hold, raw or as references
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|&#(?:x0*(?:1?[0-8bcefBCEF]|1[9adAD]|0)|0*(?:[0-8]|1[124-9]|2[0-9]|3[01]));")


def _read_strictly(body: bytes, path: Sequence[str], read: Callable[[Element, str], tuple[str, _T]]) -> Page[_T]:
    rows: list[tuple[str, _T]] = []
    events: Any = ElementTree.iterparse(io.BytesIO(body), ("start", "end"))      # noqa: S314
    ns, above = "", list[str]()
    places: list[str] = []
    element: Element
    for event, element in events:
        if event == "start":
            if not above:
                ns = element.tag[:element.tag.find("}") + 1]
                places = [ns + name for name in path]
            above.append(element.tag)
            if len(above) > _DEEPEST:
                raise ValueError
            continue
        above.pop()
        if above == places:
            if element.tag != f"{ns}item":
                raise PartyMalformed()
            rows.append(read(element, ns))
            element.clear()
    root = cast(Element, events.root)
    if root.tag != places[0] or root.find(places[1]) is None:
        raise PartyMalformed()
    return Page(rows, token=root.findtext(f"{ns}nextToken") or None)


def _text(element: Element, ns: str, *path: str) -> str:
    """The text at the end of the path, "" if there is none. Step by step: ElementPath is slow for paths."""
    *above, last = path
    for part in above:
        below = element.find(ns + part)
        if below is None:
            return ""
        element = below
    return element.findtext(ns + last) or ""


def _items(element: Element, ns: str, name: str) -> list[Element]:
    below = element.find(ns + name)
    return [] if below is None else below.findall(f"{ns}item")


def _count(text: str) -> int | None:
    """A number that is shown; None if it is none."""
    found = re.fullmatch(r"\s*([0-9]{1,9})(?:\.0*)?\s*", text, re.ASCII)
    return int(found[1]) if found else None


def error_code(response: Response) -> str | None:
    """`Response/Errors/Error/Code` from EC2, `ErrorResponse/Error/Code` from STS; never with status 200."""
    if response.status == 200:
        return None
    try:
        root = ElementTree.fromstring(response.body)            # noqa: S314
    except (SyntaxError, ValueError):
        return None
    said = {e.tag.rpartition("}")[2]: e.text or "" for e in root.iter()}
    if said.get("Code") == "SignatureDoesNotMatch" and _SKEWED.match(said.get("Message", "")):
        return "SignatureDoesNotMatch.Expired"
    return said.get("Code")


_SKEWED = re.compile(r"\s*Signature (expired|not yet current)", re.IGNORECASE)


PARTY = Party(
    name="aws",
    title="Amazon EC2",
    reference="https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html",
    order="none documented; opaque tokens that prove nothing",
    credentials=(("access_key_id", "secret_access_key", "session_token?"), ("role_arn", "external_id?")),
    permissions=("ec2:DescribeInstances", "ec2:DescribeVolumes", "ec2:DescribeInstanceTypes", "ec2:DescribeRegions"),
    grade="recorded",
    region_form=r"[a-z]{2,4}(-[a-z]{2,12}){1,2}-[0-9]{1,2}",
    default_region="us-east-1",
    closed_is_denied=True,                  # AuthFailure
    project="a tag that every instance of the project carries, KEY=VALUE",
    project_form=r"[^=\x00-\x1f*?\\]{1,127}=[^\x00-\x1f]{0,255}",
    limits={action: Limit(100, 5.0) for action in (
        "DescribeInstances", "DescribeVolumes", "DescribeInstanceTypes", "DescribeRegions")},
    error_code=error_code,
    errors=_ERRORS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)

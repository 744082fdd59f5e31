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

from ...cloud import api

_DEEPEST = 50                               # elements within elements: EC2 has a dozen
_PAGE = 1000                                # most that DescribeInstances and DescribeVolumes take
_TYPES = 100                                # most names that DescribeInstanceTypes takes
_FILTER = 200                               # most values that a request's filters take
_T = TypeVar("_T")

_STATUS = {                                 # State.Name, the complete enumeration
    "pending": api.Status.BUILD,            # or STARTING, see _status
    "running": api.Status.ACTIVE,
    "stopping": api.Status.STOPPING,
    "stopped": api.Status.SHUTOFF,          # or SUSPENDED, see _status
    "shutting-down": api.Status.DELETED,
}
_GONE = "terminated"

_REFUSED = api.denied("wrong key, or a region that is not enabled for this account, or a wrong clock: AWS "
                                "says the same of all three")
_SUBSCRIPTION = api.denied("product not activated: the account is not signed up for EC2, or its payment is "
                                     "not verified yet")

_ERRORS = {                                 # EC2's and STS's common errors, and what botocore takes for throttling
    "AuthFailure": _REFUSED,
    "InvalidClientTokenId": _REFUSED,
    "UnrecognizedClientException": _REFUSED,
    "SignatureDoesNotMatch": api.WRONG_KEY,
    "SignatureDoesNotMatch.Expired": api.CLOCK,                 # our word for what its message says
    "InvalidSignatureException": api.WRONG_KEY,
    "IncompleteSignature": api.WRONG_KEY,
    "MissingAuthenticationToken": api.WRONG_KEY,
    "InvalidSecurity": api.WRONG_KEY,
    "Blocked": api.SUSPENDED,
    "PendingVerification": api.UNVERIFIED,
    "OptInRequired": _SUBSCRIPTION,
    "SubscriptionRequiredException": _SUBSCRIPTION,
    "RegionDisabledException": api.REGION_CLOSED,
    "RequestExpired": api.CLOCK,
    "RequestTimeTooSkewed": api.CLOCK,
    "ExpiredToken": api.EXPIRED_KEY,
    "ExpiredTokenException": api.EXPIRED_KEY,
    "UnauthorizedOperation": api.MISSING_RIGHT,
    "AccessDenied": api.denied("wrong role or missing right: the role does not exist, does not trust this "
                                         "key, or the key lacks a permission"),         # STS says no more than that
    "AccessDeniedException": api.MISSING_RIGHT,
    "NotAuthorized": api.MISSING_RIGHT,
    "RequestLimitExceeded": api.THROTTLED,
    "Throttling": api.THROTTLED,
    "ThrottlingException": api.THROTTLED,
    "ThrottledException": api.THROTTLED,
    "RequestThrottled": api.THROTTLED,
    "RequestThrottledException": api.THROTTLED,
    "TooManyRequestsException": api.THROTTLED,
    "EC2ThrottledException": api.THROTTLED,
    "PriorRequestNotComplete": api.THROTTLED,
    "BandwidthLimitExceeded": api.THROTTLED,
    "LimitExceededException": api.THROTTLED,
    "ProvisionedThroughputExceededException": api.THROTTLED,
    "TransactionInProgressException": api.THROTTLED,
    "SlowDown": api.THROTTLED,
    "InvalidParameterValue": api.MALFORMED,
    "InvalidParameterCombination": api.MALFORMED,
    "InvalidParameterDependency": api.MALFORMED,
    "InvalidParameter": api.MALFORMED,
    "InvalidQueryParameter": api.MALFORMED,
    "InvalidCharacter": api.MALFORMED,
    "MalformedQueryString": api.MALFORMED,
    "MalformedPolicyDocument": api.MALFORMED,
    "MissingParameter": api.MALFORMED,
    "MissingAction": api.MALFORMED,
    "UnknownParameter": api.MALFORMED,
    "UnsupportedProtocol": api.MALFORMED,
    "UnsupportedOperation": api.MALFORMED,
    "InvalidNextToken": api.MALFORMED,
    "InvalidPaginationToken": api.MALFORMED,
    "InvalidInstanceType": api.MALFORMED,
    "InvalidAction": api.MALFORMED,
    "NoSuchVersion": api.MALFORMED,
    "ValidationError": api.MALFORMED,
    "InternalError": api.FAILED,
    "InternalFailure": api.FAILED,
    "Unavailable": api.UNAVAILABLE,
    "ServiceUnavailable": api.UNAVAILABLE,
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

    server: api.Server
    disks: tuple[str, ...]
    typical: bool


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    def types_of(instances: Sequence[_Instance]) -> dict[str, _Type]:
        return _types(client, {instance.server.instance_type for instance in instances})

    def typed() -> tuple[list[_Instance], dict[str, _Type]]:
        every = _instances(client)
        return every, types_of(api.cut(every, window))

    if window.last is None or window.last - window.first >= 5 * _FILTER:
        (instances, types), volumes = client.run_all(typed, lambda: _volumes(client, ()))
        shown = api.cut(instances, window)
    else:
        instances = _instances(client)
        shown = api.cut(instances, window)
        ids = [instance.server.id for instance in shown]
        volumes, types = client.run_all(lambda: dict(client.in_batches(
            ids, _FILTER, lambda batch: _volumes(client, batch).items())), lambda: types_of(shown))
    sizes: dict[str, int | None] = {}
    for volume in volumes.values():
        for owner in volume.instances:      # a multi-attached volume counts for each instance
            sizes[owner] = api.total_gib((sizes.get(owner, 0), volume.size))
    return api.Listing([_complete(i, volumes, sizes, types) for i in shown], len(instances))


def _complete(instance: _Instance, volumes: Mapping[str, _Volume], sizes: Mapping[str, int | None],
              types: Mapping[str, _Type]) -> api.Server:
    server, kind = instance.server, types.get(instance.server.instance_type)
    known = all(disk in volumes for disk in instance.disks)     # one came or went between the two lists: not known
    return msgspec.structs.replace(
        server,
        cpu=kind.cpu if instance.typical and kind else server.cpu,
        memory_mib=kind.memory_mib if kind else None,
        disk_gib=sizes.get(server.id, 0) if known else None)


def _instances(client: api.Client) -> list[_Instance]:
    query, call = {"MaxResults": str(_PAGE)}, _with_managed(client, "DescribeInstances")
    key, _, value = (client.project or "").partition("=")
    if client.project is not None:
        query |= _filter(f"tag:{key}", [re.sub(r"([\\*?])", r"\\\1", value)])

    def fetch(token: str | None) -> api.Page[_Instance | None]:
        page = _read(call({**query, **api.given(NextToken=token)}), _INSTANCES, _instance)
        if client.project is not None and any(i and i.server.tags.get(key) != value for _, i in page.rows):
            raise api.PartyMalformed("The party listed instances without the account's tag.")
        return page

    instances = [instance for instance in api.by_token(fetch, stable=False).rows if instance is not None]
    return sorted(instances, key=lambda i: (i.server.created_at or _NEVER, i.server.id))


_NEVER = datetime.max.replace(tzinfo=UTC)


def _instance(item: Element, ns: str) -> tuple[str, _Instance | None]:
    key, state = _text(item, ns, "instanceId"), _text(item, ns, "instanceState", "name")
    if not key:
        raise api.PartyMalformed("The party listed an instance without an id.")
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
    attached = next((api.parse_time(_text(i, ns, "attachment", "attachTime")) for i in interfaces
                     if _text(i, ns, "attachment", "deviceIndex") == "0"), None)
    launched = api.parse_time(_text(item, ns, "launchTime"))
    chosen = [_text(item, ns, "cpuOptions", name) for name in ("coreCount", "threadsPerCore")]
    cores, threads = map(_count, chosen)
    tags = {_text(tag, ns, "key"): _text(tag, ns, "value") for tag in _items(item, ns, "tagSet")}
    server = api.Server(
        id=key,
        name=tags.get("Name", ""),
        cpu=cores * threads if cores and threads else None,
        **api.addresses(lan, wan),
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


def _status(state: str, reason: str, attached: datetime | None, launched: datetime | None) -> api.Status:
    """A stopped instance that starts is `pending` as well: its interface is then older than its launch."""
    if state == "pending" and attached and launched and launched - attached > timedelta(minutes=1):
        return api.Status.STARTING
    if state == "stopped" and reason == "Client.UserInitiatedHibernate":
        return api.Status.SUSPENDED
    return PARTY.status_of(state)["status"]


# ---------------------------------------------------------------- volumes and types

def _volumes(client: api.Client, instances: Sequence[str]) -> dict[str, _Volume]:
    """Volumes by id: those of the instances, or all of the region if none is named."""
    query, call = {"MaxResults": str(_PAGE)}, _with_managed(client, "DescribeVolumes")
    if instances:
        query |= _filter("attachment.instance-id", instances)

    def fetch(token: str | None) -> api.Page[tuple[str, _Volume]]:
        return _read(call({**query, **api.given(NextToken=token)}), _VOLUMES, _volume)

    return dict(api.by_token(fetch).rows)


def _with_managed(client: api.Client, action: str) -> Callable[[Mapping[str, str]], api.Response]:
    """Calls with IncludeManagedResources, and without it where an older EC2 or an emulator does not know it."""
    managed = {"IncludeManagedResources": "true"}

    def call(query: Mapping[str, str]) -> api.Response:
        try:
            return _call(client, action, {**query, **managed})
        except api.PartyMalformed as refused:
            if not managed or refused.party_code not in _NOT_KNOWN:
                raise
        managed.clear()
        return _call(client, action, query)

    return call


def _volume(item: Element, ns: str) -> tuple[str, tuple[str, _Volume]]:
    key = _text(item, ns, "volumeId")
    owners = {_text(a, ns, "instanceId") for a in _items(item, ns, "attachmentSet")
              if _text(a, ns, "status") != "detached"}
    return key, (key, _Volume(_count(_text(item, ns, "size")), tuple(filter(None, owners))))


def _types(client: api.Client, names: Iterable[str]) -> dict[str, _Type]:
    def fetch(missing: Sequence[str]) -> dict[str, _Type]:
        return dict(client.in_batches(missing, _TYPES, lambda batch: _fetch_types(client, batch).items()))

    return api.cached_lookup(("aws", client.account.endpoint), sorted(names), fetch)


def _fetch_types(client: api.Client, names: Sequence[str]) -> dict[str, _Type]:
    try:
        response = _call(client, "DescribeInstanceTypes", api.numbered("InstanceType", names))
        return dict(row for _, row in _read(response, _INSTANCE_TYPES, _type).rows)
    except api.PartyMalformed as refused:
        if refused.party_code != "InvalidInstanceType":         # one retired name refuses the whole call
            raise
    query = {**_filter("instance-type", names), "MaxResults": str(_TYPES)}          # as a filter it is just not found

    def fetch(token: str | None) -> api.Page[tuple[str, _Type]]:
        response = _call(client, "DescribeInstanceTypes", {**query, **api.given(NextToken=token)})
        return _read(response, _INSTANCE_TYPES, _type)

    return dict(api.by_token(fetch).rows)


def _type(item: Element, ns: str) -> tuple[str, tuple[str, _Type]]:
    name = _text(item, ns, "instanceType")
    return name, (name, _Type(_count(_text(item, ns, "vCpuInfo", "defaultVCpus")),
                              _count(_text(item, ns, "memoryInfo", "sizeInMiB"))))


# ---------------------------------------------------------------- regions, check

def list_regions(client: api.Client) -> list[api.Region]:
    """Asked in the one region of the partition that no account can disable."""
    partition = _partition(client.region)
    region = partition.usual if partition else PARTY.default_region
    page = _read(_call(client, "DescribeRegions", {"AllRegions": "true"}, region), _REGIONS,
                 lambda item, ns: (_text(item, ns, "regionName"), _text(item, ns, "optInStatus")))
    return [api.Region(name, "", opted != "not-opted-in") for name, opted in page.rows if name]


def check(client: api.Client) -> None:
    _read(_call(client, "DescribeInstances", {"MaxResults": "5"}), _INSTANCES, _instance)


# ---------------------------------------------------------------- an assumed role

def _assume(client: api.Client, region: str) -> tuple[float, api.Keys]:
    """AssumeRole, narrowed to what we call, whatever the role itself may do.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
    """
    narrowed = {"Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Action": list(PARTY.permissions), "Resource": "*"}]}
    query = {"RoleArn": client.credentials["role_arn"], "RoleSessionName": "twocloud", "DurationSeconds": "3600",
             "Policy": msgspec.json.encode(narrowed).decode(),
             **api.given(ExternalId=client.credentials.get("external_id"))}
    response = _send(client, "sts", "AssumeRole", query, region)
    with api.reading():
        root = ElementTree.fromstring(response.body)                   # noqa: S314  expat stops entity bombs: a test
        ns = root.tag[:root.tag.find("}") + 1]
        made = root.find(f"{ns}AssumeRoleResult/{ns}Credentials")
        ends = api.parse_time(_text(made, ns, "Expiration")) if made is not None else None
        if made is None or ends is None:
            raise ValueError
        keys = api.Keys(_text(made, ns, "AccessKeyId"), _text(made, ns, "SecretAccessKey"),
                        _text(made, ns, "SessionToken"))
    return ends.timestamp(), keys


# ---------------------------------------------------------------- the call

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


def _host(service: str, region: str, account: api.Account) -> str:
    """Raises UnknownRegion before any call for a region of no partition: its host could be anybody's."""
    partition = _partition(region)
    if partition is None and account.endpoint is None:
        raise api.UnknownRegion(f"{PARTY.title} has no such region.")
    return f"{service}.{region}.{partition.suffix if partition else 'amazonaws.com'}"


def _call(client: api.Client, action: str, query: Mapping[str, str], region: str = "") -> api.Response:
    """EC2's answer, in the client's region if none is named, by the account's own keys or those of its role."""
    region, given = region or client.region, client.credentials
    if "role_arn" not in given:
        return _send(client, "ec2", action, query, region, api.Keys(
            given["access_key_id"], given["secret_access_key"], given.get("session_token")))
    return client.with_session("role", lambda: _assume(client, region),
                               lambda keys: _send(client, "ec2", action, query, region, keys))


def _send(client: api.Client, service: str, action: str, query: Mapping[str, str], region: str,
          keys: api.Keys | None = None) -> api.Response:
    """Signed with the keys, or else with those of the service itself."""
    url = client.url(f"https://{_host(service, region, client.account)}/")
    body = urlencode({"Action": action, "Version": _VERSIONS[service], **query}).encode()
    signer = keys or client.account.identity()
    return client.send(action, lambda: sign(service, region, url, body, signer))


def sign(service: str, region: str, url: str, body: bytes, keys: api.Keys) -> api.Request:
    """Signature version 4 by botocore, at its clock's time."""
    request = AWSRequest("POST", url, data=body, headers={
        "Content-Type": "application/x-www-form-urlencoded; charset=utf-8", "Host": urlsplit(url).netloc})
    SigV4Auth(Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token),
              service, region).add_auth(request)
    return api.Request("POST", url, dict(request.headers.items()), body)


def _filter(name: str, values: Sequence[str]) -> dict[str, str]:
    return {"Filter.1.Name": name, **api.numbered("Filter.1.Value", values)}


# ---------------------------------------------------------------- XML

_INSTANCES = ("DescribeInstancesResponse", "reservationSet", "item", "instancesSet")
_VOLUMES = ("DescribeVolumesResponse", "volumeSet")
_INSTANCE_TYPES = ("DescribeInstanceTypesResponse", "instanceTypeSet")
_REGIONS = ("DescribeRegionsResponse", "regionInfo")


def _read(response: api.Response, path: Sequence[str], read: Callable[[Element, str], tuple[str, _T]]) -> api.Page[_T]:
    """The items of the lists at this path, each read and dropped as soon as it is complete, and the next token."""
    with api.reading():
        try:
            return _read_strictly(response.body, path, read)
        except SyntaxError:
            return _read_strictly(_FORBIDDEN.sub("\ufffd".encode(), response.body), path, read)


_FORBIDDEN = re.compile(                    # characters that XML cannot hold, raw or as references
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|&#(?:x0*(?:1?[0-8bcefBCEF]|1[9adAD]|0)|0*(?:[0-8]|1[124-9]|2[0-9]|3[01]));")


def _read_strictly(body: bytes, path: Sequence[str], read: Callable[[Element, str], tuple[str, _T]]) -> api.Page[_T]:
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
                raise api.PartyMalformed()
            rows.append(read(element, ns))
            element.clear()
    root = cast(Element, events.root)
    if root.tag != places[0] or root.find(places[1]) is None:
        raise api.PartyMalformed()
    return api.Page(rows, token=root.findtext(f"{ns}nextToken") or None)


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
    number = re.fullmatch(r"\s*([0-9]{1,9})(?:\.0*)?\s*", text, re.ASCII)
    return int(number[1]) if number else None


def error_code(response: api.Response) -> str | None:
    """`Response/Errors/Error/Code` from EC2, `ErrorResponse/Error/Code` from STS; never with status 200."""
    if response.status == 200:
        return None
    try:
        root = ElementTree.fromstring(response.body)            # noqa: S314
    except (SyntaxError, ValueError):
        return None
    texts = {e.tag.rpartition("}")[2]: e.text or "" for e in root.iter()}
    if texts.get("Code") == "SignatureDoesNotMatch" and _SKEWED.match(texts.get("Message", "")):
        return "SignatureDoesNotMatch.Expired"
    return texts.get("Code")


_SKEWED = re.compile(r"\s*Signature (expired|not yet current)", re.IGNORECASE)


PARTY = api.Party(
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
    limits=api.per_seconds(
        5.0, 100, "DescribeInstances", "DescribeVolumes", "DescribeInstanceTypes", "DescribeRegions"),
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)

"""Amazon EC2: DescribeInstances 2016-11-15 over the query protocol, signed with botocore's SigV4.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html

Units: memory MiB (DescribeInstanceTypes), disks GiB (DescribeVolumes). Times: UTC. Paging: opaque tokens, no total,
no documented order, and a page may be short although more follow; so the list is always walked to its end and
ordered by (created, id). A whole list reads the volumes side by side with the instances; a window reads the volumes
of its own servers afterwards (200 ids to a filter). What a type has is asked once per process: types never change.

LaunchTime is the last start, so `created_at` is the attachment of the primary interface. There is no time of the
last update. Terminated instances stay listed for an hour and are left out. Instance store does not count as disk.
IncludeManagedResources: without it an account can hide machines that AWS services run in it.

Organisations: ListAccounts 2016-11-28 in the partition's one region gives all accounts, 20 to a page, and a page can be
empty although more follow. Below a root or a unit there are calls for direct children only, so its units are walked. A
member is opened by a role at the STS host of the region, whose sessions work in every region; the account whose keys
they are by these keys themselves, as it has no such role. Which regions are open differs from member to member.
https://docs.aws.amazon.com/organizations/latest/APIReference/API_ListAccounts.html

Rates: a bucket of 100 calls that refills at 20 a second, per account, region and action
(https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html); for Organizations 8 a second are a careful
guess.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar
from urllib.parse import urlencode
from xml.etree.ElementTree import Element

import msgspec

from ...cloud import api

_PAGE = 1000                                # most that DescribeInstances and DescribeVolumes take
_TYPES = 100                                # most names that DescribeInstanceTypes takes
_MEMBERS = 20                               # most accounts or units that Organizations gives
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
_CONSOLES = {"cn-": "console.amazonaws.cn", "us-gov-": "console.amazonaws-us-gov.com", "us-iso": None, "eu-iso": None,
             "eusc-": None}
_CHARGES = {"": api.POSTPAID, "spot": api.SPOT, "capacity-block": api.PREPAID}       # "": on demand

_SUBSCRIPTION = api.denied("product not activated: the account is not signed up for EC2, or its payment is "
                                     "not verified yet")

_NO_ORGANISATION = api.denied("no organisation: this account is in none, so no members can be discovered behind it")
_NO_PARENT = api.denied("wrong parent: the organisation has no root or organisational unit of this id")
_NO_LISTING = api.denied("missing right: the key may not list the organisation's accounts, or its account is neither "
                         "the management account nor a delegated administrator")

_ERRORS = {                                 # EC2's and those of Organizations
    **api.amazon.ERRORS,
    "AuthFailure": api.amazon.REFUSED,
    "InvalidSecurity": api.WRONG_KEY,
    "Blocked": api.SUSPENDED,
    "PendingVerification": api.UNVERIFIED,
    "OptInRequired": _SUBSCRIPTION,
    "SubscriptionRequiredException": _SUBSCRIPTION,
    "RequestTimeTooSkewed": api.CLOCK,
    "UnauthorizedOperation": api.MISSING_RIGHT,
    "AccessDeniedException": _NO_LISTING,                       # of Organizations alone
    "EC2ThrottledException": api.THROTTLED,
    "InvalidParameterDependency": api.MALFORMED,
    "InvalidParameter": api.MALFORMED,
    "InvalidCharacter": api.MALFORMED,
    "UnknownParameter": api.MALFORMED,
    "UnsupportedProtocol": api.MALFORMED,
    "UnsupportedOperation": api.MALFORMED,
    "InvalidNextToken": api.MALFORMED,
    "InvalidPaginationToken": api.MALFORMED,
    "InvalidInstanceType": api.MALFORMED,
    "NoSuchVersion": api.MALFORMED,
    "AWSOrganizationsNotInUseException": _NO_ORGANISATION,
    "ParentNotFoundException": _NO_PARENT,
    "UnsupportedAPIEndpointException": _NO_ORGANISATION,
    "InternalError": api.FAILED,
    "Unavailable": api.UNAVAILABLE,
}
_NOT_KNOWN = ("UnknownParameter", "InvalidQueryParameter")      # for a parameter that an older EC2 does not have
_MANAGED = "IncludeManagedResources"        # after a dot: a refusal that names it, whatever its code is


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
        every = _instances(client, lambda names: _types(client, names))
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
    return api.Listing([_complete(i, volumes, sizes, types, client.region) for i in shown], len(instances))


def _complete(instance: _Instance, volumes: Mapping[str, _Volume], sizes: Mapping[str, int | None],
              types: Mapping[str, _Type], region: str) -> api.Server:
    server, kind = instance.server, types.get(instance.server.instance_type)
    known = all(disk in volumes for disk in instance.disks)     # one came or went between the two lists: not known
    return msgspec.structs.replace(
        server,
        cpu=kind.cpu if instance.typical and kind else server.cpu,
        memory_mib=kind.memory_mib if kind else None,
        disk_gib=sizes.get(server.id, 0) if known else None,
        console_url=_console(region, server.id))


def _console(region: str, instance: str) -> str | None:
    """https://docs.aws.amazon.com/awsconsolehelpdocs/latest/gsg/getting-started.html; None in a partition whose console
    is not known."""
    host = next((host for prefix, host in _CONSOLES.items() if region.startswith(prefix)), "console.aws.amazon.com")
    return host and f"https://{region}.{host}/ec2/home?region={region}#InstanceDetails:instanceId={instance}"


def _instances(client: api.Client, ahead: Callable[[set[str]], object] = lambda names: None) -> list[_Instance]:
    """`ahead`: what can be done with the names of types while the instances of an only page are read."""
    query, call = {"MaxResults": str(_PAGE)}, _with_managed(client, "DescribeInstances")
    key, _, value = (client.project or "").partition("=")
    if client.project is not None:
        query |= _filter(f"tag:{key}", [re.sub(r"([\\*?])", r"\\\1", value)])

    def fetch(token: str | None) -> api.Page[_Instance | None]:
        response = call({**query, **api.given(NextToken=token)})
        names = _named_types(response.body) if token is None and client.project is None else set[str]()
        page, _ = client.run_all(lambda: _read(response, _INSTANCES, _instance), lambda: ahead(names))
        if client.project is not None and any(i and i.server.tags.get(key) != value for _, i in page.rows):
            raise api.PartyMalformed("The party listed instances without the account's tag.")
        return page

    instances = [instance for instance in api.by_token(fetch, stable=False).rows if instance is not None]
    return sorted(instances, key=lambda i: (i.server.created_at or _NEVER, i.server.id))


def _named_types(body: bytes) -> set[str]:
    """The types that an answer names, at a glance; none if more pages follow. What it overlooks is looked up later."""
    return set() if b"<nextToken>" in body[-_TAIL:] else {name.decode() for name in _TYPE_NAME.findall(body)}


_TAIL = 4096                                # bytes at an answer's end, where the next token stands
_TYPE_NAME = re.compile(rb"<instanceType>([a-z0-9.-]{1,64})</instanceType>")
_NEVER = datetime.max.replace(tzinfo=UTC)


def _instance(item: Element, ns: str) -> tuple[str, _Instance | None]:
    own = _fields(item, ns)
    key, state = _own(own, "instanceId"), _text(own.get("instanceState"), ns, "name")
    if not key:
        raise api.PartyMalformed("The party listed an instance without an id.")
    if state.strip() == _GONE:
        return key, None
    interfaces = [_fields(interface, ns) for interface in _items(own.get("networkInterfaceSet"), ns)]
    if len(interfaces) > 1:
        interfaces.sort(key=lambda i: (_count(_text(i.get("attachment"), ns, "deviceIndex")) or 0,
                                       _count(_text(i.get("attachment"), ns, "networkCardIndex")) or 0))
    lan, wan = [_own(own, "privateIpAddress")], [_own(own, "ipAddress")]
    for interface in interfaces:
        lan.append(_own(interface, "privateIpAddress"))
        wan += _associated(interface.get("association"), ns)
        for address in sorted(_items(interface.get("privateIpAddressesSet"), ns),
                              key=lambda a: _text(a, ns, "primary") != "true"):
            lan.append(_text(address, ns, "privateIpAddress"))
            wan += _associated(address.find(f"{ns}association"), ns)
        lan += [_text(address, ns, "ipv6Address") for address in _items(interface.get("ipv6AddressesSet"), ns)]
    lan += [_text(address, ns, "privateIpAddress") for interface in _items(own.get("secondaryInterfaceSet"), ns)
            for address in _items(interface.find(f"{ns}privateIpAddressSet"), ns)]
    attached = next((api.parse_time(_text(i.get("attachment"), ns, "attachTime")) for i in interfaces
                     if _text(i.get("attachment"), ns, "deviceIndex") == "0"), None)
    launched = api.parse_time(_own(own, "launchTime"))
    chosen = [_text(own.get("cpuOptions"), ns, name) for name in ("coreCount", "threadsPerCore")]
    cores, threads = map(_count, chosen)
    tags = {_text(tag, ns, "key"): _text(tag, ns, "value") for tag in _items(own.get("tagSet"), ns)}
    groups = [_text(group, ns, "groupId") for group in _items(own.get("groupSet"), ns)]
    server = api.Server(
        id=key,
        name=tags.get("Name", ""),
        cpu=cores * threads if cores and threads else None,
        **api.addresses(lan, wan),
        status=_status(state.strip(), _text(own.get("stateReason"), ns, "code"), attached, launched),
        party_status=state,
        created_at=attached or launched,
        zone=_text(own.get("placement"), ns, "availabilityZone"),
        instance_type=_own(own, "instanceType"),
        tags=tags,
        image_id=_own(own, "imageId"),
        os=api.os_family(_own(own, "platformDetails") or _own(own, "platform")),
        vpc_id=_own(own, "vpcId"),
        subnet_id=_own(own, "subnetId"),
        security_groups=None if "groupSet" not in own else api.ids(groups),
        key_name=_own(own, "keyName"),
        charge_type=_CHARGES.get(_own(own, "instanceLifecycle")),
        host_id=_text(own.get("placement"), ns, "hostId"),
    )
    disks = [disk.find(f"{ns}ebs") for disk in _items(own.get("blockDeviceMapping"), ns)]
    return key, _Instance(server, tuple(_text(disk, ns, "volumeId") or "?"      # "?": one that is never found
                                        for disk in disks if disk is not None), typical=not any(chosen))


def _associated(association: Element | None, ns: str) -> list[str]:
    """What stands for an interface's address outside of its VPC: in a Wavelength zone an address of the carrier, on an
    Outpost one of the customer's own network."""
    return [_text(association, ns, name) for name in ("publicIp", "carrierIp", "customerOwnedIp")]


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
    """Calls with IncludeManagedResources, and without it where an older EC2 or an emulator does not know it; a process
    learns that once."""
    fact = _MANAGED, action, client.region

    def call(query: Mapping[str, str]) -> api.Response:
        if not api.noted(client.account, fact):
            try:
                return _call(client, action, {**query, _MANAGED: "true"})
            except api.PartyMalformed as refused:
                if refused.party_code not in _NOT_KNOWN and not refused.party_code.endswith(f".{_MANAGED}"):
                    raise
            api.note(client.account, fact)
        return _call(client, action, query)

    return call


def _volume(item: Element, ns: str) -> tuple[str, tuple[str, _Volume]]:
    key = _text(item, ns, "volumeId")
    owners = {_text(a, ns, "instanceId") for a in _items(item.find(f"{ns}attachmentSet"), ns)
              if _text(a, ns, "status") != "detached"}
    return key, (key, _Volume(_count(_text(item, ns, "size")), tuple(filter(None, owners))))


def _types(client: api.Client, names: Iterable[str]) -> dict[str, _Type]:
    def fetch(missing: Sequence[str]) -> dict[str, _Type]:
        return dict(client.in_batches(missing, _TYPES, lambda batch: _fetch_types(client, batch).items()))

    return api.cached_lookup(client.account, "aws", sorted(names), fetch)


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
    return name, (name, _Type(_count(_text(item.find(f"{ns}vCpuInfo"), ns, "defaultVCpus")),
                              _count(_text(item.find(f"{ns}memoryInfo"), ns, "sizeInMiB"))))


# ---------------------------------------------------------------- regions, check

def list_regions(client: api.Client) -> list[api.Region]:
    """Asked in the one region of the partition that no account can disable."""
    partition = api.amazon.partition_of(client.region)
    region = partition.usual if partition else PARTY.default_region
    page = _read(_call(client, "DescribeRegions", {"AllRegions": "true"}, region), _REGIONS,
                 lambda item, ns: (_text(item, ns, "regionName"), _text(item, ns, "optInStatus")))
    return [api.Region(name, "", opted != "not-opted-in") for name, opted in page.rows if name]


def check(client: api.Client) -> None:
    _read(_call(client, "DescribeInstances", {"MaxResults": "5"}), _INSTANCES, _instance)


# ---------------------------------------------------------------- the members of an organisation

class _Account(msgspec.Struct):
    """`Status` was announced to end on 2026-09-09, and `State` came instead: either may be missing."""

    Id: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{12}\Z")]
    Name: str | None = None
    State: api.Strict[str | None] = None
    Status: api.Strict[str | None] = None


class _Accounts(msgspec.Struct):
    Accounts: list[_Account]
    NextToken: api.Strict[str | None] = None


class _Unit(msgspec.Struct):
    Id: api.Text


class _Units(msgspec.Struct):
    OrganizationalUnits: list[_Unit]
    NextToken: api.Strict[str | None] = None


def discover(client: api.Client) -> list[api.Member]:
    """The organisation's accounts, or those below a root or a unit. What is not ACTIVE is no source."""
    own, rows = client.run_all(lambda: _own_account(client), lambda: _accounts(client))
    members = [_member(row, own) for row in rows]
    if client.below is None and all(member.id != own for member in members):
        members.append(api.Member(id=own, door=True))           # it is open, whatever the list says
    return members


def _member(row: _Account, own: str) -> api.Member:
    state = row.State or row.Status
    if not state:
        raise api.PartyMalformed("The party listed an account without its state.")
    return api.Member(id=row.Id, name=row.Name or "", closed="" if state == "ACTIVE" else state, door=row.Id == own)


def _accounts(client: api.Client) -> list[_Account]:
    if client.below is None:
        return _pages(client, "ListAccounts", {}, _Accounts, lambda page: page.Accounts)
    return client.tree(
        client.below,
        lambda parent: _pages(client, "ListAccountsForParent", {"ParentId": parent}, _Accounts,
                              lambda page: page.Accounts),
        lambda parent: _pages(client, "ListOrganizationalUnitsForParent", {"ParentId": parent}, _Units,
                              lambda page: page.OrganizationalUnits),
        (lambda row: row.Id, lambda row: row.Id))


_Answer = TypeVar("_Answer", _Accounts, _Units)
_Row = TypeVar("_Row", _Account, _Unit)


def _pages(client: api.Client, action: str, query: Mapping[str, str], shape: type[_Answer],
           rows_of: Callable[[_Answer], list[_Row]]) -> list[_Row]:
    def fetch(token: str | None) -> api.Page[_Row]:
        page = _organisations(client, action, {**query, **api.given(NextToken=token)}, shape)
        return api.Page([(row.Id, row) for row in rows_of(page)], token=page.NextToken)

    return api.by_token(fetch, stable=False).rows


def _organisations(client: api.Client, action: str, query: Mapping[str, str], shape: type[_T]) -> _T:
    """Asked in the one region of the partition that has this service."""
    partition = api.amazon.partition_of(client.region)
    region = partition.usual if partition else PARTY.default_region
    url = client.url(f"https://{api.amazon.host_of('organizations', region, client.account, PARTY.title)}/")
    body = msgspec.json.encode({"MaxResults": _MEMBERS, **query})
    return _opened(client, region, lambda keys: client.call(action, lambda: api.amazon.sign(
        "organizations", region, url, body, keys, {"Content-Type": "application/x-amz-json-1.1",
                                                   "X-Amz-Target": f"AWSOrganizationsV20161128.{action}"}), shape))


def _own_account(client: api.Client) -> str:
    """https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html"""
    response = _opened(client, client.region, lambda keys: api.amazon.sts(
        client, "GetCallerIdentity", {}, client.region, keys))
    with api.reading():
        root = api.xml.parse(response.body)
        ns = root.tag[:root.tag.find("}") + 1]
        own = root.findtext(f"{ns}GetCallerIdentityResult/{ns}Account") or ""
        if not re.fullmatch(r"[0-9]{12}", own, re.ASCII):
            raise ValueError
    return own


# ---------------------------------------------------------------- an assumed role

def _opened(client: api.Client, region: str, use: Callable[[api.Keys], _T]) -> _T:
    """`use` with the keys that open the account: its own, those of its role, or those of the role in a member."""
    member = client.account.member
    if member is None or member.door:
        return api.amazon.opened(client, region, _narrowed(client.door, region), use)
    role = _role_in(client, member.id, region)
    return client.with_session("member", lambda: _opened(client.door, region, lambda keys: api.amazon.assume(
        client, region, role, keys, _narrowed(client, region))), use)


def _role_in(client: api.Client, member: str, region: str) -> str:
    """The ARN of the role that opens a member; "*": of any member."""
    partition, discovery = api.amazon.partition_of(region), client.account.discovery
    role = (discovery and discovery.role) or PARTY.role
    return f"arn:{partition.id if partition else 'aws'}:iam::{member}:role/{role}"


def _narrowed(client: api.Client, region: str) -> list[api.amazon.Statement]:
    """What a session may do: what we call, and of a door also to find and open members."""
    statements = [api.amazon.allow(PARTY.permissions)]
    if client.account.discovery and not client.account.member:
        statements += [api.amazon.allow(_LISTING), api.amazon.allow([_ASSUME], _role_in(client, "*", region))]
    return statements


# ---------------------------------------------------------------- the call

def _call(client: api.Client, action: str, query: Mapping[str, str], region: str = "") -> api.Response:
    """EC2's answer, in the client's region if none is named."""
    region = region or client.region
    url = client.url(f"https://{api.amazon.host_of('ec2', region, client.account, PARTY.title)}/")
    body = urlencode({"Action": action, "Version": "2016-11-15", **query}).encode()
    return _opened(client, region, lambda keys: client.send(
        action, lambda: api.amazon.sign("ec2", region, url, body, keys)))


def _filter(name: str, values: Sequence[str]) -> dict[str, str]:
    return {"Filter.1.Name": name, **api.numbered("Filter.1.Value", values)}


# ---------------------------------------------------------------- XML

_INSTANCES = ("DescribeInstancesResponse", "reservationSet", "item", "instancesSet")
_VOLUMES = ("DescribeVolumesResponse", "volumeSet")
_INSTANCE_TYPES = ("DescribeInstanceTypesResponse", "instanceTypeSet")
_REGIONS = ("DescribeRegionsResponse", "regionInfo")


def _read(response: api.Response, path: Sequence[str], read: Callable[[Element, str], tuple[str, _T]]) -> api.Page[_T]:
    """The items of the lists at this path, each read and dropped as soon as it is complete, and the next token."""
    def item(element: Element, ns: str) -> tuple[str, _T]:
        if element.tag != f"{ns}item":
            raise api.PartyMalformed()
        return read(element, ns)

    rows, root = api.xml.items(response.body, path, item)
    ns = root.tag[:root.tag.find("}") + 1]
    if root.find(ns + path[1]) is None:
        raise api.PartyMalformed()
    return api.Page(rows, token=root.findtext(f"{ns}nextToken") or None)


def _fields(element: Element, ns: str) -> dict[str, Element]:
    """What the element holds, by name. Of several with one name the first counts, as `_text` reads it."""
    return {child.tag.removeprefix(ns): child for child in element[::-1]}


def _own(fields: Mapping[str, Element], name: str) -> str:
    field = fields.get(name)
    return "" if field is None else field.text or ""


def _text(element: Element | None, ns: str, name: str) -> str:
    """The text of what the element holds under this name, "" if there is none."""
    return "" if element is None else element.findtext(ns + name) or ""


def _items(element: Element | None, ns: str) -> list[Element]:
    return [] if element is None else element.findall(f"{ns}item")


def _count(text: str) -> int | None:
    """A number that is shown; None if it is none."""
    number = _NUMBER.fullmatch(text)
    return int(number[1]) if number else None


_NUMBER = re.compile(r"\s*([0-9]{1,9})(?:\.0*)?\s*", re.ASCII)


def error_code(response: api.Response) -> str | None:
    """Amazon's; of a refusal that names IncludeManagedResources with that after a dot."""
    code = api.amazon.error_code(response)
    names_it = response.status == 400 and _MANAGED.encode() in response.body
    return f"{code}.{_MANAGED}" if code and names_it and code not in _NOT_KNOWN else code


_LISTING = ["organizations:ListAccounts", "organizations:ListAccountsForParent",
            "organizations:ListOrganizationalUnitsForParent"]
_ASSUME = "sts:AssumeRole"                  # of the one role in members

PARTY = api.Party(
    name="aws",
    title="Amazon EC2",
    reference="https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html",
    order="none documented; opaque tokens that prove nothing",
    credentials=(("access_key_id", "secret_access_key", "session_token?", "external_id?"),
                 ("role_arn", "external_id?")),
    permissions=("ec2:DescribeInstances", "ec2:DescribeVolumes", "ec2:DescribeInstanceTypes", "ec2:DescribeRegions"),
    grade="recorded",
    region_names=api.amazon.region_names,
    region_form=r"[a-z]{2,4}(-[a-z]{2,12}){1,2}-[0-9]{1,2}",
    default_region="us-east-1",
    usual_region=api.amazon.usual_region,
    discover=discover,
    discover_permissions=(*_LISTING, _ASSUME),
    below="a root or an organisational unit, r-… or ou-…",
    below_form=r"r-[0-9a-z]{4,32}|ou-[0-9a-z]{4,32}-[0-9a-z]{8,32}",
    role="OrganizationAccountAccessRole",
    role_form=r"(?:[A-Za-z0-9+=,.@_-]{1,64}/){0,8}[A-Za-z0-9+=,.@_-]{1,64}",
    closed_is_denied=True,                  # AuthFailure
    project="a tag that every instance of the project carries, KEY=VALUE",
    project_form=r"[^=\x00-\x1f*?\\]{1,127}=[^\x00-\x1f]{0,255}",
    regional_limits=True,
    limits={**api.per_seconds(
        5.0, 100, "DescribeInstances", "DescribeVolumes", "DescribeInstanceTypes", "DescribeRegions"),
        **api.per_second(8, "ListAccounts", "ListAccountsForParent", "ListOrganizationalUnitsForParent")},
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)

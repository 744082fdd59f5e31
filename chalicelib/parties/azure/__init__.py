"""Microsoft Azure: virtual machines by Azure Resource Graph 2021-03-01, opened with an app registration's secret.

https://learn.microsoft.com/rest/api/azureresourcegraph/resourcegraph/resources/resources (call),
https://learn.microsoft.com/azure/governance/resource-graph/concepts/work-with-data (paging),
https://learn.microsoft.com/azure/virtual-machines/states-billing (states)

Units: memory MiB, disks GiB. Times: RFC 3339, seven digits of a fraction. Paging: $skip and $top at any row, at most
1,000 rows, totalRecords always; only a query that projects `id` and orders by it is paged, and repeatably. A server
names its interfaces and disks, an interface its public addresses: a hundred or fewer are asked for by id (the group
that the documents advise), more are picked from the region's whole list, nothing is asked for a region without servers.
Ids differ in letter case from service to service, so they are compared in lower case. What a size has is asked once
per process and region; a constrained size (Standard_M8-2ms) has the CPUs that its name says, not the catalogue's.
There is no time of the last update. What Resource Graph tells is seconds to minutes old.

Resource Graph hides: a region or a resource group that does not exist, and a kind of resource that the account may not
read, are empty lists. So an empty list is believed only of a region in the subscription's own locations (a call which
refuses who cannot read the subscription) and of a resource group that is there; and servers whose interfaces, disks or
addresses are all hidden are a missing right, unless the permissions that the account has on their resource group allow
to read them: then they are gone. Ephemeral disks are in no list, and a server that is being made or deleted may name
what is not there: these prove nothing. Until a server has a vmId, its id is the resource's. One subscription
is asked at a time: of several, the unreadable ones are left out in silence. A role on a few resource groups alone shows
those alone: give it on the subscription.

Organisations: every subscription on which the account has any role, or those below a management group. Many of them are
listed in one query, whose rows name theirs, so that the calls do not grow with them; those that Resource Graph leaves
out in silence are found by comparing with the subscriptions that it shows (that this comparison is sure: unconfirmed).
Resource Graph searches at most 10,000 subscriptions below a group and says so in a header: that is an error.
https://learn.microsoft.com/rest/api/resources/subscriptions/list

The clouds for China (21Vianet) and the US government are sites with directories, regions and hosts of their own. The
login sends the secret itself, so that an account that has a site, or regions of one, is asked there alone. Where it has
neither, the region tells the site. A cloud that does not have a version of an API yet names those that it has: the call
is made once more with the newest that is older. The isolated clouds (usnat…, ussec…) are refused: their hosts are not
published.

Servers of Uniform scale sets are in another table and not in this list (nor in `az vm list`); those of Flexible ones
are. A server that hibernates says `deallocated`. Never run against a real account: the columns of the queries are
those of recorded rows and documented samples, but `timeCreated` and `vmSizeProperties`, which are the vendor's model's.

Rates: 15 queries in 5 seconds for each user, whatever the subscription or region (https://learn.microsoft.com/azure/governance/resource-graph/concepts/
guidance-for-throttled-requests); other reads 25 a second (https://learn.microsoft.com/azure/azure-resource-manager/
management/request-limits-and-throttling); none is published for tokens, 10 a second is ours.
"""

import re
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Annotated, Any, Generic, Protocol, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from ...cloud import api

_PAGE = 1000                                # most that $top takes
_BATCH = 100                                # ids in one query
_GROUP = 300                                # subscriptions in one query
_VERSIONS = 40                              # that a refusal names, most
_WORKERS = 15                               # one window's worth of the documented rate

_STATUS = {
    "Creating": api.Status.BUILD,           # provisioningState: these three tell more than the power state
    "Deleting": api.Status.DELETED,
    "Migrating": api.Status.MIGRATING,      # from the classic deployment model
    "Failed": api.Status.ERROR,             # the last operation failed; the power state, if there is one, tells more
    "Updating": api.Status.UNKNOWN,         # an operation goes on; so does any power state
    "Succeeded": api.Status.UNKNOWN,        # the same
    "PowerState/creating": api.Status.BUILD,    # powerState.code
    "PowerState/starting": api.Status.STARTING,
    "PowerState/running": api.Status.ACTIVE,
    "PowerState/stopping": api.Status.STOPPING,
    "PowerState/stopped": api.Status.SHUTOFF,   # still on its host, still paid for
    "PowerState/deallocating": api.Status.STOPPING,
    "PowerState/deallocated": api.Status.SHUTOFF,
    "PowerState/unknown": api.Status.UNKNOWN,
}
_WORKING = ("Enabled", "Warned", "PastDue")                     # states of a subscription; Disabled and Deleted are not
_FIRST = ("Creating", "Deleting", "Migrating")

_SECRET = api.denied("expired key: the client secret has ended; make a new one for the app registration")
_DIRECTORY = api.denied("wrong key: no such directory, or no such app registration in it")
_DISABLED = api.denied("disabled: the app registration is disabled in its directory; enable it there")
_LAPSED = api.denied("disabled: the service principal is disabled, or its subscription has lapsed")
_CONDITIONAL = api.denied("conditional access: a policy of the directory refuses this login; let the app registration "
                          "pass, or log in from where the policy allows it")
_LOCKED = api.denied("locked: too many failed logins, or a login from a blocked address; wait or unlock it")
_LOGIN = api.denied("login refused: look its number up in the list of Microsoft Entra's error codes")
_CONSENT = api.denied("missing right: an administrator of the directory has not consented to this app")
_SUBSCRIPTION = api.denied("wrong subscription or missing right: none of this id that the account may read")
_OTHER_DIRECTORY = api.denied("wrong directory: the subscription belongs to another one")
_INACTIVE = api.denied("subscription disabled: it is disabled or has ended; reactivate it")
_UNREGISTERED = api.denied("product not activated: register the subscription for the resource provider")
_NOT_SERVED = api.Meaning(api.PartyMalformed, "the cloud does not have this API in the version that was asked for, "
                                              "or the subscription is not registered for it")

_ERRORS = {
    "AADSTS7000215": api.WRONG_KEY,         # the login's numbers: entra/identity-platform/reference-error-codes
    "AADSTS7000222": _SECRET,
    "AADSTS50012": api.WRONG_KEY,
    "AADSTS700016": _DIRECTORY,             # no such app in the directory
    "AADSTS7000229": _DIRECTORY,            # the app has no service principal in it
    "AADSTS90002": _DIRECTORY,
    "AADSTS900023": _DIRECTORY,
    "AADSTS50059": _DIRECTORY,
    "AADSTS50128": _DIRECTORY,
    "AADSTS50194": _DIRECTORY,              # of one directory, asked in another
    "AADSTS7000112": _DISABLED,
    "AADSTS7000111": _DISABLED,
    "AADSTS50057": _DISABLED,
    "AADSTS500014": _LAPSED,
    "AADSTS500011": _LAPSED,                # the management API has no principal in the directory
    "AADSTS650052": _LAPSED,
    "AADSTS50053": _LOCKED,
    "AADSTS53000": _CONDITIONAL,
    "AADSTS53001": _CONDITIONAL,
    "AADSTS53002": _CONDITIONAL,
    "AADSTS53003": _CONDITIONAL,
    "AADSTS53004": _CONDITIONAL,
    "AADSTS53011": _CONDITIONAL,
    "AADSTS530003": _CONDITIONAL,
    "AADSTS530004": _CONDITIONAL,
    "AADSTS530031": _CONDITIONAL,
    "AADSTS530032": _CONDITIONAL,
    "AADSTS530034": _CONDITIONAL,
    "AADSTS530035": _CONDITIONAL,           # security defaults
    "AADSTS500021": _CONDITIONAL,           # tenant restrictions
    "AADSTS50131": _CONDITIONAL,
    "AADSTS50158": _CONDITIONAL,
    "AADSTS50076": api.MFA,
    "AADSTS50079": api.MFA,
    "AADSTS50105": _CONSENT,                # the app must be assigned
    "AADSTS65001": _CONSENT,
    "AADSTS90094": _CONSENT,
    "AADSTS700024": api.CLOCK,
    "AADSTS90033": api.UNAVAILABLE,
    "AADSTS90006": api.UNAVAILABLE,
    "AADSTS90024": api.THROTTLED,
    "AADSTS90055": api.THROTTLED,
    "AADSTS50196": api.THROTTLED,
    "invalid_client": api.WRONG_KEY,        # its words, for numbers that are not here
    "unauthorized_client": _DIRECTORY,
    "invalid_request": _DIRECTORY,
    "invalid_grant": _LOGIN,
    "invalid_scope": api.WRONG_KEY,
    "invalid_resource": _LAPSED,
    "access_denied": _CONDITIONAL,
    "consent_required": _CONSENT,
    "interaction_required": api.MFA,
    "temporarily_unavailable": api.UNAVAILABLE,
    "server_error": api.FAILED,
    "InvalidAuthenticationToken": api.WRONG_KEY,
    "InvalidAuthenticationTokenTenant": _OTHER_DIRECTORY,
    "InvalidAuthenticationTokenAudience": api.WRONG_KEY,
    "AuthenticationFailed": api.WRONG_KEY,
    "AuthenticationFailedMissingToken": api.WRONG_KEY,
    "ExpiredAuthenticationToken": api.CLOCK,    # it was made a moment ago
    "AuthorizationFailed": api.MISSING_RIGHT,
    "LinkedAuthorizationFailed": api.MISSING_RIGHT,
    "AccessDenied": api.MISSING_RIGHT,
    "Forbidden": api.MISSING_RIGHT,
    "SubscriptionNotFound": _SUBSCRIPTION,  # or unreadable: the code is the same
    "InvalidSubscriptionId": _SUBSCRIPTION,
    "NoValidSubscriptionsInQueryRequest": _SUBSCRIPTION,
    "DisabledSubscription": _INACTIVE,
    "SubscriptionNotActive": _INACTIVE,
    "ReadOnlyDisabledSubscription": _INACTIVE,
    "SubscriptionNotRegistered": _UNREGISTERED,
    "MissingSubscriptionRegistration": _UNREGISTERED,
    "DisallowedProvider": _UNREGISTERED,
    "RequestDisallowedByPolicy": _CONDITIONAL,
    "ResourceGroupNotFound": api.denied("wrong project: the subscription has no such resource group"),
    "TooManyRequests": api.THROTTLED,
    "SubscriptionRequestsThrottled": api.THROTTLED,
    "TenantRequestsThrottled": api.THROTTLED,
    "OperationNotAllowed": api.THROTTLED,   # Microsoft.Compute's word, with 429
    "RateLimiting": api.THROTTLED,
    "NoRegisteredProviderFound": _NOT_SERVED,                   # says nothing of the region: the version may be new
    "LocationNotAvailableForResourceType": _NOT_SERVED,
    "InvalidResourceType": _NOT_SERVED,
    "InvalidApiVersionParameter": _NOT_SERVED,
    "BadRequest": api.MALFORMED,
    "InvalidQuery": api.MALFORMED,
    "SubscriptionsContainInvalidGuids": api.MALFORMED,
    "MissingApiVersionParameter": api.MALFORMED,
    "InternalServerError": api.FAILED,
    "ServiceUnavailable": api.UNAVAILABLE,
    "ServerTimeout": api.UNAVAILABLE,
    "GatewayTimeout": api.UNAVAILABLE,
}


# ---------------------------------------------------------------- the shapes that we read

class _Owned(Protocol):
    @property
    def id(self) -> str: ...


_T = TypeVar("_T", bound=_Owned)
_Answer = TypeVar("_Answer")


class _Reference(msgspec.Struct, gc=False):
    id: str | None = None


class _Disk(msgspec.Struct, gc=False):
    managedDisk: _Reference | None = None
    osType: str | None = None
    diffDiskSettings: Any = None            # an ephemeral disk: in no list of disks
    diskSizeGB: api.Count | None = None     # often null: the disk itself knows


class _Image(msgspec.Struct, gc=False):
    """Where the image is of the marketplace, its four words; else its id."""

    id: str | None = None
    publisher: str | None = None
    offer: str | None = None
    sku: str | None = None
    version: str | None = None


class _Cores(msgspec.Struct, gc=False):
    vCPUsAvailable: api.Count | None = None
    vCPUsPerCore: api.Count | None = None


class _Machine(msgspec.Struct, gc=False):
    """The columns of `_MACHINES`."""

    id: api.Text
    vm_id: str | None                       # empty while the machine is made
    group: str
    subscription: api.Strict[str] = ""      # asked for where there are several, and so is the location
    location: api.Strict[str] = ""
    name: str | None = None
    size: str | None = None
    cores: _Cores | None = None
    provisioning: str | None = None
    power: str | None = None
    created: str | None = None
    interfaces: list[_Reference] | None = None
    os_disk: _Disk | None = None
    data_disks: list[_Disk] | msgspec.UnsetType | None = msgspec.UNSET           # null: none; unset: not known
    zones: list[str] | None = None
    tags: dict[str, str | None] | None = None
    image: _Image | None = None
    priority: str | None = None             # "" if it was never chosen, which means Regular
    host: str | None = None


class _Assigned(msgspec.Struct, gc=False):
    privateIPAddress: str | None = None
    publicIPAddress: _Reference | None = None
    subnet: _Reference | None = None
    primary: bool | None = None


class _Configuration(msgspec.Struct, gc=False):
    properties: _Assigned | None = None


class _Interface(msgspec.Struct, gc=False):
    id: api.Text
    primary: bool | None = None
    configurations: list[_Configuration] | None = None
    group: str | None = None                # "" if it has none


class _Address(msgspec.Struct, gc=False):
    id: api.Text
    address: str | None = None


class _Sized(msgspec.Struct, gc=False):
    id: api.Text
    gib: api.Count | None = None


class _Found(msgspec.Struct, Generic[_T]):
    totalRecords: api.Count
    data: list[_T]


class _Size(msgspec.Struct, gc=False):
    name: str = ""
    numberOfCores: api.Count | None = None
    memoryInMB: api.Count | None = None


class _Sizes(msgspec.Struct):
    value: list[_Size]


class _Metadata(msgspec.Struct):
    regionType: str | None = None


class _Location(msgspec.Struct):
    name: api.Text
    displayName: str | None = None
    metadata: _Metadata | None = None


class _Locations(msgspec.Struct):
    value: list[_Location]


class _Subscription(msgspec.Struct):
    subscriptionId: api.Text
    state: api.Text
    displayName: str | None = None


class _Subscriptions(msgspec.Struct):
    value: list[_Subscription]
    nextLink: api.Strict[str | None] = None


class _Container(msgspec.Struct, gc=False):
    """A subscription as Resource Graph shows it."""

    id: api.Text
    subscription: api.Text
    state: api.Text
    name: str | None = None


class _Group(msgspec.Struct):
    id: api.Text


class _Permission(msgspec.Struct):
    actions: list[str]
    notActions: list[str]


class _Permissions(msgspec.Struct):
    value: list[_Permission]


class _Token(msgspec.Struct):
    access_token: Annotated[str, msgspec.Meta(pattern=r"^[!-~]+\Z")]
    expires_in: api.Count


class _Reason(msgspec.Struct):
    code: str


class _Error(msgspec.Struct):
    code: str
    message: str | None = None
    details: list[_Reason] | None = None


class _Refusal(msgspec.Struct):
    error: _Error | str
    error_codes: list[int] | None = None


# ---------------------------------------------------------------- listing

@dataclass(frozen=True, slots=True)
class _Kind(Generic[_T]):
    """A kind of resource: its name, the columns asked for, the shape of a row, the right to read it, the table."""

    name: str
    columns: str
    row: type[_T]
    right: str
    table: str = "Resources"


_MACHINES = _Kind("microsoft.compute/virtualmachines", ", ".join((
    "vm_id=tostring(properties.vmId)", "group=resourceGroup", "name",
    "size=tostring(properties.hardwareProfile.vmSize)", "cores=properties.hardwareProfile.vmSizeProperties",
    "provisioning=tostring(properties.provisioningState)",
    "power=tostring(properties.extended.instanceView.powerState.code)",
    "created=tostring(properties.timeCreated)", "interfaces=properties.networkProfile.networkInterfaces",
    "os_disk=properties.storageProfile.osDisk", "data_disks=properties.storageProfile.dataDisks", "zones", "tags",
    "image=properties.storageProfile.imageReference", "priority=tostring(properties.priority)",
    "host=tostring(properties.host.id)")),
    _Machine, "Microsoft.Compute/virtualMachines/read")
_INTERFACES = _Kind("microsoft.network/networkinterfaces",
                    "primary=tobool(properties.primary), configurations=properties.ipConfigurations, "
                    "group=tostring(properties.networkSecurityGroup.id)",
                    _Interface, "Microsoft.Network/networkInterfaces/read")
_ADDRESSES = _Kind("microsoft.network/publicipaddresses", "address=tostring(properties.ipAddress)",
                   _Address, "Microsoft.Network/publicIPAddresses/read")
_DISKS = _Kind("microsoft.compute/disks", "gib=toint(properties.diskSizeGB)", _Sized, "Microsoft.Compute/disks/read")


_PLACED = replace(_MACHINES, columns=f"{_MACHINES.columns}, subscription=subscriptionId, location")
_CONTAINERS = _Kind("microsoft.resources/subscriptions",
                    "subscription=subscriptionId, name, state=tostring(properties.state)",
                    _Container, "Microsoft.Resources/subscriptions/read", "ResourceContainers")


@dataclass(frozen=True, slots=True)
class _Scope:
    """Whose resources are read, `where` else than by their ids. `failed`: what a subscription's own resources are
    refused with; None: that ends the listing."""

    of: Mapping[str, Sequence[str]]
    where: str
    failed: dict[str, api.PartyDenied] | None = None


def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    group = "" if client.project is None else f" and resourceGroup =~ {_quoted(client.project)}"
    scope = _Scope({"subscriptions": [_subscription(client)]}, f"location =~ {_quoted(client.region)}")
    machines = _rows(client, _MACHINES, scope.of, f"{scope.where}{group}", window)
    if client.project is not None:
        if any(row.group.lower() != client.project.lower() for row in machines.rows):
            raise api.PartyMalformed("The party listed servers of another resource group than the account's.")
        if machines.total == 0:
            _call(client, "GetResourceGroup", f"resourcegroups/{client.project}?api-version=2021-04-01", _Group)
    (interfaces, public), disks, sizes = client.run_all(
        lambda: _network(client, scope, machines.rows), lambda: _disks(client, scope, machines.rows),
        lambda: _sizes(client, machines.rows, client.region, _subscription(client)))
    console = _console(client)
    return machines.listing(lambda row: _server(row, interfaces, public, disks, sizes, console))


def _server(row: _Machine, interfaces: Mapping[str, _Interface], public: Mapping[str, _Address],
            disks: Mapping[str, _Sized], sizes: Mapping[str, _Size], console: str) -> api.Server:
    size = sizes.get((row.size or "").lower())
    attached = [interfaces[key] for key in _ids(row.interfaces) if key in interfaces]
    lan: list[str | None] = []
    wan: list[str | None] = []
    attached.sort(key=lambda i: not i.primary)
    subnet = api.first(assigned.subnet and assigned.subnet.id for interface in attached[:1]
                       for assigned in sorted(_assigned(interface), key=lambda a: not a.primary)) or ""
    groups = api.ids(interface.group for interface in attached)
    for interface in attached:
        for assigned in sorted(_assigned(interface), key=lambda a: not a.primary):
            lan.append(assigned.privateIPAddress)
            wan += [public[key].address for key in _ids([assigned.publicIPAddress]) if key in public]
    provisioning, power = (row.provisioning or "").strip(), (row.power or "").strip()
    word = provisioning if provisioning in _FIRST or not power else power
    return api.Server(
        id=row.vm_id or row.id,
        name=row.name or "",
        cpu=_cpu(row, size),
        memory_mib=size.memoryInMB if size else None,
        disk_gib=_disk_gib(row, disks),
        **api.addresses(lan, wan),
        **PARTY.status_of(word),
        created_at=api.parse_time(row.created),
        zone=(row.zones or [""])[0],
        project_id=row.group,
        instance_type=row.size or "",
        tags={key: value or "" for key, value in (row.tags or {}).items()},
        image_id=_image(row.image or _Image()),
        os=api.os_family(row.os_disk and row.os_disk.osType),
        vpc_id=re.split("/subnets/", subnet, maxsplit=1, flags=re.IGNORECASE)[0],
        subnet_id=subnet,
        security_groups=groups if len(attached) == len(_ids(row.interfaces)) > 0 and all(
            interface.group is not None for interface in attached) else None,
        charge_type=api.SPOT if row.priority in ("Spot", "Low") else api.POSTPAID if row.priority in (
            "", "Regular") else None,
        host_id=row.host,
        console_url=f"{console}{row.id}",
    )


def _image(image: _Image) -> str:
    """Its id; publisher:offer:sku:version, as the vendor's command names it, for one of the marketplace."""
    words = [image.publisher, image.offer, image.sku, image.version]
    return image.id or (":".join(word for word in words if word) if all(words) else "")


def _cpu(row: _Machine, size: _Size | None) -> int | None:
    """What was chosen for the server, else what its size's name says, else the catalogue."""
    if row.cores and row.cores.vCPUsAvailable is not None:
        return row.cores.vCPUsAvailable
    if row.cores and row.cores.vCPUsPerCore == 1:
        return None                         # without its second threads: how many are left is not known
    if constrained := re.search(r"_[a-z]+[0-9]+-([0-9]{1,4})", row.size or "", re.ASCII | re.IGNORECASE):
        return int(constrained[1])
    return size.numberOfCores if size else None


def _disk_gib(row: _Machine, disks: Mapping[str, _Sized]) -> int | None:
    if row.os_disk is None or row.data_disks is msgspec.UNSET:
        return None
    total = 0
    for disk in (row.os_disk, *(row.data_disks or ())):
        known = [disks[key].gib for key in _ids([disk.managedDisk]) if key in disks]
        gib = known[0] if known and known[0] is not None else disk.diskSizeGB
        if gib is None:
            return None
        total += gib
    return total


def _assigned(interface: _Interface) -> list[_Assigned]:
    return [each.properties for each in interface.configurations or () if each.properties]


def _ids(references: Iterable[_Reference | None] | None) -> list[str]:
    return [each.id.lower() for each in references or () if each and each.id]


# ---------------------------------------------------------------- what belongs to the servers

def _stands(row: _Machine) -> bool:
    """Whether what the machine names must be there: of one that is made or deleted, parts may be missing."""
    provisioning, power = (row.provisioning or "").strip(), (row.power or "").strip()
    return provisioning not in ("Creating", "Deleting") and (provisioning != "Failed" or bool(power))


def _network(client: api.Client, scope: _Scope, rows: Sequence[_Machine],
             ) -> tuple[dict[str, _Interface], dict[str, _Address]]:
    sure = {key for row in rows if _stands(row) for key in _ids(row.interfaces)}
    interfaces = _named(client, scope, _INTERFACES, {key for row in rows for key in _ids(row.interfaces)}, sure)
    public = {key: _ids(assigned.publicIPAddress for assigned in _assigned(interface))
              for key, interface in interfaces.items()}
    return interfaces, _named(client, scope, _ADDRESSES, {key for keys in public.values() for key in keys}, {
        key for interface in sure & public.keys() for key in public[interface]})


def _disks(client: api.Client, scope: _Scope, rows: Sequence[_Machine]) -> dict[str, _Sized]:
    managed = {key: _stands(row) and disk.diffDiskSettings is None
               for row in rows for disk in (row.os_disk, *(row.data_disks or ())) if disk
               for key in _ids([disk.managedDisk])}
    return _named(client, scope, _DISKS, managed.keys(), {key for key, sure in managed.items() if sure})


def _named(client: api.Client, scope: _Scope, kind: _Kind[_T], ids: Set[str], sure: Set[str]) -> dict[str, _T]:
    """The resources of these ids (in lower case), by id. One that came or went between two queries may be missing.

    `sure`: those of machines that are not just made or deleted. If none of them is shown, they are gone or the
    right to read is missing: the account's permissions tell which.
    """
    if not ids:
        return {}
    where = scope.where
    if len(ids) <= _BATCH:
        where = f"id in~ ({', '.join(_quoted(key) for key in sorted(ids))})"
    rows = _rows(client, kind, scope.of, where, api.WHOLE).rows
    named = {row.id.lower(): row for row in rows if row.id.lower() in ids}
    if scope.failed is None:
        hidden = {"": sure} if sure and not named else {}
    else:
        shown = {_subscription_of(key) for key in named}
        hidden = {key: set(group) for key, group in api.by_owner((_subscription_of(key), key) for key in sure).items()
                  if key not in shown}
    for subscription, group in hidden.items():
        if not _may_read(client, min(group), kind.right):
            refused = api.refused("missing right: the account sees none of the servers' own resources; it needs "
                                  f"{kind.right}")
            if scope.failed is None:
                raise refused
            scope.failed[subscription] = refused
    return named


def _subscription_of(resource: str) -> str:
    """/subscriptions/5AB5… -> 5ab5…"""
    return resource.lower().split("/")[2] if resource.count("/") > 1 else ""


def _may_read(client: api.Client, resource: str, right: str) -> bool:
    """Whether the account's roles on the resource's group give the right.

    https://learn.microsoft.com/rest/api/authorization/permissions/list-for-resource-group
    """
    within = re.match(r"/subscriptions/[^/?#]+/resourcegroups/[^/?#]+(?=/)", resource)
    if within is None:                      # no id of a resource: nothing of this id can be shown
        return True
    path = f"{quote(within[0])}/providers/Microsoft.Authorization/permissions?api-version=2022-04-01"
    try:
        answer = _call(client, "ListPermissions", path, _Permissions)
    except (api.PartyDenied, api.PartyMalformed) as refused:    # malformed: a cloud that does not have this API
        return refused.party_code == "ResourceGroupNotFound"    # gone with all that it held
    return any(_covers(role.actions, right) and not _covers(role.notActions, right) for role in answer.value)


def _covers(actions: Iterable[str], right: str) -> bool:
    """Whether one of the actions, where `*` stands for any characters, is this right; letter case does not count."""
    return any(_fits(action.lower(), right.lower()) for action in actions)


def _fits(action: str, right: str) -> bool:
    """Piece by piece: a regular expression would try every way to share the text among many `*`."""
    first, *others = action.split("*")
    if not others:
        return right == first
    at = len(first) if right.startswith(first) else -1
    for piece in others[:-1]:
        if at < 0 or (at := right.find(piece, at)) < 0:
            return False
        at += len(piece)
    return 0 <= at <= len(right) - len(others[-1]) and right.endswith(others[-1])


def _sizes(client: api.Client, rows: Sequence[_Machine], region: str, subscription: str) -> dict[str, _Size]:
    path = (f"/subscriptions/{subscription}/providers/Microsoft.Compute/locations/{region}/vmSizes"
            "?api-version=2024-07-01")

    def fetch(missing: Sequence[str]) -> dict[str, _Size]:
        try:
            answer = _call(client, "ListVirtualMachineSizes", path, _Sizes)
        except api.PartyError as refused:
            if not _is_not_served(refused):
                raise
            return {}                       # the cloud has no such list: what sizes have is unknown
        return {size.name.lower(): size for size in answer.value}

    return api.cached_lookup(client.account, ("azure", region), [(row.size or "").lower() for row in rows], fetch)


def _rows(client: api.Client, kind: _Kind[_T], of: Mapping[str, Sequence[str]], where: str, window: api.Window,
          ) -> api.Rows[_T]:
    """`of`: the subscriptions or the management groups that are searched."""
    query = (f"{kind.table} | where type =~ {_quoted(kind.name)}{' and ' * bool(where)}{where} "
             f"| project id, {kind.columns} | order by id asc")

    def fetch(offset: int, limit: int) -> api.Page[_T]:
        body = {**of, "query": query, "options": {"$skip": offset, "$top": limit, "resultFormat": "objectArray"}}
        answer = _call(client, "QueryResources", "/providers/Microsoft.ResourceGraph/resources?api-version=2021-03-01",
                       _Found[kind.row], msgspec.json.encode(body))
        return api.Page([(row.id.lower(), row) for row in answer.data], answer.totalRecords)

    return api.by_offset(fetch, window, _PAGE, _WORKERS)


def _quoted(text: str) -> str:
    """A string of the query language."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# ---------------------------------------------------------------- many subscriptions

def discover(client: api.Client) -> list[api.Member]:
    """Every subscription on which the account has a role, or those below a management group."""
    rows = _subscriptions(client) if client.below is None else _below(client, client.below)
    if not rows:
        raise api.refused("missing right: the app registration has a role on no subscription" + (
            "" if client.below is None else " below this management group"))
    own = client.credentials.get("subscription_id", "").lower()
    return [api.Member(id=row.subscriptionId.lower(), name=row.displayName or "",
                       closed="" if row.state in _WORKING else row.state, door=row.subscriptionId.lower() == own)
            for row in rows]


def _subscriptions(client: api.Client) -> list[_Subscription]:
    def fetch(query: str | None) -> api.Page[_Subscription]:
        path = f"/subscriptions?{query or 'api-version=2022-12-01'}"
        answer = _call(client, "ListSubscriptions", path, _Subscriptions)
        return api.Page([(row.subscriptionId.lower(), row) for row in answer.value],
                        token=_following(client, answer.nextLink))

    return api.by_token(fetch, stable=False).rows


def _following(client: api.Client, link: str | None) -> str | None:
    """The query of the next page's address, which must be of the same list at the same host."""
    if not link:
        return None
    there = urlsplit(link)
    hosts = {_site(client).management, urlsplit(client.account.endpoint or "").netloc}
    if there.netloc not in hosts or there.path != "/subscriptions" or not re.fullmatch(
            r"[!-~]+", there.query, re.ASCII):
        raise api.PartyMalformed("The next page's address is not one of this list.")
    return there.query


def _below(client: api.Client, group: str) -> list[_Subscription]:
    rows = _rows(client, _CONTAINERS, {"managementGroups": [group]}, "", api.WHOLE).rows
    return [_Subscription(row.subscription, row.state, row.name) for row in rows]


Lists = Mapping[str, list[api.Server]]      # by region


def list_many(client: api.Client, members: Sequence[api.Member]) -> Mapping[str, Lists | api.PartyError]:
    """See Party.list_many. A query for each page of all servers, interfaces, addresses and disks of 300 subscriptions,
    and one for the subscriptions that are shown; once a process, one for the sizes of each region."""
    groups = [members[at:at + _GROUP] for at in range(0, len(members), _GROUP)]
    results: dict[str, Lists | api.PartyError] = {}
    for lists in client.for_each(groups, lambda group: _listed_together(client, group)):
        results |= lists
    return results


def _listed_together(client: api.Client, members: Sequence[api.Member]) -> dict[str, Lists | api.PartyError]:
    failed: dict[str, api.PartyDenied] = {}
    scope = _Scope({"subscriptions": [member.id for member in members]}, "", failed)
    try:
        shown, machines = client.run_all(lambda: _rows(client, _CONTAINERS, scope.of, "", api.WHOLE).rows,
                                         lambda: _rows(client, _PLACED, scope.of, "", api.WHOLE).rows)
    except api.PartyDenied as refused:
        if _ERRORS.get(refused.party_code) is not _SUBSCRIPTION:
            raise
        return {member.id: refused for member in members}       # not one of them may be read
    if not all(row.subscription and row.location for row in machines):
        raise api.PartyMalformed("The party listed servers without their subscription or location.")
    places = {(row.location.lower(), row.subscription) for row in machines}
    regions = dict(sorted(places))
    (interfaces, public), disks, sizes = client.run_all(
        lambda: _network(client, scope, machines), lambda: _disks(client, scope, machines),
        lambda: dict(zip(regions, client.for_each(regions.items(), lambda place: _sizes(
            client, [row for row in machines if row.location.lower() == place[0]], *place)), strict=True)))
    console = _console(client)
    lists: dict[str, dict[str, list[api.Server]]] = {row.subscription.lower(): {} for row in shown}
    for row in machines:
        region = row.location.lower()
        lists.setdefault(row.subscription.lower(), {}).setdefault(region, []).append(
            _server(row, interfaces, public, disks, sizes[region], console))
    hidden = api.refused(_SUBSCRIPTION.hint)
    return {member.id: failed.get(member.id.lower()) or lists.get(member.id.lower(), hidden) for member in members}


# ---------------------------------------------------------------- regions, check

def list_regions(client: api.Client) -> list[api.Region]:
    """Of the cloud that the region is in, without the groups of regions (europe, asia) that hold no servers.

    https://learn.microsoft.com/rest/api/resources/subscriptions/list-locations
    """
    answer = _call(client, "ListLocations", "locations?api-version=2022-12-01", _Locations)
    return [api.Region(each.name, each.displayName or "") for each in answer.value
            if not each.metadata or each.metadata.regionType != "Logical"]


def check(client: api.Client) -> None:
    of = {"subscriptions": [_subscription(client)]}
    machines = _rows(client, _MACHINES, of, f"location =~ {_quoted(client.region)}", api.Window(1, 1))
    if machines.total == 0 and client.region not in {each.code for each in list_regions(client)}:
        raise api.UnknownRegion()


# ---------------------------------------------------------------- the call

@dataclass(frozen=True, slots=True)
class _Site:
    """`usual`: a region that certainly exists. `scope`: of a token for the management API. `portal`: the console."""

    login: str
    management: str
    scope: str
    usual: str
    portal: str


_SITES = {                                  # azure-mgmt-core's and azure-identity's clouds
    "public": _Site("login.microsoftonline.com", "management.azure.com", "https://management.azure.com/.default",
                    "eastus", "portal.azure.com"),
    "china": _Site("login.chinacloudapi.cn", "management.chinacloudapi.cn",
                   "https://management.chinacloudapi.cn/.default", "chinanorth3", "portal.azure.cn"),
    "usgovernment": _Site("login.microsoftonline.us", "management.usgovcloudapi.net",
                          "https://management.core.usgovcloudapi.net/.default", "usgovvirginia", "portal.azure.us"),
}
_OTHERS = {"china": "china", "usgov": "usgovernment", "usdod": "usgovernment"}  # by the first letters of their regions
_ISOLATED = ("usnat", "ussec")


def _site_of(region: str) -> str:
    return _OTHERS.get(region[:5], "public")


def _usual_region(credentials: Mapping[str, str], region: str) -> str:
    return _SITES[_site_of(region) if region else credentials.get("site", "public")].usual


def _site(client: api.Client) -> _Site:
    """Raises UnknownRegion for a region of another site than the account's."""
    if client.account.endpoint is None and client.region.startswith(_ISOLATED):
        raise api.UnknownRegion("The hosts of this isolated cloud are not published, so twocloud cannot call it.")
    return _SITES[api.own_site(client, PARTY.title, _site_of)]


def _console(client: api.Client) -> str:
    """What the id of a resource follows in the address of its page in the portal of the account's site."""
    return f"https://{_site(client).portal}/#@{client.door.credentials['directory_id']}/resource"


def _subscription(client: api.Client) -> str:
    subscription = client.member or client.credentials.get("subscription_id")
    if subscription is None:
        raise api.refused("no subscription: name one in subscription_id, or discover all that the account may read")
    return subscription


def _call(client: api.Client, operation: str, path: str, shape: type[_Answer], body: bytes = b"") -> _Answer:
    """POST if there is a body, else GET. A path without a slash before it is the subscription's. One login opens all
    subscriptions. A version that the cloud does not have is replaced by the newest of those that it names."""
    try:
        return _call_once(client, operation, path, shape, body)
    except api.PartyError as refused:
        version = re.search(r"(?<=api-version=)[0-9-]+", path, re.ASCII)
        older = [named for named in refused.party_code.split(".")[1:] if version and named < version[0]]
        if not _is_not_served(refused) or version is None or not older:
            raise
    path = f"{path[:version.start()]}{max(older)}{path[version.end():]}"
    return _call_once(client, operation, path, shape, body)


def _is_not_served(refused: api.PartyError) -> bool:
    return _ERRORS.get(refused.party_code.partition(".")[0]) is _NOT_SERVED


def _call_once(client: api.Client, operation: str, path: str, shape: type[_Answer], body: bytes) -> _Answer:
    site = _site(client)
    within = "" if path.startswith("/") else f"/subscriptions/{_subscription(client)}/"
    url = client.url(f"https://{site.management}{within}{path}")
    response = client.door.with_session(site.scope, lambda: _login(client, site), lambda token: client.send(
        operation, lambda: api.Request("POST" if body else "GET", url, {
            "Authorization": f"Bearer {token}", "Content-Type": "application/json"}, body)))
    if response.headers.get("x-ms-tenant-subscription-limit-hit", "").lower() == "true":
        raise api.PartyMalformed("The party searched only a part of the subscriptions.")
    return api.read(response, shape)


def _login(client: api.Client, site: _Site) -> tuple[float, str]:
    """https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow"""
    credentials, now = client.credentials, time.time()
    url = client.url(f"https://{site.login}/{credentials['directory_id']}/oauth2/v2.0/token")
    body = urlencode({"grant_type": "client_credentials", "client_id": credentials["client_id"],
                      "client_secret": credentials["client_secret"], "scope": site.scope}).encode()
    token = client.call("Login", lambda: api.Request(
        "POST", url, {"Content-Type": "application/x-www-form-urlencoded"}, body), _Token)
    return now + token.expires_in, token.access_token


def error_code(response: api.Response) -> str | None:
    """The login's number or its `error`, else `error.code`, or the code in the details of a bare BadRequest."""
    if response.status < 400:
        return None
    refusal = api.refusal(response, _Refusal)
    if refusal is None:
        return None
    if isinstance(refusal.error, str):
        numbers = refusal.error_codes or ()
        known = next((word for word in (f"AADSTS{number}" for number in numbers) if word in _ERRORS), None)
        return known or ".".join((refusal.error, *(str(number) for number in numbers[:1])))
    if refusal.error.code == "BadRequest" and refusal.error.details:
        return refusal.error.details[0].code
    if _ERRORS.get(refusal.error.code) is _NOT_SERVED:
        return ".".join((refusal.error.code, *_versions(refusal.error.message)))
    return refusal.error.code


def _versions(message: str | None) -> list[str]:
    """The newest of the versions that a refusal names as served; previews are left out."""
    _, _, named = (message or "").partition("supported api-versions")
    versions = set(re.findall(r"\b20[0-9]{2}-[01][0-9]-[0-3][0-9]\b(?!-)", named, re.ASCII))
    return sorted(versions)[-_VERSIONS:]


_NAMED = r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?"      # a GUID, or a directory's domain; a segment of a path

# https://learn.microsoft.com/azure/reliability/regions-list and Azure/terraform-azurerm-avm-utl-regions, which ARM
# lists; the government's: Azure SDK for Java, Region; China's: https://docs.azure.cn/reliability/regions-list
_REGION_NAMES = {
    "australiacentral": "Australia Central", "australiacentral2": "Australia Central 2",
    "australiaeast": "Australia East", "australiasoutheast": "Australia Southeast", "austriaeast": "Austria East",
    "belgiumcentral": "Belgium Central", "brazilsouth": "Brazil South", "brazilsoutheast": "Brazil Southeast",
    "canadacentral": "Canada Central", "canadaeast": "Canada East", "centralindia": "Central India",
    "centralus": "Central US", "chilecentral": "Chile Central", "denmarkeast": "Denmark East",
    "eastasia": "East Asia", "eastus": "East US", "eastus2": "East US 2", "francecentral": "France Central",
    "francesouth": "France South", "germanynorth": "Germany North", "germanywestcentral": "Germany West Central",
    "indonesiacentral": "Indonesia Central", "israelcentral": "Israel Central", "italynorth": "Italy North",
    "japaneast": "Japan East", "japanwest": "Japan West", "jioindiacentral": "Jio India Central",
    "jioindiawest": "Jio India West", "koreacentral": "Korea Central", "koreasouth": "Korea South",
    "malaysiawest": "Malaysia West", "mexicocentral": "Mexico Central", "newzealandnorth": "New Zealand North",
    "northcentralus": "North Central US", "northeurope": "North Europe", "norwayeast": "Norway East",
    "norwaywest": "Norway West", "polandcentral": "Poland Central", "qatarcentral": "Qatar Central",
    "southafricanorth": "South Africa North", "southafricawest": "South Africa West",
    "southcentralus": "South Central US", "southeastasia": "Southeast Asia", "southindia": "South India",
    "spaincentral": "Spain Central", "swedencentral": "Sweden Central", "switzerlandnorth": "Switzerland North",
    "switzerlandwest": "Switzerland West", "uaecentral": "UAE Central", "uaenorth": "UAE North",
    "uksouth": "UK South", "ukwest": "UK West", "westcentralus": "West Central US", "westeurope": "West Europe",
    "westindia": "West India", "westus": "West US", "westus2": "West US 2", "westus3": "West US 3",
    "usgovvirginia": "US Gov Virginia", "usgovarizona": "US Gov Arizona", "usgovtexas": "US Gov Texas",
    "chinaeast": ("China East", "中国东部"), "chinaeast2": ("China East 2", "中国东部 2"),
    "chinaeast3": ("China East 3", "中国东部 3"), "chinanorth": ("China North", "中国北部"),
    "chinanorth2": ("China North 2", "中国北部 2"), "chinanorth3": ("China North 3", "中国北部 3"),
}

PARTY = api.Party(
    name="azure",
    title="Microsoft Azure",
    reference="https://learn.microsoft.com/rest/api/azureresourcegraph/resourcegraph/resources/resources",
    order="by id, requested; pages at any row",
    credentials=(("directory_id", "client_id", "client_secret", "subscription_id?", "site?"),),
    forms={"directory_id": _NAMED, "client_id": _NAMED, "subscription_id": _NAMED, "site": "|".join(_SITES)},
    permissions=(_MACHINES.right, _INTERFACES.right, _ADDRESSES.right, _DISKS.right,
                 "Microsoft.Compute/locations/vmSizes/read", "Microsoft.Resources/subscriptions/locations/read",
                 "Microsoft.Resources/subscriptions/resourceGroups/read", "Microsoft.Authorization/permissions/read"),
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z][a-z0-9]{2,39}",
    discover=discover,
    discover_permissions=("Microsoft.Resources/subscriptions/read",),
    below="a management group's id",
    below_form=r"[A-Za-z0-9_(][A-Za-z0-9_().-]{0,89}",
    principal=("directory_id", "client_id"),
    shared_limits=frozenset(("QueryResources", "Login", "ListSubscriptions")),
    list_many=list_many,
    default_region=_SITES["public"].usual,
    usual_region=_usual_region,
    unknown_region_is_empty=True,
    project="a resource group's name",
    project_form=r"[A-Za-z0-9_().-]{0,89}[A-Za-z0-9_()-]",
    regional_limits=True,
    limits={**api.per_seconds(5.0, 15, "QueryResources"), **api.per_second(10, "Login"), **api.per_second(
        25, "ListSubscriptions", "ListVirtualMachineSizes", "ListLocations", "GetResourceGroup", "ListPermissions")},
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)

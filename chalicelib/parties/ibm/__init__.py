"""IBM Cloud VPC, generation 2: API v1.

https://cloud.ibm.com/apidocs/vpc/latest#list-instances and the models of ibm-vpc

Units: memory GiB, disks GB (volumes, and instance storage that is part of the profile). Times: RFC 3339. Paging: a
token in the href of `next`, at most 100 rows, total_count (volumes and floating IPs may lack it: the end of `next` is
theirs). There is no time of the last update.

The region is the host's name, so that an unknown one is a name that cannot be looked up; behind an endpoint of the
account it is an empty list, which is believed only of a region in /v1/regions. Zones are named after their region,
which is checked. Volumes and floating IPs are the region's and read side by side with the instances, also for a
window: neither can be asked by instance. A floating IP's target is an interface, or the virtual interface of an
attachment; further addresses of an interface are not in these lists. 0.0.0.0 is an address that is still to come. A
volume that comes or goes between the lists makes the disk unknown. --project is a resource group, asked and checked.

Names that begin with `ibm-` are kept for IBM's own images. The form of a server's page in the console is the one that
IBM's own Terraform modules print (github.com/terraform-ibm-modules).

The token is an API key; IAM gives a bearer token for it, which is kept until a minute before its end
(https://cloud.ibm.com/apidocs/iam-identity-token-api). IAM refuses a key with 400. No rate is published: 10 calls a
second of each kind.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlencode

import msgspec

from ...cloud import api

_PAGE = 100
_VERSION = {"version": "2024-11-12", "generation": 2}

_STATUS = {                                 # status, the complete enumeration
    "pending": api.Status.BUILD,
    "starting": api.Status.STARTING,
    "running": api.Status.ACTIVE,
    "stopping": api.Status.STOPPING,
    "stopped": api.Status.SHUTOFF,
    "restarting": api.Status.REBOOT,
    "failed": api.Status.ERROR,
    "deleting": api.Status.DELETED,
}

_ERRORS = {                                 # the code of an error, of VPC or of IAM
    "BXNIM0415E": api.WRONG_KEY,            # IAM: no such key
    "not_authenticated": api.WRONG_KEY,
    "invalid_token": api.WRONG_KEY,
    "not_authorized": api.MISSING_RIGHT,
    "forbidden": api.MISSING_RIGHT,
    "too_many_requests": api.THROTTLED,
    "rate_limit_exceeded": api.THROTTLED,
    "bad_request": api.MALFORMED,
    "bad_field": api.MALFORMED,
    "bad_version": api.MALFORMED,
    "invalid_generation": api.MALFORMED,
    "not_found": api.MALFORMED,
    "internal_error": api.FAILED,
    "service_unavailable": api.UNAVAILABLE,
}


# ---------------------------------------------------------------- the shapes that we read

class _Named(msgspec.Struct, gc=False):
    name: api.Text


class _Identified(msgspec.Struct, gc=False):
    id: api.Text


class _Cpu(msgspec.Struct, gc=False):
    count: api.Count | None = None


class _Address(msgspec.Struct, gc=False):
    address: str | None = None


class _Reference(msgspec.Struct, gc=False):
    id: str | None = None
    name: str | None = None


class _Interface(msgspec.Struct, gc=False):
    id: str | None = None
    subnet: _Reference | None = None
    primary_ip: _Address | None = None
    virtual_network_interface: _Identified | None = None        # of an attachment


class _Attachment(msgspec.Struct, gc=False):
    volume: _Identified | None = None       # None: it is being attached


class _Disk(msgspec.Struct, gc=False):
    size: api.Count | None = None


class _Instance(msgspec.Struct, gc=False):
    id: api.Text
    zone: _Named
    name: str | None = None
    status: str | None = None
    vcpu: _Cpu | None = None
    memory: api.Count | None = None
    disks: api.Nested = msgspec.UNSET
    volume_attachments: list[_Attachment] | None = None
    primary_network_interface: _Identified | None = None
    network_interfaces: list[_Interface] | None = None
    primary_network_attachment: _Identified | None = None
    network_attachments: list[_Interface] | None = None
    resource_group: _Identified | None = None
    profile: _Named | None = None
    created_at: str | None = None
    image: _Reference | None = None
    vpc: _Reference | None = None
    dedicated_host: _Reference | None = None


class _Volume(msgspec.Struct, gc=False):
    id: api.Text
    capacity: api.Count | None = None


class _FloatingIp(msgspec.Struct, gc=False):
    id: api.Text
    address: str | None = None
    target: _Identified | None = None


class _Region(msgspec.Struct):
    name: api.Text
    status: str | None = None


class _Login(msgspec.Struct):
    access_token: api.Text
    expires_in: api.Count


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    client.with_session("iam", lambda: _login(client), lambda _: None)         # once, before the calls side by side
    instances, volumes, ips = client.run_all(
        lambda: client.walk(_INSTANCES, window, **{"resource_group.id": client.project}),
        lambda: client.all(_VOLUMES), lambda: client.all(_FLOATING_IPS))
    rows = api.only(instances.rows, lambda row: row.zone.name.rpartition("-")[0], client.region)
    if client.project is not None:
        api.only(rows, lambda row: row.resource_group and row.resource_group.id, client.project)
    sizes = {volume.id: volume.capacity for volume in volumes}
    floating = api.by_owner((ip.target and ip.target.id, ip.address) for ip in ips)
    return instances.listing(lambda row: _server(row, client.region, sizes, floating))


def _opened(client: api.Client, call: Callable[[api.Headers], api.Response]) -> api.Response:
    """With a token of the key's, which IAM gives."""
    return client.with_session("iam", lambda: _login(client), lambda token: call({"Authorization": f"Bearer {token}"}))


_CLOUD = api.Cloud("{region}.iaas.cloud.ibm.com", lambda: _PAGE, size="limit", cursor="start", auth=_opened)


_INSTANCES = api.List(_CLOUD, "ListInstances", "/v1/instances", "instances", _Instance, query=_VERSION)
_VOLUMES = api.List(_CLOUD, "ListVolumes", "/v1/volumes", "volumes", _Volume, counted=False,
                    query=_VERSION)
_FLOATING_IPS = api.List(_CLOUD, "ListFloatingIps", "/v1/floating_ips", "floating_ips", _FloatingIp, counted=False,
                         query=_VERSION)
_REGIONS = api.List(_CLOUD, "ListRegions", "/v1/regions", "regions", _Region, query=_VERSION)


def _server(row: _Instance, region: str, sizes: Mapping[str, int | None],
            floating: Mapping[str, Sequence[str | None]]) -> api.Server:
    primary = {one.id for one in (row.primary_network_interface, row.primary_network_attachment) if one}
    nets = sorted([*(row.network_attachments or ()), *(row.network_interfaces or ())],
                  key=lambda net: net.id not in primary)
    targets = [key for net in nets
               for key in (net.id, net.virtual_network_interface and net.virtual_network_interface.id) if key]
    stored = api.nested(row.disks, _Disk)
    image = row.image and row.image.name
    return api.Server(
        id=row.id,
        name=row.name or "",
        cpu=row.vcpu and row.vcpu.count,
        memory_mib=None if row.memory is None else row.memory * 1024,
        disk_gib=api.disk_gib(None if stored is None else api.total_gib(disk.size for disk in stored),
                          None if row.volume_attachments is None else [
                              one.volume and one.volume.id for one in row.volume_attachments], sizes),
        **api.addresses(
            lan=(net.primary_ip.address for net in nets
                 if net.primary_ip and net.primary_ip.address != "0.0.0.0"),                    # noqa: S104
            wan=(ip for key in targets for ip in floating.get(key, ()))),
        **PARTY.status_of(row.status),
        created_at=api.parse_time(row.created_at),
        zone=row.zone.name,
        project_id=row.resource_group.id if row.resource_group else "",
        instance_type=row.profile.name if row.profile else "",
        image_id=row.image and row.image.id,
        image_name=image,
        os=api.os_family(image) if image and image.startswith("ibm-") else None,                # IBM's own image
        vpc_id=row.vpc and row.vpc.id,
        subnet_id=api.first(net.subnet and net.subnet.id for net in nets[:1]),
        host_id=row.dedicated_host and row.dedicated_host.id,
        console_url=f"https://cloud.ibm.com/infrastructure/compute/vs/{region}~{row.id}/overview",
    )


# ---------------------------------------------------------------- the login

def _login(client: api.Client) -> tuple[float, str]:
    url = client.url("https://iam.cloud.ibm.com/identity/token")
    body = urlencode({"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": client.credentials["token"]})
    headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
    response = client.call("Login", lambda: api.Request("POST", url, headers, body.encode()), _Login)
    return time.time() + response.expires_in, response.access_token


# https://cloud.ibm.com/docs/vpc?topic=vpc-creating-a-vpc-in-a-different-region: the places, without the country
_REGION_NAMES = {
    "us-south": "Dallas", "us-east": "Washington DC", "ca-tor": "Toronto", "ca-mon": "Montreal",
    "br-sao": "São Paulo", "eu-de": "Frankfurt", "eu-gb": "London", "eu-es": "Madrid", "jp-tok": "Tokyo",
    "jp-osa": "Osaka", "au-syd": "Sydney", "in-che": "Chennai", "in-mum": "Mumbai",
}

PARTY = api.Party(
    name="ibm",
    title="IBM Cloud VPC",
    reference="https://cloud.ibm.com/apidocs/vpc/latest#list-instances",
    order="none documented; tokens, believed to name a row",
    credentials=(("token",),),
    permissions=("Viewer on VPC Infrastructure Services",),
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z]{2}-[a-z]{2,12}[0-9]?",
    default_region="us-south",
    unknown_region_is_empty=True,
    project="a resource group's id",
    project_form=r"[0-9a-f]{32}",
    limits=api.unpublished(10, "Login", "ListInstances", "ListVolumes", "ListFloatingIps", "ListRegions"),
    error_code=api.any_error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=lambda client: [
        api.Region(row.name, doubtful=row.status == "unavailable") for row in client.rows(_REGIONS)],
    check=api.one_row(_INSTANCES),
)

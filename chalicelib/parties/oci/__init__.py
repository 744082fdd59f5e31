"""Oracle Cloud Infrastructure: Compute, Networking and Block Volume 20160918, compartment by compartment.

https://docs.oracle.com/iaas/api/#/en/iaas/20160918/Instance/ListInstances (call),
https://docs.oracle.com/iaas/Content/API/Concepts/signingrequests.htm (signature), and the models of the SDK oci 2.189

Units: memory GB as a fraction, disks GB, OCPUs: two virtual CPUs each, one on Ampere's A1. Times: RFC 3339; there is
none of the last update. Paging: opaque tokens in the header opc-next-page, no total, a page may be short (unconfirmed);
a limit of 1,000 is documented for the same API in Oracle's appliances and usual in others' tools. Order: by creation in
each availability domain, requested; all compartments are read to their end and put into the order of creation.

Compartments: no call lists the servers of all. One call names every compartment that the key may read, at any depth;
the tenancy is the root and in no list. Each is then listed by itself. One that refuses fails the listing, with one
answer for a missing right and for no such compartment: it is never an empty list. `--project` is a compartment with
those below it. A compartment that was deleted stays in the list for long, it holds nothing.

A list is a plain JSON list, so an empty one could be anybody's answer. That of servers is believed if no VNIC is
attached there, that of VNICs and boot volumes if no server runs there, that of compartments if there are none
without the question who may read them, and a region without any server if the tenancy is subscribed to it.

Addresses: there is no list of VNICs, so each VNIC of the window is one call. One that answers 404 is gone if its
attachment is too, else it is refused. Secondary private addresses of a VNIC and their public ones are in none of these;
--deep reads the private addresses of the VNICs' subnets, whose list cannot be empty, and the reserved public ones of
the compartments: an ephemeral one can only belong to a primary private address. Disks: boot volumes by compartment and
availability domain, block volumes by compartment, and the local disks of the shape. A volume may lie in another
compartment than its server and is then read by itself; if the key may not read it, the size is unknown. `region` in a
row is `iad` or `phx` for two regions and the name for all others.

Hosts: {service}.{region}.{suffix of the realm}, and a tenancy's OCID names its realm. In a region to which the tenancy
is not subscribed the key is refused as a wrong one (unconfirmed). Clock: 5 minutes, documented. A terminated server
is left out. No rates are published; careful ones here.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from itertools import product
from math import ceil
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from ...cloud import api

_PAGE = 1000
_WORKERS = 20
_T = TypeVar("_T")
_R = TypeVar("_R", "_Instance", "_VnicAttachment")

_STATUS = {                                 # lifecycleState, the complete enumeration
    "PROVISIONING": api.Status.BUILD,
    "RUNNING": api.Status.ACTIVE,
    "STARTING": api.Status.STARTING,
    "STOPPING": api.Status.STOPPING,
    "STOPPED": api.Status.SHUTOFF,
    "MOVING": api.Status.MIGRATING,
    "CREATING_IMAGE": api.Status.ACTIVE,    # the server is there; whether it runs is not known
    "TERMINATING": api.Status.DELETED,
}
_GONE = "TERMINATED"
_EMPTY = ("CREATING", "DELETING", "DELETED")                    # compartments in these states hold nothing
_DETACHED = ("ATTACHING", "DETACHED")                           # attachments in these states attach nothing

_KEY = api.denied("wrong key: tenancy, user, fingerprint and private_key do not belong together, the key was deleted, "
                  "this machine's clock is wrong, or the tenancy is not subscribed to the region")
_HIDDEN = api.denied("missing right: the key lacks a right in one of the compartments, or that compartment is gone; "
                     "grant the rights in all of them, or name one with --project")
_HIDDEN_WORD = "NotAuthorizedOrNotFound"

_ERRORS = {                                 # https://docs.oracle.com/iaas/Content/API/References/apierrors.htm
    "NotAuthenticated": _KEY,
    _HIDDEN_WORD: _HIDDEN,
    "NotAuthorized": api.MISSING_RIGHT,
    "NotAllowed": api.MISSING_RIGHT,
    "SignUpRequired": api.NOT_ACTIVATED,
    "TooManyRequests": api.THROTTLED,
    "CannotParseRequest": api.MALFORMED,
    "InvalidParameter": api.MALFORMED,
    "MissingParameter": api.MALFORMED,
    "NotFound": api.MALFORMED,              # no such path
    "MethodNotAllowed": api.MALFORMED,
    "IncorrectState": api.FAILED,
    "InternalServerError": api.FAILED,
    "ServiceUnavailable": api.UNAVAILABLE,
}

_SUFFIXES = {                               # by realm; the others are oraclecloud{number}.com
    "oc1": "oraclecloud.com",
    "oc2": "oraclegovcloud.com",
    "oc3": "oraclegovcloud.com",
    "oc4": "oraclegovcloud.uk",
    "oc19": "oraclecloud.eu",
}
_ALIASES = {                                # the three letters of a region, by which some rows name it
    "yny": "ap-chuncheon-1", "hyd": "ap-hyderabad-1", "mel": "ap-melbourne-1", "bom": "ap-mumbai-1",
    "kix": "ap-osaka-1", "icn": "ap-seoul-1", "syd": "ap-sydney-1", "nrt": "ap-tokyo-1", "yul": "ca-montreal-1",
    "yyz": "ca-toronto-1", "ams": "eu-amsterdam-1", "fra": "eu-frankfurt-1", "zrh": "eu-zurich-1",
    "jed": "me-jeddah-1", "dxb": "me-dubai-1", "gru": "sa-saopaulo-1", "cwl": "uk-cardiff-1", "lhr": "uk-london-1",
    "iad": "us-ashburn-1", "phx": "us-phoenix-1", "sjc": "us-sanjose-1", "vcp": "sa-vinhedo-1",
    "scl": "sa-santiago-1", "mtz": "il-jerusalem-1", "mrs": "eu-marseille-1", "sin": "ap-singapore-1",
    "auh": "me-abudhabi-1", "lin": "eu-milan-1", "arn": "eu-stockholm-1", "jnb": "af-johannesburg-1",
    "cdg": "eu-paris-1", "qro": "mx-queretaro-1", "mad": "eu-madrid-1", "ord": "us-chicago-1",
    "mty": "mx-monterrey-1", "aga": "us-saltlake-2", "bog": "sa-bogota-1", "vap": "sa-valparaiso-1",
    "xsp": "ap-singapore-2", "ruh": "me-riyadh-1", "onm": "ap-delhi-1", "hsg": "ap-batam-1", "orf": "eu-madrid-3",
    "nrq": "eu-turin-1", "jbp": "ap-kulai-2", "lej": "af-casablanca-1", "lfi": "us-langley-1", "luf": "us-luke-1",
    "ric": "us-gov-ashburn-1", "pia": "us-gov-chicago-1", "tus": "us-gov-phoenix-1", "ltn": "uk-gov-london-1",
    "brs": "uk-gov-cardiff-1", "nja": "ap-chiyoda-1", "ukb": "ap-ibaraki-1", "mct": "me-dcc-muscat-1",
    "ibr": "me-ibri-1", "wga": "ap-dcc-canberra-1", "bgy": "eu-dcc-milan-1", "mxp": "eu-dcc-milan-2",
    "snn": "eu-dcc-dublin-2", "dtm": "eu-dcc-rating-2", "dus": "eu-dcc-rating-1", "ork": "eu-dcc-dublin-1",
    "dac": "ap-dcc-gazipur-1", "vll": "eu-madrid-2", "str": "eu-frankfurt-2", "beg": "eu-jovanovac-1",
    "doh": "me-dcc-doha-1", "vve": "me-alrayyan-1", "ebb": "us-somerset-1", "ebl": "us-thames-1",
    "avz": "eu-dcc-zurich-1", "avf": "eu-crissier-1", "ahu": "me-abudhabi-3", "rba": "me-alain-1",
    "rkt": "me-abudhabi-2", "shj": "me-abudhabi-4", "dtz": "ap-seoul-2", "dln": "ap-suwon-1",
    "bno": "ap-chuncheon-2", "yxj": "us-ashburn-2", "pgc": "us-newark-1", "jsk": "eu-budapest-1",
    "hnw": "sa-riodejaneiro-1",
}


# ---------------------------------------------------------------- the shapes that we read

_Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,255}\Z")]        # an OCID, which goes into paths


class _Compartment(msgspec.Struct, gc=False):
    id: _Id
    compartmentId: api.Strict[str | None] = None                # the one above it
    lifecycleState: api.Strict[str | None] = None               # missing where the key may only read below it


class _Shape(msgspec.Struct, gc=False):
    ocpus: api.Size | None = None
    vcpus: api.Count | None = None          # answers of old lack it
    memoryInGBs: api.Size | None = None
    localDisks: api.Count | None = None
    localDiskDescription: str | None = None
    localDisksTotalSizeInGBs: api.Size | None = None            # null: there are none


class _Details(msgspec.Struct, gc=False):
    sourceType: str | None = None
    imageId: str | None = None


class _Instance(msgspec.Struct, gc=False):
    id: _Id
    compartmentId: api.Text
    region: api.Text
    availabilityDomain: api.Text
    displayName: str | None = None
    lifecycleState: str | None = None
    shape: str | None = None
    shapeConfig: _Shape | None = None
    timeCreated: str | None = None
    freeformTags: dict[str, str] | None = None
    definedTags: dict[str, dict[str, str]] | None = None        # by namespace
    sourceDetails: _Details | None = None
    dedicatedVmHostId: str | None = None
    preemptibleInstanceConfig: api.Nested = msgspec.UNSET

    @property
    def runs(self) -> bool:
        return self.lifecycleState == "RUNNING"


class _VnicAttachment(msgspec.Struct, gc=False):
    id: _Id
    instanceId: api.Text
    lifecycleState: api.Text
    vnicId: api.Strict[_Id | None] = None   # null until it is attached


class _BootAttachment(msgspec.Struct, gc=False):
    id: _Id
    instanceId: api.Text
    lifecycleState: api.Text
    bootVolumeId: _Id


class _VolumeAttachment(msgspec.Struct, gc=False):
    id: _Id
    instanceId: api.Text
    lifecycleState: api.Text
    volumeId: _Id


class _Volume(msgspec.Struct, gc=False):
    id: _Id
    sizeInGBs: api.Count | None = None


class _Vnic(msgspec.Struct, gc=False):
    id: _Id
    isPrimary: bool | None = None
    privateIp: str | None = None
    publicIp: str | None = None
    ipv6Addresses: list[str] | None = None
    subnetId: str | None = None
    nsgIds: api.Whole[list[str] | None] = None


class _PrivateIp(msgspec.Struct, gc=False):
    id: _Id
    ipAddress: str | None = None
    isPrimary: bool | None = None
    vnicId: str | None = None               # null: not assigned, or of a VLAN


class _PublicIp(msgspec.Struct, gc=False):
    id: _Id
    ipAddress: str | None = None
    assignedEntityId: str | None = None     # a private address, or a NAT gateway


class _Subscription(msgspec.Struct):
    regionName: api.Text
    status: str | None = None

    @property
    def id(self) -> str:
        return self.regionName


class _Refusal(msgspec.Struct):
    code: str | None = None


# ---------------------------------------------------------------- listing

def list_servers(client: api.Client, window: api.Window) -> api.Listing:
    oracle = _Oracle.of(client)
    compartments = _compartments(oracle)
    listed = dict(zip(compartments, client.for_each(compartments, oracle.instances, _WORKERS), strict=True))
    if not any(listed.values()) and client.region not in {region.code for region in _regions(oracle, client.region)
                                                          if region.open}:
        raise api.UnknownRegion(f"{PARTY.title} has no such region, or the tenancy is not subscribed to it.")
    attached = dict(zip(compartments, client.for_each(compartments, oracle.vnic_attachments, _WORKERS), strict=True))
    doubtful = [one for one in compartments if _unlisted(attached[one], listed[one]) or
                _without_vnic(listed[one], attached)]
    for one in doubtful:
        listed[one], attached[one] = _listed_again(oracle, one, listed[one], attached[one])
    for one in doubtful:
        if _without_vnic(listed[one], attached):
            raise _disagreement()
    rows = {row.id: row for part in listed.values() for row in part if row.lifecycleState != _GONE}
    listing = api.in_order((_server(row) for row in rows.values()), window)
    wanted = [rows[server.id] for server in listing.servers]
    vnics, disks = client.run_all(lambda: _vnics(oracle, wanted, attached), lambda: _disks(oracle, wanted))
    private, public = _secondary(oracle, compartments, vnics) if client.account.deep else ({}, {})
    return api.Listing([msgspec.structs.replace(
        server, disk_gib=api.total_gib([_local_gib(rows[server.id].shapeConfig), *disks.get(server.id, ())]),
        **_addresses(vnics.get(server.id, ()), private, public), **_network(vnics.get(server.id, ())))
        for server in listing.servers], listing.total)


def _listed_again(oracle: "_Oracle", compartment: str, before: Sequence[_Instance], vnics: Sequence[_VnicAttachment],
                  ) -> tuple[list[_Instance], list[_VnicAttachment]]:
    """The servers and VNICs of a compartment whose first lists disagree: what came or went meanwhile proves nothing,
    and a page's token may be a position, which shifts. Raises PartyMalformed if a server has a VNIC before and after,
    and is in no list."""
    instances, attached = oracle.instances(compartment), oracle.vnic_attachments(compartment)
    lived = _owners(vnics) & _owners(attached)
    instances = _united([row for row in before if row.id in lived], instances)
    if not lived <= {row.id for row in instances}:
        instances = _united(instances, oracle.instances(compartment))
    if not lived <= {row.id for row in instances}:
        raise _disagreement()
    return instances, _united(vnics, attached)


def _united(earlier: Iterable[_R], later: Iterable[_R]) -> list[_R]:
    """By id, as the later list has them."""
    return list({row.id: row for rows in (earlier, later) for row in rows}.values())


def _disagreement() -> api.PartyMalformed:
    return api.PartyMalformed("The party's servers and the VNICs attached to them still disagree after a second "
                              "listing.")


def _owners(attached: Iterable[_VnicAttachment]) -> set[str]:
    return {row.instanceId for row in attached if _holds(row)}


def _unlisted(attached: Iterable[_VnicAttachment], instances: Iterable[_Instance]) -> set[str]:
    """The servers that have a VNIC and are not listed. An attachment lies in its server's compartment."""
    return _owners(attached) - {row.id for row in instances}


def _without_vnic(instances: Iterable[_Instance], attached: Mapping[str, Iterable[_VnicAttachment]]) -> set[str]:
    """The servers that run without a VNIC. Each has one from its first moment to its last."""
    return {row.id for row in instances if row.runs} - {row.instanceId for rows in attached.values() for row in rows}


def _holds(row: _VnicAttachment | _BootAttachment | _VolumeAttachment) -> bool:
    return row.lifecycleState not in _DETACHED


def _server(row: _Instance) -> api.Server:
    """Without its disks and addresses."""
    shape = row.shapeConfig or _Shape()
    return api.Server(
        id=row.id,
        name=row.displayName or "",
        cpu=_cpu(row.shape or "", shape),
        memory_mib=None if shape.memoryInGBs is None else ceil(shape.memoryInGBs * 1024),
        **PARTY.status_of(row.lifecycleState),
        created_at=api.parse_time(row.timeCreated),
        zone=row.availabilityDomain,
        project_id=row.compartmentId,
        instance_type=row.shape or "",
        tags={**(row.freeformTags or {}), **{f"{space}.{key}": value for space, tags in (row.definedTags or {}).items()
                                             for key, value in tags.items()}},
        image_id=row.sourceDetails.imageId if row.sourceDetails and row.sourceDetails.sourceType == "image" else None,
        charge_type=api.POSTPAID if row.preemptibleInstanceConfig is msgspec.UNSET or bytes(
            row.preemptibleInstanceConfig) == b"null" else api.SPOT,
        host_id=row.dedicatedVmHostId,
        console_url=f"https://cloud.oracle.com/compute/instances/{row.id}?region={PARTY.region(row.region)}"
        if row.id.startswith("ocid1.instance.oc1.") else None,
    )


def _network(vnics: Sequence[_Vnic]) -> dict[str, Any]:
    """What the VNICs say of a server's network."""
    primary = next((vnic for vnic in vnics if vnic.isPrimary), None)
    return {"subnet_id": primary and primary.subnetId, "security_groups": api.groups(vnic.nsgIds for vnic in vnics)}


def _cpu(name: str, shape: _Shape) -> int | None:
    """An OCPU is two virtual CPUs, and one on A1. What it is on later Arm shapes is not known without `vcpus`."""
    if shape.vcpus is not None or shape.ocpus is None:
        return shape.vcpus
    arm = re.match(r"(?:VM|BM)\.Standard\.A([0-9]+)\b", name, re.ASCII)
    count = shape.ocpus * (1 if arm else 2)
    return None if (arm and arm[1] != "1") or not count.is_integer() else int(count)


def _local_gib(shape: _Shape | None) -> int | None:
    """The local disks of the shape together; None if they have no size, or the shape is not known."""
    if shape is None:
        return None
    if shape.localDisksTotalSizeInGBs is None:
        return None if shape.localDisks or shape.localDiskDescription else 0
    return ceil(shape.localDisksTotalSizeInGBs)


# ---------------------------------------------------------------- compartments

def _compartments(oracle: "_Oracle") -> list[str]:
    """The compartments to list: all that the key may read, or the account's and those below it."""
    rows = oracle.compartments("ListCompartments", "ACCESSIBLE")
    root, top = oracle.tenancy, oracle.client.project
    if not rows and oracle.compartments("ListAllCompartments", "ANY"):
        oracle.instances(top or root)       # which says if the key has no right at all
        raise api.PartyMalformed("The party lists no compartment that the key may read, although the tenancy has some. "
                                 "The key needs the right `inspect compartments`.")
    if top in (None, root):
        return [root, *sorted(row.id for row in rows)]
    if top not in {row.id for row in rows}:
        raise api.refused("wrong project: there is no compartment of this OCID, or the key may not read it")
    ids, level = set[str](), {top}
    while level:
        ids |= level
        level = {row.id for row in rows if row.compartmentId in level} - ids
    return sorted(ids)


# ---------------------------------------------------------------- addresses

def _vnics(oracle: "_Oracle", wanted: Sequence[_Instance], attached: Mapping[str, Sequence[_VnicAttachment]],
           ) -> dict[str, list[_Vnic]]:
    """By server."""
    ids = {row.id for row in wanted}
    pairs = [(compartment, row.instanceId, row.vnicId) for compartment, rows in attached.items() for row in rows
             if row.instanceId in ids and _holds(row) and row.vnicId]
    vnics = oracle.client.for_each(pairs, lambda pair: oracle.one("GetVnic", f"/vnics/{pair[2]}", _Vnic), _WORKERS)
    for compartment in {pair[0] for pair, vnic in zip(pairs, vnics, strict=True) if isinstance(vnic, api.PartyDenied)}:
        there = {row.vnicId for row in oracle.vnic_attachments(compartment) if _holds(row)}
        for pair, vnic in zip(pairs, vnics, strict=True):
            if isinstance(vnic, api.PartyDenied) and pair[2] in there:
                raise vnic                  # not gone: refused
    return api.by_owner((pair[1], vnic) for pair, vnic in zip(pairs, vnics, strict=True) if isinstance(vnic, _Vnic))


def _secondary(oracle: "_Oracle", compartments: Sequence[str], vnics: Mapping[str, Sequence[_Vnic]],
               ) -> tuple[dict[str, list[str | None]], dict[str, list[str | None]]]:
    """By VNIC: its secondary private addresses, and the public ones of these."""
    subnets = sorted({vnic.subnetId for part in vnics.values() for vnic in part if vnic.subnetId})
    ids = {vnic.id for part in vnics.values() for vnic in part}
    secondary = {row.id: row for part in oracle.client.for_each(subnets, oracle.private_ips, _WORKERS) for row in part
             if row.vnicId in ids and not row.isPrimary}
    reserved = oracle.client.for_each(compartments, oracle.public_ips, _WORKERS) if secondary else []
    return (api.by_owner((row.vnicId, row.ipAddress) for row in secondary.values()),
            api.by_owner((secondary[row.assignedEntityId].vnicId, row.ipAddress) for part in reserved for row in part
                         if row.assignedEntityId in secondary))


def _addresses(vnics: Iterable[_Vnic], private: Mapping[str, Sequence[str | None]],
               public: Mapping[str, Sequence[str | None]]) -> dict[str, Any]:
    """The primary VNIC's first. `private`, `public`: further ones, by VNIC."""
    ordered = sorted(vnics, key=lambda vnic: not vnic.isPrimary)
    six = api.by_scope(text for vnic in ordered for text in vnic.ipv6Addresses or ())
    return {**api.addresses([ip for vnic in ordered for ip in (vnic.privateIp, *private.get(vnic.id, ()))],
                            [ip for vnic in ordered for ip in (vnic.publicIp, *public.get(vnic.id, ()))]),
            "lan_ipv6": six["lan_ipv6"], "wan_ipv6": six["wan_ipv6"]}


# ---------------------------------------------------------------- disks

def _disks(oracle: "_Oracle", wanted: Sequence[_Instance]) -> dict[str, list[int | None]]:
    """The sizes of the volumes of each server, None for one that is gone, that the key may not read, or from which the
    server must have started although no list holds it."""
    client, ids = oracle.client, {row.id for row in wanted}
    compartments = sorted({row.compartmentId for row in wanted})
    places = sorted({(row.compartmentId, row.availabilityDomain) for row in wanted})
    running = api.by_owner((f"{row.compartmentId} {row.availabilityDomain}", row.id) for row in wanted if row.runs)
    boots, blocks = client.run_all(
        lambda: client.for_each(places, lambda place: _boot_attachments(
            oracle, *place, running.get(" ".join(place), ())), _WORKERS),
        lambda: client.for_each(compartments, oracle.volume_attachments, _WORKERS))
    owners = [*((f"/bootVolumes/{row.bootVolumeId}", row.instanceId) for rows in boots for row in rows
                if row.instanceId in ids and _holds(row)),
              *((f"/volumes/{row.volumeId}", row.instanceId) for rows in blocks for row in rows
                if row.instanceId in ids and _holds(row))]
    kinds = [kind for kind in ("/bootVolumes", "/volumes") if any(path.startswith(kind) for path, _ in owners)]
    lists = client.for_each(product(kinds, compartments), lambda of: oracle.volumes(*of), _WORKERS)
    sizes = {path: size for part in lists for path, size in part.items()}
    others = sorted({path for path, _ in owners} - sizes.keys())
    sizes |= dict(zip(others, client.for_each(others, oracle.volume_size, _WORKERS), strict=True))
    started = {server for path, server in owners if path.startswith("/bootVolumes")}
    return api.by_owner([*((server, sizes[path]) for path, server in owners),
                         *((row.id, None) for row in wanted if row.runs and row.id not in started)])


def _boot_attachments(oracle: "_Oracle", compartment: str, domain: str, running: Sequence[str],
                      ) -> list[_BootAttachment]:
    """`running`: the servers that ran there when they were listed; each runs from its boot volume."""
    for _ in range(2):
        rows = oracle.boot_attachments(compartment, domain)
        if rows or not running or not any(row.id in running and row.runs for row in oracle.instances(compartment)):
            return rows
    raise api.PartyMalformed("The party lists no boot volume where servers run.")


# ---------------------------------------------------------------- regions, check

def _regions(oracle: "_Oracle", region: str) -> list[api.Region]:
    """Asked in this region; the answer is the same in each that the tenancy is subscribed to."""
    rows = oracle.rows("ListRegions", f"/tenancies/{oracle.tenancy}/regionSubscriptions", _Subscription, region=region)
    if not rows:
        raise api.PartyMalformed("The party lists no region.")
    return [api.Region(row.regionName, "", row.status != "IN_PROGRESS") for row in rows]


def _home(client: api.Client) -> str:
    """Where the key is surely known: the credentials' region, or else the one that is listed."""
    named = client.credentials.get("region")
    return PARTY.region(named) if named else client.region


def list_regions(client: api.Client) -> list[api.Region]:
    return _regions(_Oracle.of(client), _home(client))


def check(client: api.Client) -> None:
    """The key, the compartments that it may read, and the servers of the first of them."""
    oracle = _Oracle.of(client)
    if not client.account.regions and client.region == PARTY.default_region:
        oracle = _Oracle(client, oracle.key, _home(client))
    compartment = _compartments(oracle)[0]
    oracle.get("ListInstances", "/instances", compartmentId=compartment, limit=1)
    if client.account.deep:
        oracle.get("ListPublicIps", "/publicIps", scope="REGION", compartmentId=compartment, limit=1)


# ---------------------------------------------------------------- the calls

_IDENTITY = ("/compartments", "/tenancies/")


@dataclass(frozen=True, slots=True)
class _Oracle:
    """The API in one region, with the account's key, which is read once for a listing: to check it costs more than to
    sign with it."""

    client: api.Client
    key: RSAPrivateKey
    region: str

    @classmethod
    def of(cls, client: api.Client) -> "_Oracle":
        return cls(client, _rsa(client.credentials["private_key"]), client.region)

    @property
    def tenancy(self) -> str:
        return self.client.credentials["tenancy"]

    def compartments(self, operation: str, level: str) -> list[_Compartment]:
        """Those of the whole tree that can hold something, without the tenancy itself. `level`: ANY checks no right."""
        rows = self.rows(operation, "/compartments", _Compartment, compartmentId=self.tenancy,
                         compartmentIdInSubtree="true", accessLevel=level, limit=_PAGE)
        return [row for row in rows if row.lifecycleState not in _EMPTY]

    def instances(self, compartment: str) -> list[_Instance]:
        rows = self.rows("ListInstances", "/instances", _Instance, compartmentId=compartment, limit=_PAGE,
                         sortBy="TIMECREATED", sortOrder="ASC")
        return api.only(rows, lambda row: (PARTY.aliases.get(row.region, row.region), row.compartmentId),
                        (self.region, compartment))

    def vnic_attachments(self, compartment: str) -> list[_VnicAttachment]:
        return self.rows("ListVnicAttachments", "/vnicAttachments", _VnicAttachment, compartmentId=compartment,
                         limit=_PAGE)

    def private_ips(self, subnet: str) -> list[_PrivateIp]:
        rows = self.rows("ListPrivateIps", "/privateIps", _PrivateIp, subnetId=subnet, limit=_PAGE)
        if not rows:
            raise api.PartyMalformed("The party lists no private address in the subnet of a VNIC.")
        return rows

    def public_ips(self, compartment: str) -> list[_PublicIp]:
        return self.rows("ListPublicIps", "/publicIps", _PublicIp, scope="REGION", compartmentId=compartment,
                         limit=_PAGE)

    def boot_attachments(self, compartment: str, domain: str) -> list[_BootAttachment]:
        return self.rows("ListBootVolumeAttachments", "/bootVolumeAttachments", _BootAttachment,
                         availabilityDomain=domain, compartmentId=compartment, limit=_PAGE)

    def volume_attachments(self, compartment: str) -> list[_VolumeAttachment]:
        return self.rows("ListVolumeAttachments", "/volumeAttachments", _VolumeAttachment, compartmentId=compartment,
                         limit=_PAGE)

    def volumes(self, kind: str, compartment: str) -> dict[str, int | None]:
        """Path of a volume -> GiB."""
        operation = {"/volumes": "ListVolumes", "/bootVolumes": "ListBootVolumes"}[kind]
        rows = self.rows(operation, kind, _Volume, compartmentId=compartment, limit=_PAGE)
        return {f"{kind}/{row.id}": row.sizeInGBs for row in rows}

    def volume_size(self, path: str) -> int | None:
        volume = self.one("GetVolume" if path.startswith("/volumes") else "GetBootVolume", path, _Volume)
        return volume.sizeInGBs if isinstance(volume, _Volume) else None

    def one(self, operation: str, path: str, shape: type[_T]) -> _T | api.PartyDenied:
        """The refusal, if there is none or the key may not read it: the party says the same of both."""
        try:
            return api.read(self.get(operation, path), shape)
        except api.PartyDenied as refused:
            if refused.party_code != _HIDDEN_WORD:
                raise
            return refused

    def rows(self, operation: str, path: str, row: type[_T], region: str | None = None, **query: object) -> list[_T]:
        """Every row, which has an `id`."""
        shape: Any = row

        def fetch(token: str | None) -> api.Page[_T]:
            response = self.get(operation, path, region, **query, page=token)
            items: Any = api.read(response, list[shape])
            return api.Page([(one.id, one) for one in items], token=response.headers.get("opc-next-page"))

        return api.by_token(fetch, stable=False).rows

    def get(self, operation: str, path: str, region: str | None = None, **query: object) -> api.Response:
        host = "identity.{}.oci.{}" if path.startswith(_IDENTITY) else "iaas.{}.{}"
        pairs = urlencode({name: value for name, value in query.items() if value is not None})
        url = self.client.url(f"https://{host.format(region or self.region, _suffix(self.tenancy))}/20160918{path}"
                              f"{'?' * bool(pairs)}{pairs}")
        return self.client.send(operation, lambda: sign(url, self.client.credentials, self.key))


def _suffix(tenancy: str) -> str:
    """ocid1.tenancy.oc1..aaaa -> oraclecloud.com"""
    realm = tenancy.split(".")[2]
    return _SUFFIXES.get(realm, f"oraclecloud{realm.removeprefix('oc')}.com")


def sign(url: str, credentials: Mapping[str, str], key: RSAPrivateKey) -> api.Request:
    """A GET of this URL, signed at this moment. The path and the query are signed in the form that is sent."""
    there = urlsplit(url)
    target = f"{there.path}{'?' * bool(there.query)}{there.query}"
    date = formatdate(usegmt=True)
    text = f"date: {date}\n(request-target): get {target}\nhost: {there.netloc}"
    signature = base64.b64encode(key.sign(text.encode(), PKCS1v15(), SHA256())).decode()
    owner = "/".join(credentials[name] for name in ("tenancy", "user", "fingerprint"))
    return api.Request("GET", url, {
        "Date": date, "Host": there.netloc, "Accept": "application/json",
        "Authorization": f'Signature algorithm="rsa-sha256",headers="date (request-target) host",keyId="{owner}",'
                         f'signature="{signature}",version="1"'})


def error_code(response: api.Response) -> str | None:
    if response.status < 400:
        return None
    refused = api.refusal(response, _Refusal)
    return refused and refused.code


# ---------------------------------------------------------------- the key

def _rsa(pem: str) -> RSAPrivateKey:
    """Raises ValueError, TypeError or UnsupportedAlgorithm if it is none, or has a passphrase."""
    loaded = load_pem_private_key(pem.encode(), None)
    if not isinstance(loaded, RSAPrivateKey):
        raise ValueError
    return loaded


def fingerprint_of(key: RSAPrivateKey) -> str:
    """MD5 of the public key, as the party's console shows it."""
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.md5(public, usedforsecurity=False).hexdigest()


def examine(credentials: Mapping[str, str]) -> None:
    try:
        key = _rsa(credentials["private_key"])
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise api.InvalidParameter("credentials", "The field private_key must be an RSA key in PEM without a "
                                                  "passphrase.") from None
    if fingerprint_of(key) != credentials["fingerprint"].replace(":", "").lower():
        raise api.InvalidParameter("credentials", "The field fingerprint is not that of private_key.")
    if "region" in credentials:
        PARTY.region(credentials["region"])


_OCID = r"ocid1\.{}\.oc[0-9]{{1,3}}\.[A-Za-z0-9._-]{{1,200}}"

# https://docs.oracle.com/iaas/Content/Network/Concepts/fastconnectpublicpeeringaddressranges.htm: names and keys;
# the SDK's regions_definitions: keys and codes
_REGION_NAMES = {
    "ap-sydney-1": "Australia East (Sydney)", "ap-melbourne-1": "Australia Southeast (Melbourne)",
    "sa-saopaulo-1": "Brazil East (Sao Paulo)", "sa-vinhedo-1": "Brazil Southeast (Vinhedo)",
    "ca-montreal-1": "Canada Southeast (Montreal)", "ca-toronto-1": "Canada Southeast (Toronto)",
    "sa-santiago-1": "Chile Central (Santiago)", "sa-valparaiso-1": "Chile West (Valparaiso)",
    "sa-bogota-1": "Colombia Central (Bogota)", "eu-paris-1": "France Central (Paris)",
    "eu-marseille-1": "France South (Marseille)", "eu-frankfurt-1": "Germany Central (Frankfurt)",
    "ap-hyderabad-1": "India South (Hyderabad)", "ap-mumbai-1": "India West (Mumbai)",
    "ap-batam-1": "Indonesia North (Batam)", "il-jerusalem-1": "Israel Central (Jerusalem)",
    "eu-milan-1": "Italy Northwest (Milan)", "ap-osaka-1": "Japan Central (Osaka)",
    "ap-tokyo-1": "Japan East (Tokyo)", "mx-queretaro-1": "Mexico Central (Queretaro)",
    "mx-monterrey-1": "Mexico Northeast (Monterrey)", "eu-amsterdam-1": "Netherlands Northwest (Amsterdam)",
    "me-riyadh-1": "Saudi Arabia Central (Riyadh)", "me-jeddah-1": "Saudi Arabia West (Jeddah)",
    "eu-jovanovac-1": "Serbia Central (Jovanovac)", "ap-singapore-1": "Singapore (Singapore)",
    "ap-singapore-2": "Singapore West (Singapore)", "af-johannesburg-1": "South Africa Central (Johannesburg)",
    "ap-seoul-1": "South Korea Central (Seoul)", "ap-chuncheon-1": "South Korea North (Chuncheon)",
    "eu-madrid-1": "Spain Central (Madrid)", "eu-stockholm-1": "Sweden Central (Stockholm)",
    "eu-zurich-1": "Switzerland North (Zurich)", "me-abudhabi-1": "UAE Central (Abu Dhabi)",
    "me-dubai-1": "UAE East (Dubai)", "uk-london-1": "UK South (London)", "uk-cardiff-1": "UK West (Newport)",
    "us-ashburn-1": "US East (Ashburn)", "us-chicago-1": "US Midwest (Chicago)", "us-phoenix-1": "US West (Phoenix)",
    "us-sanjose-1": "US West (San Jose)",
    "ap-kulai-2": "Malaysia West 2 (Kulai)", "eu-turin-1": "Italy North (Turin)",
    "eu-madrid-3": "Spain Central (Madrid 3)", "af-casablanca-1": "Morocco West (Casablanca)",
}

PARTY = api.Party(
    name="oci",
    title="Oracle Cloud Infrastructure",
    reference="https://docs.oracle.com/iaas/api/#/en/iaas/20160918/Instance/ListInstances",
    order="by creation in each availability domain, requested; opaque tokens that prove nothing",
    credentials=(("tenancy", "user", "fingerprint", "private_key", "region?"),),
    forms={"tenancy": _OCID.format("tenancy"), "user": _OCID.format("user"),
           "fingerprint": r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){15}",
           "private_key": r"-----BEGIN [A-Z ]{3,30}-----[\s!-~]+"},
    examine=examine,
    permissions=("inspect compartments", "inspect tenancies", "read instances", "inspect vnic-attachments",
                 "inspect vnics", "inspect volume-attachments", "inspect volumes"),
    deep_permissions=("inspect private-ips", "read public-ips"),
    aliases=_ALIASES,
    **api.region_names(_REGION_NAMES),
    region_form=r"[a-z]{2}(-[a-z]{2,20}){1,2}-[0-9]{1,2}",
    region_in_host=True,
    closed_is_denied=True,
    default_region="us-ashburn-1",
    project="a compartment's OCID, which covers those below it",
    project_form=_OCID.format("(compartment|tenancy)"),
    regional_limits=True,
    limits=api.per_second(20, "ListCompartments", "ListAllCompartments", "ListRegions") | api.per_second(
        50, "ListInstances", "ListVnicAttachments", "ListBootVolumeAttachments", "ListVolumeAttachments",
        "ListBootVolumes", "ListVolumes", "ListPrivateIps", "ListPublicIps") | api.per_second(
        100, "GetVnic", "GetVolume", "GetBootVolume"),
    error_code=error_code,
    errors=_ERRORS,
    status=_STATUS,
    list_servers=list_servers,
    list_regions=list_regions,
    check=check,
)

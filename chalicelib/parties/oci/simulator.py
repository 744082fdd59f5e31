"""A simulator for Oracle Cloud: Identity, Compute, Networking and Block Volume 20160918 of one region.

Checked as the real ones do: the signature over date, (request-target) and host, five minutes of clock, parameters and
which of them a list needs, tokens that belong to the list that gave them. A compartment that the key may not read
answers as one that does not exist. Servers lie in the tenancy itself and at two depths below it; some volumes lie in a
compartment without servers. `short`: pages may be short or empty although more follow.
"""

import base64
import hashlib
import random
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ...simulators.cloud import Cloud, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet, Machine, Positions
from ...simulators.server import Call, Simulator

REGIONS = ("us-ashburn-1", "ap-tokyo-1", "eu-frankfurt-1")      # the second one is not ready yet
TENANCY = "ocid1.tenancy.oc1..aaaatenancy"
SHOP, DATABASES, STORE, OLD = (f"ocid1.compartment.oc1..aaaa{name}" for name in ("shop", "databases", "store", "old"))
ABOVE = {SHOP: TENANCY, DATABASES: SHOP, STORE: TENANCY, OLD: TENANCY}          # the last one was deleted
_ROOT = "/20160918"
_PAGES = "compartmentId limit page"
_CALLS = {                                  # operation -> (path, what it takes, what it needs)
    "ListCompartments": ("/compartments", f"{_PAGES} compartmentIdInSubtree accessLevel", "compartmentId"),
    "ListRegions": ("/tenancies/([^/]+)/regionSubscriptions", "", ""),
    "ListInstances": ("/instances", f"{_PAGES} availabilityDomain lifecycleState sortBy sortOrder", "compartmentId"),
    "ListVnicAttachments": ("/vnicAttachments", f"{_PAGES} instanceId vnicId availabilityDomain", "compartmentId"),
    "ListPrivateIps": ("/privateIps", "limit page subnetId vnicId ipAddress", "subnetId"),
    "ListPublicIps": ("/publicIps", f"{_PAGES} scope availabilityDomain lifetime", "compartmentId scope"),
    "ListVolumeAttachments": ("/volumeAttachments", f"{_PAGES} instanceId volumeId availabilityDomain",
                              "compartmentId"),
    "ListBootVolumeAttachments": ("/bootVolumeAttachments", f"{_PAGES} instanceId bootVolumeId availabilityDomain",
                                  "compartmentId availabilityDomain"),
    "ListVolumes": ("/volumes", f"{_PAGES} availabilityDomain", "compartmentId"),
    "ListBootVolumes": ("/bootVolumes", f"{_PAGES} availabilityDomain", "compartmentId"),
    "GetVolume": ("/volumes/([^/]+)", "", ""),
    "GetBootVolume": ("/bootVolumes/([^/]+)", "", ""),
    "GetVnic": ("/vnics/([^/]+)", "", ""),
}
_FILTERS = ("compartmentId", "availabilityDomain", "instanceId", "vnicId", "volumeId", "bootVolumeId",
            "lifecycleState", "subnetId", "scope")
_STATES = {"running": "RUNNING", "stopped": "STOPPED", "starting": "STARTING", "stopping": "STOPPING",
           "pending": "PROVISIONING", "terminated": "TERMINATED"}

Row = dict[str, Any]


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(status, code, message)


def _hidden() -> _Refused:
    return _Refused(404, "NotAuthorizedOrNotFound", "Authorization failed or requested resource not found.")


class Oci(Simulator):
    """`keys`: tenancy/user/fingerprint -> public key. `readable`: the compartments in which the key has all rights, the
    tenancy included; `denied`: operations for which it has none. `late`: seconds by which its clock is ahead."""

    def __init__(self, keys: Mapping[str, rsa.RSAPublicKey], region: str, fleet: Fleet, *, short: bool = False,
                 port: int = 0, latency: float = 0.0) -> None:
        self.keys = dict(keys)
        self.region = region
        self.fleet = fleet
        self.short = short
        self.readable = {TENANCY, *ABOVE}
        self.denied: set[str] = set()
        self.kept: dict[str, list[Row]] = {}
        self._positions = Positions()
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        path = call.path.removeprefix(_ROOT)
        name = next((name for name, (form, _, _) in _CALLS.items() if re.fullmatch(form, path)), "?")
        return "ListAllCompartments" if "accessLevel=ANY" in call.query.split("&") else name

    def answer(self, call: Call) -> Answer:
        headers = {"Content-Type": "application/json", "opc-request-id": "0123456789ABCDEF/0/0"}
        try:
            body, more = self._answer(call)
            return Answer(200, {**headers, **more}, msgspec.json.encode(body))
        except _Refused as refused:
            status, code, message = refused.args
            return Answer(status, headers, msgspec.json.encode({"code": code, "message": message or code}))

    def _answer(self, call: Call) -> tuple[object, dict[str, str]]:
        self._check_signature(call)
        name = call.operation.replace("ListAll", "List")
        path, words, needed = _CALLS.get(name, ("", "", ""))
        if not path or call.method != "GET" or not call.path.startswith(f"{_ROOT}/"):
            raise _Refused(404, "NotFound", "No such path.")
        pairs = parse_qsl(call.query, keep_blank_values=True)
        query = dict(pairs)
        if len(query) < len(pairs) or query.keys() - set(words.split()):
            raise _Refused(400, "InvalidParameter", "This parameter is not known.")
        if set(needed.split()) - query.keys():
            raise _Refused(400, "MissingParameter", "A parameter is missing.")
        if name in self.denied or call.operation in self.denied:
            raise _hidden()
        match = re.fullmatch(path, call.path.removeprefix(_ROOT))
        if match and match.groups():
            return (self._regions(match[1]) if name == "ListRegions" else self._one(name, match[1])), {}
        return self._page(call.operation, query)

    def _check_signature(self, call: Call) -> None:
        refused = _Refused(401, "NotAuthenticated", "The required information to complete authentication was not "
                                                    "provided or was incorrect.")
        match = re.fullmatch(r'Signature (\w+="[^"]*")(,\w+="[^"]*")*', call.headers.get("authorization", ""))
        if not match:
            raise refused
        words = dict(re.findall(r'(\w+)="([^"]*)"', call.headers["authorization"]))
        key, names = self.keys.get(words.get("keyId", "")), words.get("headers", "").split()
        if key is None or words.get("algorithm") != "rsa-sha256" or words.get("version") != "1" or (
                {"date", "(request-target)", "host"} - set(names)):
            raise refused
        target = f"get {call.path}{'?' * bool(call.query)}{call.query}"
        text = "\n".join(f"{name}: {target if name == '(request-target)' else call.headers.get(name, '')}"
                         for name in names)
        try:
            key.verify(base64.b64decode(words["signature"], validate=True), text.encode(), PKCS1v15(), SHA256())
            at = parsedate_to_datetime(call.headers["date"]).timestamp()
        except (InvalidSignature, ValueError, KeyError):
            raise refused from None
        if abs(time.time() + self.late - at) > 300:
            raise refused

    # ---------------------------------------------------------------- lists

    def _page(self, operation: str, query: Mapping[str, str]) -> tuple[list[Row], dict[str, str]]:
        if not 1 <= int(query.get("limit", "100")) <= 1000:
            raise _Refused(400, "InvalidParameter", "limit must be between 1 and 1000.")
        rows = self._compartments(query) if "Compartments" in operation else self._rows_of(operation, query)
        of = f"{operation} {query.get('compartmentId')} {query.get('availabilityDomain')}"
        try:
            at = self._positions.take(query["page"], of) if "page" in query else 0
        except ValueError:
            raise _Refused(400, "InvalidParameter", "The page is not valid.") from None
        size = int(query.get("limit", "100"))
        if self.short and size > 1:
            size = random.randrange(1, size) if "page" in query else 0
        end = min(at + size, len(rows))
        return rows[at:end], {"opc-next-page": self._positions.give(end, of)} if end < len(rows) else {}

    def _compartments(self, query: Mapping[str, str]) -> list[Row]:
        if query.get("compartmentIdInSubtree", "false") == "true" and query["compartmentId"] != TENANCY:
            raise _Refused(400, "InvalidParameter", "The subtree is that of the tenancy.")
        shown = set(ABOVE)
        if query.get("accessLevel", "ANY") == "ACCESSIBLE":
            shown = {place for place in ABOVE if place in self.readable or any(
                ABOVE.get(below) == place for below in self.readable)}
        return [{"id": place, "compartmentId": above, "name": place.rpartition("aaaa")[2], "description": "",
                 "timeCreated": "2024-01-01T00:00:00.000Z", "isAccessible": True,
                 "lifecycleState": "DELETED" if place == OLD else "ACTIVE", "freeformTags": {}, "definedTags": {}}
                for place, above in ABOVE.items() if place in shown
                and (query.get("compartmentIdInSubtree") == "true" or above == query["compartmentId"])]

    def _rows_of(self, operation: str, query: Mapping[str, str]) -> list[Row]:
        place = query.get("compartmentId", TENANCY)             # where the subnet is
        if place not in self.readable or place == OLD:
            raise _hidden()
        wanted = {name: value for name, value in query.items() if name in _FILTERS}
        rows = [row for row in self._made(operation) if all(row[name] == value for name, value in wanted.items())]
        if query.get("sortBy") == "TIMECREATED":
            rows.sort(key=lambda row: row["timeCreated"], reverse=query.get("sortOrder") != "ASC")
            rows.sort(key=lambda row: row["availabilityDomain"])
        return rows

    def _made(self, operation: str) -> list[Row]:
        if operation not in self.kept:
            make = {"ListInstances": self._instances, "ListVnicAttachments": self._vnic_attachments,
                    "ListVolumeAttachments": self._volume_attachments, "GetVnic": self._vnics,
                    "ListBootVolumeAttachments": self._boot_attachments, "ListVolumes": self._volumes,
                    "ListBootVolumes": self._boot_volumes, "GetVolume": self._volumes,
                    "ListPrivateIps": self._private_ips, "ListPublicIps": self._public_ips,
                    "GetBootVolume": self._boot_volumes}[operation]
            self.kept[operation] = [row for n in range(len(self.fleet)) for row in make(self.fleet[n])]
        return self.kept[operation]

    def _one(self, operation: str, ocid: str) -> Row:
        item = next((row for row in self._made(operation) if row["id"] == ocid), None)
        if item is None or item["compartmentId"] not in self.readable:
            raise _hidden()
        return item

    def _regions(self, tenancy: str) -> list[Row]:
        if tenancy != TENANCY:
            raise _hidden()
        return [{"regionKey": name[3:6].upper(), "regionName": name, "isHomeRegion": name == REGIONS[0],
                 "status": "IN_PROGRESS" if name == REGIONS[1] else "READY"} for name in REGIONS]

    # ---------------------------------------------------------------- rows

    def _place(self, machine: Machine) -> Row:
        return {"compartmentId": compartment_of(machine), "displayName": "", "lifecycleState": "ATTACHED",
                "availabilityDomain": self.domain_of(machine), "timeCreated": _created(machine)}

    def domain_of(self, machine: Machine) -> str:
        return f"Uocm:{self.region.upper().removesuffix('-1')}-AD-{machine.zone}"

    def _ocid(self, kind: str, machine: Machine, n: int = 0) -> str:
        return f"ocid1.{kind}.oc1.{_SHORT.get(self.region, self.region)}.a{machine.key}{machine.number:x}{n:x}"

    def _instances(self, machine: Machine) -> list[Row]:
        kind, local = _kind(machine), _local(machine)
        shape: Row = {"memoryInGBs": float(machine.memory_gib), "baselineOcpuUtilization": None, "gpus": 0,
                      "ocpus": machine.cpu / (1 if "A1" in kind else 2), "localDisks": int(bool(local)),
                      "localDisksTotalSizeInGBs": float(local) if local else None,
                      "localDiskDescription": "NVMe SSD Storage" if local else None, "maxVnicAttachments": 2,
                      "networkingBandwidthInGbps": 4.0, "processorDescription": "2.25 GHz"}
        if machine.number % 5 > 1:
            shape["vcpus"] = machine.cpu
        return [{**self._place(machine), "id": self._ocid("instance", machine), "displayName": machine.name,
                 "region": _SHORT.get(self.region, self.region), "lifecycleState": _STATES[machine.state],
                 "faultDomain": "FAULT-DOMAIN-1", "shape": kind, "shapeConfig": shape, "freeformTags": machine.tags,
                 "definedTags": {"Oracle-Tags": {"CreatedBy": "ann"}}, "metadata": {"user_data": "c2VjcmV0"},
                 "extendedMetadata": {}, "launchMode": "PARAVIRTUALIZED", "dedicatedVmHostId": None, "systemTags": {},
                 "imageId": "ocid1.image.oc1.iad.aaaaimage", "timeMaintenanceRebootDue": None,
                 "sourceDetails": {"sourceType": "image", "imageId": "ocid1.image.oc1.iad.aaaaimage",
                                   "bootVolumeSizeInGBs": None}}]

    def _vnic_attachments(self, machine: Machine) -> list[Row]:
        """Each ninth machine had one more, which was detached."""
        rows = [{**self._place(machine), "id": self._ocid("vnicattachment", machine, n), "nicIndex": 0,
                 "instanceId": self._ocid("instance", machine), "subnetId": "ocid1.subnet.oc1.iad.aaaasubnet",
                 "vnicId": self._ocid("vnic", machine, n), "vlanTag": 100 + n}
                for n in range(len(machine.lan) + (machine.number % 9 == 8))]
        for row in rows[len(machine.lan):] if machine.state != "terminated" else rows:
            row["lifecycleState"] = "DETACHED"
        return rows[::-1]

    def _vnics(self, machine: Machine) -> list[Row]:
        six = [[f"2603:c020:4000::{machine.number + 1:x}", f"fd00::{machine.number + 1:x}"]] if (
            machine.number % 4 == 0) else []
        return [{**self._place(machine), "id": self._ocid("vnic", machine, n), "lifecycleState": "AVAILABLE",
                 "isPrimary": n == 0, "privateIp": ip, "publicIp": (machine.wan[n:] or (None,))[0],
                 "macAddress": "02:00:17:00:00:01", "nsgIds": [], "skipSourceDestCheck": False,
                 "hostnameLabel": machine.name, "subnetId": "ocid1.subnet.oc1.iad.aaaasubnet",
                 **({"ipv6Addresses": six[0]} if six and n == 0 else {})} for n, ip in enumerate(machine.lan)]

    def _private_ips(self, machine: Machine) -> list[Row]:
        private, _ = second_addresses(machine)
        known = [*((n, n, ip) for n, ip in enumerate(machine.lan)), *((0, 9, ip) for ip in private)]
        return [] if machine.state == "terminated" else [
            {"compartmentId": compartment_of(machine), "availabilityDomain": self.domain_of(machine), "displayName": "",
             "timeCreated": _created(machine), "id": self._ocid("privateip", machine, key), "ipAddress": ip,
             "isPrimary": key < 9, "vnicId": self._ocid("vnic", machine, n), "vlanId": None,
             "subnetId": "ocid1.subnet.oc1.iad.aaaasubnet"} for n, key, ip in known]

    def _public_ips(self, machine: Machine) -> list[Row]:
        """The reserved ones, which lie in a compartment of their own."""
        return [{**self._place(machine), "id": self._ocid("publicip", machine), "compartmentId": STORE,
                 "availabilityDomain": None, "ipAddress": ip, "assignedEntityId": self._ocid("privateip", machine, 9),
                 "assignedEntityType": "PRIVATE_IP", "lifecycleState": "ASSIGNED", "lifetime": "RESERVED",
                 "privateIpId": self._ocid("privateip", machine, 9), "scope": "REGION"}
                for ip in second_addresses(machine)[1] if machine.state != "terminated"]

    def _volume_attachments(self, machine: Machine) -> list[Row]:
        """Each eighth machine had one more, which was detached."""
        count = len(_blocks(machine))
        return [{**self._place(machine), "id": self._ocid("volumeattachment", machine, n), "attachmentType":
                 "paravirtualized", "instanceId": self._ocid("instance", machine), "isReadOnly": False,
                 "volumeId": self._ocid("volume", machine, n),
                 "lifecycleState": "DETACHED" if n == count or machine.state == "terminated" else "ATTACHED"}
                for n in range(count + (machine.number % 8 == 7))]

    def _boot_attachments(self, machine: Machine) -> list[Row]:
        return [{**self._place(machine), "id": self._ocid("instance", machine),
                 "instanceId": self._ocid("instance", machine), "bootVolumeId": self._ocid("bootvolume", machine),
                 "lifecycleState": "DETACHED" if machine.state == "terminated" else "ATTACHED"}]

    def _volumes(self, machine: Machine) -> list[Row]:
        place = STORE if machine.number % 50 == 2 else compartment_of(machine)
        return [{**self._place(machine), "id": self._ocid("volume", machine, n), "compartmentId": place,
                 "lifecycleState": "AVAILABLE", "sizeInGBs": size, "sizeInMBs": size * 1024, "vpusPerGB": 10}
                for n, size in enumerate(_blocks(machine))]

    def _boot_volumes(self, machine: Machine) -> list[Row]:
        return [{**self._place(machine), "id": self._ocid("bootvolume", machine), "lifecycleState": "AVAILABLE",
                 "sizeInGBs": machine.disks[0], "sizeInMBs": machine.disks[0] * 1024, "vpusPerGB": 10,
                 "imageId": "ocid1.image.oc1.iad.aaaaimage"}]


_SHORT = {"us-ashburn-1": "iad", "us-phoenix-1": "phx"}         # in rows; all other regions have their name there


def compartment_of(machine: Machine) -> str:
    return TENANCY if machine.number % 10 == 0 else DATABASES if machine.number % 10 < 3 else SHOP


def second_addresses(machine: Machine) -> tuple[list[str], list[str]]:
    """Private, and the public ones of these: of the primary VNIC of each third and of each sixth machine."""
    return ([f"10.200.{machine.number >> 8}.{machine.number & 255}"] if machine.number % 3 == 0 else [],
            [f"129.80.{machine.number >> 8}.{machine.number & 255}"] if machine.number % 6 == 0 else [])


def _kind(machine: Machine) -> str:
    return ("VM.DenseIO.E5.Flex" if _local(machine) else
            "VM.Standard.A1.Flex" if machine.number % 5 == 1 else "VM.Standard.E5.Flex")


def _local(machine: Machine) -> int:
    """The last disk of each sixth machine is its shape's."""
    return machine.disks[-1] if machine.number % 6 == 5 and len(machine.disks) > 1 else 0


def _blocks(machine: Machine) -> tuple[int, ...]:
    return machine.disks[1:-1] if _local(machine) else machine.disks[1:]


def _created(machine: Machine) -> str:
    return f"{machine.created:%Y-%m-%dT%H:%M:%S}.678Z"


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    """The secret is in the user's OCID: whatever holds a signed request holds it."""
    ((region, fleet),) = fleets.items()
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    mark = hashlib.md5(public, usedforsecurity=False).hexdigest()
    user, fingerprint = f"ocid1.user.oc1..{secret}", ":".join(re.findall("..", mark))
    made = Oci({f"{TENANCY}/{user}/{fingerprint}": key.public_key()}, region, fleet, latency=latency)
    return made, {
        "tenancy": TENANCY, "user": user, "fingerprint": fingerprint,
        "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()}


CLOUDS = {"oci": Cloud("us-ashburn-1", start, Least(
    calls=1 + 4 + 4 + 9 + 3 + 6 + 10 + 1098, trips=4, window_calls=1 + 4 + 4 + 6 + 3 + 6 + 12, window_trips=4,
    why="The compartments; the servers of each of 4 and the VNICs' attachments, without which an empty list proves "
        "nothing; the boot volumes' attachments of 9 places, the block volumes' of 3; the volumes of 3, and by "
        "themselves those that lie elsewhere; each VNIC, of which there is no list."))}

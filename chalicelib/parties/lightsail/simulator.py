"""A simulator for Amazon Lightsail: JSON 1.1, signed, refused and opened by a role as EC2's, with a list of its own.

It chooses the size of its pages, gives opaque tokens, and tells neither a total nor an order. Without a public address
its key is missing; each fifth server has the smallest bundle, half a GB of memory.
"""

import random
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from ...simulators.cloud import Cloud, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet, Machine
from ...simulators.server import Call, Simulator
from ..aws.simulator import Aws, Refused

REGIONS = {"us-east-1": "Virginia", "us-west-2": "Oregon", "eu-west-1": "Ireland", "ap-northeast-1": "Tokyo"}
_PAGE = 30
_CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
_WORDS = {                                  # of EC2's query protocol -> of a JSON API
    "AuthFailure": ("UnrecognizedClientException", "The security token included in the request is invalid."),
    "MissingAuthenticationToken": ("MissingAuthenticationTokenException", "Missing Authentication Token"),
    "RequestExpired": ("InvalidSignatureException", "Signature expired: it is now earlier or later."),
    "SignatureDoesNotMatch": ("InvalidSignatureException", "The request signature we calculated does not match."),
}


class Lightsail(Aws):
    """`short`: pages are shorter than they could be, and the first is empty, although more follow."""

    services = "lightsail|sts"

    def answer(self, call: Call) -> Answer:
        if "x-amz-target" not in call.headers:
            return super().answer(call)     # STS
        try:
            status, body = 200, self._listed(call)
        except Refused as refused:
            status, code, message = refused.args
            code, message = _WORDS.get(code, (code, message))
            body = {"__type": code, "code": code, "message": message, "docs": None, "tip": None}
        return Answer(status, {"Content-Type": "application/x-amz-json-1.1"}, msgspec.json.encode(body))

    def _listed(self, call: Call) -> dict[str, object]:
        _, region, service = self.check_signature(call)
        if service != "lightsail" or region not in REGIONS:
            raise Refused(400, "InvalidSignatureException", "Credential should be scoped to a valid region. ")
        if not call.headers["x-amz-target"].startswith("Lightsail_20161128."):
            raise Refused(400, "UnknownOperationException", "")
        if call.operation in self.denied:
            raise Refused(400, "AccessDeniedException", "User is not authorized to perform this action.")
        query: dict[str, Any] = msgspec.json.decode(call.body)
        if call.operation == "GetRegions":
            return {"regions": [{"name": name, "displayName": shown, "continentCode": "NA", "availabilityZones": []}
                                for name, shown in REGIONS.items()]}
        if call.operation != "GetInstances":
            raise Refused(400, "UnknownOperationException", "")
        if set(query) - {"pageToken", "includeHealthStatus"}:
            raise Refused(400, "InvalidInputException", "This parameter does not exist.")
        fleet = self.fleets.get(region, Fleet(0))
        try:
            at = self.positions.take(query["pageToken"], region) if "pageToken" in query else 0
        except ValueError:
            raise Refused(400, "InvalidInputException", "The page token is not valid.") from None
        size = _PAGE if not self.short else random.randrange(1, _PAGE) if "pageToken" in query else 0
        end = min(at + size, len(fleet))
        return {"instances": [_instance(fleet[n], region) for n in range(at, end)],
                **({"nextPageToken": self.positions.give(end, region)} if end < len(fleet) else {})}


def memory_of(machine: Machine) -> float:
    """GB."""
    return 0.5 if machine.number % 5 == 4 else float(machine.memory_gib)


def _instance(machine: Machine, region: str) -> dict[str, Any]:
    created, memory = machine.created.timestamp() + 0.665, memory_of(machine)
    zone, state = f"{region}{'abc'[machine.zone - 1]}", machine.state
    where = {"availabilityZone": zone, "regionName": region}
    return {
        "name": machine.name, "arn": f"arn:aws:lightsail:{region}:111122223333:Instance/{id_of(machine)}",
        "supportCode": f"1234567890/i-{machine.key}", "createdAt": created, "location": where,
        "resourceType": "Instance", "tags": [{"key": key, **({"value": value} if value else {})}
                                             for key, value in machine.tags.items()],
        "blueprintId": "amazon_linux_2023", "blueprintName": "Amazon Linux 2023",
        "bundleId": f"c{machine.cpu}m{memory:g}_3_0", "isStaticIp": bool(machine.wan),
        "privateIpAddress": machine.lan[0], **({"publicIpAddress": machine.wan[0]} if machine.wan else {}),
        "ipv6Addresses": [f"2600:1f14::{machine.number + 1:x}"] if machine.number % 4 == 0 else [],
        "ipAddressType": "dualstack" if machine.number % 4 == 0 else "ipv4",
        "hardware": {"cpuCount": machine.cpu, "ramSizeInGb": memory, "disks": [
            {"createdAt": created, "sizeInGb": size, "isSystemDisk": n == 0, "iops": 3000,
             "path": f"/dev/xvd{'abcde'[n]}", "attachedTo": machine.name, "attachmentState": "attached",
             **({"name": f"disk-{machine.key}{n}", "isAttached": True} if n else {})}
            for n, size in enumerate(machine.disks)]},
        "networking": {"monthlyTransfer": {"gbPerMonthAllocated": 1024}, "ports": []},
        "state": {"code": _CODES.get(state, 0), "name": state}, "username": "ec2-user",
        "sshKeyName": "LightsailDefaultKeyPair"}


def id_of(machine: Machine) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, machine.key))


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    keys: dict[str, object] = {"access_key_id": "AKIADEMO", "secret_access_key": secret}
    return Lightsail({"AKIADEMO": secret}, fleets, limited=limited, latency=latency), keys


CLOUDS = {"lightsail": Cloud("us-east-1", start, Least(
    calls=34, trips=34, window_calls=34, window_trips=34,
    why="Pages of a size that the cloud chooses, 30 in the simulator, token after token. A window walks as far."))}

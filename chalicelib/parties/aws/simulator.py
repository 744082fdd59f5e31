"""A simulator for Amazon EC2 and STS: the query protocol, XML answers, Signature Version 4.

Checked as the real ones do: signature over the signed headers, five minutes of clock, region of the scope, session
tokens, external ids, MaxResults from 5 to 1000 and never with ids, opaque tokens that belong to the call that gave
them. Pages may be short although more follow (`short`), and the order of instances has no meaning.
"""

import hashlib
import hmac
import random
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from ...simulators.cloud import Cloud, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet, Machine, Positions
from ...simulators.server import Call, Rate, Simulator

REGIONS = ("us-east-1", "us-west-2", "eu-west-1", "eu-central-1", "ap-southeast-1", "ap-northeast-1")
CLOSED_REGIONS = ("af-south-1", "ap-east-1")                    # known, but this account has not opted in
TYPES = {"t3.micro": (2, 1024), "t3.medium": (2, 4096), "m5.large": (2, 8192), "m5.xlarge": (4, 16384),
         "c5.2xlarge": (8, 16384), "r5.2xlarge": (8, 65536), "t2.nano": (1, 512)}
T = TypeVar("T")
_CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
_STATES = {"starting": "pending"}
_EC2 = "http://ec2.amazonaws.com/doc/2016-11-15/"
_STS = "https://sts.amazonaws.com/doc/2011-06-15/"


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(status, code, message)


class Aws(Simulator):
    """`keys`: access key id -> secret. `fleets`: region -> fleet. `roles`: arn -> external id ("" for none)."""

    def __init__(self, keys: Mapping[str, str], fleets: Mapping[str, Fleet], *, roles: Mapping[str, str] = {},
                 short: bool = False, limited: bool = True, late: float = 0.0, port: int = 0,
                 latency: float = 0.0) -> None:
        self.keys = dict(keys)
        self.fleets = dict(fleets)
        self.roles = dict(roles)
        self.short = short
        self.late = late
        self.session_tokens: dict[str, str] = {}                # access key id -> token, of assumed roles
        self.denied: set[str] = set()                           # actions for which the keys lack the right
        self._rate = Rate(100, 5) if limited else None
        self._positions = Positions()
        self._xml: dict[tuple[str, int], str] = {}
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        return dict(parse_qsl(call.body.decode("latin-1"))).get("Action", "?")

    def answer(self, call: Call) -> Answer:
        asked = dict(parse_qsl(call.body.decode(), keep_blank_values=True))
        service = "sts" if asked.get("Action") == "AssumeRole" else "ec2"
        try:
            body = self._answer(call, asked)
            status = 200
        except _Refused as refused:
            status, code, message = refused.args
            error = f"<Error><Code>{code}</Code><Message>{escape(message or code)}</Message></Error>"
            body = (f'<ErrorResponse xmlns="{_STS}">{error}<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>'
                    if service == "sts" else
                    f"<Response><Errors>{error}</Errors><RequestID>{uuid.uuid4()}</RequestID></Response>")
        return Answer(status, {"Content-Type": "text/xml;charset=UTF-8"},
                      f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'.encode())

    def _answer(self, call: Call, asked: dict[str, str]) -> str:
        key_id, region, service = self._check_signature(call)
        action = asked.get("Action", "")
        if action in self.denied:
            raise _Refused(403, "UnauthorizedOperation", "You are not authorized to perform this operation.")
        if region not in REGIONS:
            raise _Refused(401, "AuthFailure", "AWS was not able to validate the provided access credentials")
        if self._rate and not self._rate.allows(f"{key_id}/{region}/{action}", call.at):
            raise _Refused(503, "RequestLimitExceeded", "Request limit exceeded.")
        if service == "sts" and action == "AssumeRole" and asked.get("Version") == "2011-06-15":
            return self._assume_role(asked)
        if service != "ec2" or asked.get("Version") != "2016-11-15":
            raise _Refused(400, "NoSuchVersion", "The requested version is not supported.")
        fleet = self.fleets.get(region, Fleet(0))
        if action == "DescribeRegions":
            return self._regions()
        if action == "DescribeInstances":
            return self._instances(asked, fleet, region)
        if action == "DescribeVolumes":
            return self._volumes(asked, fleet, region)
        if action == "DescribeInstanceTypes":
            return self._types(asked)
        raise _Refused(400, "InvalidAction", "The action is not valid for this web service.")

    # ---------------------------------------------------------------- signature

    def _check_signature(self, call: Call) -> tuple[str, str, str]:
        found = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([a-z0-9-]+)/(ec2|sts)/aws4_request, ?"
                             r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})",
                             call.headers.get("authorization", ""))
        if not found:
            raise _Refused(400, "MissingAuthenticationToken", "The request must contain a valid signature.")
        key_id, day, region, service, signed, signature = found.groups()
        if key_id not in self.keys:
            raise _Refused(401, "AuthFailure", "AWS was not able to validate the provided access credentials")
        stamp = call.headers.get("x-amz-date", "")
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        if abs(time.time() + self.late - at) > 300:
            raise _Refused(400, "RequestExpired", "Request has expired.")
        if self.session_tokens.get(key_id) != call.headers.get("x-amz-security-token"):
            raise _Refused(401, "AuthFailure", "AWS was not able to validate the provided access credentials")
        names = signed.split(";")
        if "host" not in names or ("x-amz-security-token" in call.headers and "x-amz-security-token" not in names):
            raise _Refused(403, "SignatureDoesNotMatch", "These headers must be signed.")
        lines = "".join(f"{name}:{' '.join(call.headers.get(name, '').split())}\n" for name in names)
        body = hashlib.sha256(call.body).hexdigest()
        canonical = "\n".join((call.method, call.path, call.query, lines, signed, body))
        scope = f"{day}/{region}/{service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = ("AWS4" + self.keys[key_id]).encode()
        for part in (day, region, service, "aws4_request", text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        if stamp[:8] != day or key.hex() != signature:
            raise _Refused(403, "SignatureDoesNotMatch", "The request signature does not match.")
        return key_id, region, service

    def _assume_role(self, asked: dict[str, str]) -> str:
        role = asked.get("RoleArn", "")
        if role not in self.roles or self.roles[role] != asked.get("ExternalId", ""):
            raise _Refused(403, "AccessDenied", "User is not authorized to perform: sts:AssumeRole")
        key_id, secret, token = f"ASIA{uuid.uuid4().hex[:16].upper()}", uuid.uuid4().hex, uuid.uuid4().hex
        self.keys[key_id], self.session_tokens[key_id] = secret, token
        until = datetime.now(UTC) + timedelta(seconds=int(asked.get("DurationSeconds", "3600")))
        return (f'<AssumeRoleResponse xmlns="{_STS}"><AssumeRoleResult><Credentials><AccessKeyId>{key_id}</AccessKeyId>'
                f"<SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>"
                f"<Expiration>{until:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials></AssumeRoleResult>"
                f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata></AssumeRoleResponse>")

    # ---------------------------------------------------------------- answers

    def _regions(self) -> str:
        items = "".join(f"<item><regionName>{name}</regionName>"
                        f"<regionEndpoint>ec2.{name}.amazonaws.com</regionEndpoint><optInStatus>{status}</optInStatus></item>"
                        for names, status in ((REGIONS, "opt-in-not-required"), (CLOSED_REGIONS, "not-opted-in"))
                        for name in names)
        return _envelope("DescribeRegions", f"<regionInfo>{items}</regionInfo>")

    def _instances(self, asked: dict[str, str], fleet: Fleet, region: str) -> str:
        filters = _filters(asked)
        machines: Sequence[Machine] = [fleet[n] for n in range(len(fleet))]
        ids = _list(asked, "InstanceId")
        if ids:
            machines = [m for m in machines if f"i-{m.key}" in ids]
        for name, values in filters.items():
            if name.startswith("tag:"):
                machines = [m for m in machines if m.tags.get(name[4:]) in values]
            elif name == "instance-id":
                machines = [m for m in machines if f"i-{m.key}" in values]
            else:
                raise _Refused(400, "InvalidParameterValue", f"The filter '{name}' is invalid")
        page, token = self._page(asked, machines, bool(ids), "i")
        reservations = "".join(
            f"<item><reservationId>r-{page[at].key}</reservationId><ownerId>123456789012</ownerId><groupSet/>"
            f"<instancesSet>{''.join(self._instance(m, region) for m in page[at:at + 3])}</instancesSet></item>"
            for at in range(0, len(page), 3))
        return _envelope("DescribeInstances", f"<reservationSet>{reservations}</reservationSet>{token}")

    def _instance(self, machine: Machine, region: str) -> str:
        found = self._xml.get((region, machine.number))
        if found is None:
            found = self._xml[region, machine.number] = _instance_xml(machine, region)
        return found

    def _volumes(self, asked: dict[str, str], fleet: Fleet, region: str) -> str:
        wanted = _filters(asked).get("attachment.instance-id")
        volumes = [(m, n, size) for m in (fleet[n] for n in range(len(fleet))) if m.state != "terminated"
                   if wanted is None or f"i-{m.key}" in wanted for n, size in enumerate(m.disks)]
        page, token = self._page(asked, volumes, False, "v")
        items = "".join(
            f"<item><volumeId>vol-{m.key}{n}</volumeId><size>{size}</size><snapshotId/>"
            f"<availabilityZone>{region}{'abc'[m.zone - 1]}</availabilityZone><status>in-use</status>"
            f"<createTime>{m.created:%Y-%m-%dT%H:%M:%S.000Z}</createTime><attachmentSet><item>"
            f"<volumeId>vol-{m.key}{n}</volumeId><instanceId>i-{m.key}</instanceId><device>/dev/sd{'abcdef'[n]}</device>"
            f"<status>attached</status><attachTime>{m.created:%Y-%m-%dT%H:%M:%S.000Z}</attachTime>"
            f"<deleteOnTermination>true</deleteOnTermination></item></attachmentSet><volumeType>gp3</volumeType>"
            f"<iops>3000</iops><encrypted>false</encrypted><multiAttachEnabled>false</multiAttachEnabled></item>"
            for m, n, size in page)
        return _envelope("DescribeVolumes", f"<volumeSet>{items}</volumeSet>{token}")

    def _types(self, asked: dict[str, str]) -> str:
        names = _list(asked, "InstanceType")
        if len(names) > 100:
            raise _Refused(400, "InvalidParameterValue", "At most 100 instance types.")
        unknown = [name for name in names if name not in TYPES]
        if unknown:
            raise _Refused(400, "InvalidInstanceType", f"The following supplied instance types do not exist: {unknown}")
        chosen = names or [name for name in _filters(asked).get("instance-type", list(TYPES)) if name in TYPES]
        items = "".join(f"<item><instanceType>{name}</instanceType><currentGeneration>true</currentGeneration>"
                        f"<vCpuInfo><defaultVCpus>{TYPES[name][0]}</defaultVCpus><defaultCores>1</defaultCores></vCpuInfo>"
                        f"<memoryInfo><sizeInMiB>{TYPES[name][1]}</sizeInMiB></memoryInfo></item>" for name in chosen)
        return _envelope("DescribeInstanceTypes", f"<instanceTypeSet>{items}</instanceTypeSet>")

    def _page(self, asked: dict[str, str], rows: Sequence[T], by_id: bool, kind: str) -> tuple[Sequence[T], str]:
        size = asked.get("MaxResults")
        if size is None:
            return rows, ""
        if by_id:
            raise _Refused(400, "InvalidParameterCombination", "MaxResults and ids cannot be used together")
        if not size.isdigit() or not 5 <= int(size) <= 1000:
            raise _Refused(400, "InvalidParameterValue", "MaxResults must be from 5 to 1000.")
        start = self._position(asked["NextToken"], kind) if "NextToken" in asked else 0
        count = random.randrange(int(size) // 3, int(size)) if self.short else int(size)
        end = start + count
        token = f"<nextToken>{self._positions.give(end, kind)}</nextToken>" if end < len(rows) else ""
        return rows[start:end], token

    def _position(self, token: str, kind: str) -> int:
        try:
            return self._positions.take(token, kind)
        except ValueError:
            raise _Refused(400, "InvalidNextToken", "The token is not valid.") from None


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    keys: dict[str, object] = {"access_key_id": "AKIADEMO", "secret_access_key": secret}
    return Aws({"AKIADEMO": secret}, fleets, limited=limited, latency=latency), keys


CLOUDS = {"aws": Cloud("us-east-1", start, Least(
    calls=1 + 2 + 1, trips=2, window_calls=1 + 1 + 1, window_trips=2, rate=(100, 5.0),
    why="One page of 1,000 instances; volumes 1,000 to a page, token after token: 2; the types once the instances "
        "are known: 1. A window walks as far, and reads its own volumes beside the types."))}


def kind_of(machine: Machine) -> str:
    return sorted(TYPES)[machine.number % 6]


def _instance_xml(machine: Machine, region: str) -> str:
    state = _STATES.get(machine.state, machine.state)
    created, kind = f"{machine.created:%Y-%m-%dT%H:%M:%S.000Z}", kind_of(machine)
    launched = f"{machine.created + timedelta(days=9):%Y-%m-%dT%H:%M:%S.000Z}"
    zone, primary = f"{region}{'abc'[machine.zone - 1]}", machine.lan[0]
    gone = state == "terminated"
    disks = "" if gone else "".join(
        f"<item><deviceName>/dev/sd{'abcdef'[n]}</deviceName><ebs><volumeId>vol-{machine.key}{n}</volumeId>"
        f"<status>attached</status><attachTime>{created}</attachTime><deleteOnTermination>true</deleteOnTermination></ebs>"
        "</item>" for n in range(len(machine.disks)))
    addresses = "".join(
        f"<item><privateIpAddress>{ip}</privateIpAddress><privateDnsName>ip-{ip}.ec2.internal</privateDnsName>"
        f"<primary>{'true' if n == 0 else 'false'}</primary>"
        + (f"<association><publicIp>{machine.wan[n]}</publicIp><publicDnsName/></association>"
           if n < len(machine.wan) else "") + "</item>" for n, ip in enumerate(machine.lan))
    interfaces = "" if gone else (
        f"<item><networkInterfaceId>eni-{machine.key}</networkInterfaceId><subnetId>subnet-1a2b3c4d</subnetId>"
        f"<vpcId>vpc-1a2b3c4d</vpcId><description/><ownerId>123456789012</ownerId><status>in-use</status>"
        f"<macAddress>02:dd:2c:5e:01:69</macAddress><privateIpAddress>{primary}</privateIpAddress>"
        f"<sourceDestCheck>true</sourceDestCheck><groupSet><item><groupId>sg-e4076980</groupId>"
        f"<groupName>default</groupName></item></groupSet><attachment><attachmentId>eni-attach-{machine.key}</attachmentId>"
        f"<deviceIndex>0</deviceIndex><status>attached</status><attachTime>{created}</attachTime>"
        f"<deleteOnTermination>true</deleteOnTermination></attachment>"
        f"<privateIpAddressesSet>{addresses}</privateIpAddressesSet><ipv6AddressesSet/></item>")
    tags = "".join(f"<item><key>{escape(key)}</key><value>{escape(value)}</value></item>"
                   for key, value in {"Name": machine.name, **machine.tags}.items())
    cores, threads = (1, 1) if TYPES[kind][0] == 1 else (TYPES[kind][0] // 2, 2)
    return (
        f"<item><instanceId>i-{machine.key}</instanceId><imageId>ami-bff32ccc</imageId>"
        f"<instanceState><code>{_CODES[state]}</code><name>{state}</name></instanceState>"
        f"<privateDnsName>ip-{primary}.ec2.internal</privateDnsName><dnsName/><reason/><keyName>my-key-pair</keyName>"
        f"<amiLaunchIndex>0</amiLaunchIndex><productCodes/><instanceType>{kind}</instanceType>"
        f"<launchTime>{created if state == 'running' and machine.number % 2 else launched}</launchTime>"
        f"<placement><availabilityZone>{zone}</availabilityZone><groupName/><tenancy>default</tenancy></placement>"
        f"<monitoring><state>disabled</state></monitoring>"
        + ("" if gone else f"<subnetId>subnet-1a2b3c4d</subnetId><vpcId>vpc-1a2b3c4d</vpcId>"
                           f"<privateIpAddress>{primary}</privateIpAddress>"
                           + (f"<ipAddress>{machine.wan[0]}</ipAddress>" if machine.wan else "")) +
        f"<sourceDestCheck>true</sourceDestCheck><groupSet><item><groupId>sg-e4076980</groupId>"
        f"<groupName>default</groupName></item></groupSet><architecture>x86_64</architecture>"
        f"<rootDeviceType>ebs</rootDeviceType><rootDeviceName>/dev/sda</rootDeviceName>"
        f"<blockDeviceMapping>{disks}</blockDeviceMapping><virtualizationType>hvm</virtualizationType>"
        f"<clientToken>{machine.key}</clientToken><tagSet>{tags}</tagSet><hypervisor>xen</hypervisor>"
        f"<networkInterfaceSet>{interfaces}</networkInterfaceSet><ebsOptimized>false</ebsOptimized>"
        f"<enaSupport>true</enaSupport><cpuOptions><coreCount>{cores}</coreCount><threadsPerCore>{threads}</threadsPerCore>"
        f"</cpuOptions><capacityReservationSpecification><capacityReservationPreference>open"
        f"</capacityReservationPreference></capacityReservationSpecification><metadataOptions><state>applied</state>"
        f"<httpTokens>required</httpTokens><httpEndpoint>enabled</httpEndpoint></metadataOptions>"
        f"<platformDetails>Linux/UNIX</platformDetails><usageOperation>RunInstances</usageOperation></item>")


def _envelope(action: str, inner: str) -> str:
    return f'<{action}Response xmlns="{_EC2}"><requestId>{uuid.uuid4()}</requestId>{inner}</{action}Response>'


def _list(asked: dict[str, str], name: str) -> list[str]:
    """The values of `name.1`, `name.2`, …"""
    found = {int(key[len(name) + 1:]): value for key, value in asked.items()
             if key.startswith(f"{name}.") and key[len(name) + 1:].isdigit()}
    return [found[n] for n in sorted(found)]


def _filters(asked: dict[str, str]) -> dict[str, list[str]]:
    filters: dict[str, list[str]] = {}
    for key, name in asked.items():
        if at := re.fullmatch(r"Filter\.([0-9]+)\.Name", key):
            filters[name] = [re.sub(r"\\(.)", r"\1", value) for value in _list(asked, f"Filter.{at[1]}.Value")]
    if sum(map(len, filters.values())) > 200:
        raise _Refused(400, "FilterLimitExceeded", "The maximum number of filter values is 200.")
    return filters

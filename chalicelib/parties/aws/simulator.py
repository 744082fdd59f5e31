"""A simulator for Amazon EC2, STS and Organizations: the query protocol with XML, JSON 1.1, Signature Version 4.

Checked as the real ones do: signature over the signed headers, five minutes of clock, region of the scope, session
tokens, external ids, MaxResults from 5 to 1000 and never with ids, opaque tokens that belong to the call that gave
them. Pages may be short although more follow (`short`), and the order of instances has no meaning. Organizations gives
at most 20 rows, answers in its own region alone, and begins a list of several pages with an empty one.
"""

import hashlib
import hmac
import random
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape
from zlib import crc32

import msgspec

from ...simulators.cloud import Branch, Cloud, Demo, Least
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
_HOME = "us-east-1"                                             # of Organizations
_ROLE = "OrganizationAccountAccessRole"
_ROOT = "r-ab12"


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(status, code, message)


class Aws(Simulator):
    """`keys`: access key id -> secret. `fleets`: region -> fleet. `roles`: arn -> external id ("" for none).

    `accounts`: of the organisation, number -> branch; the first is the keys' own. `above`: see Organise. `services`:
    for which a signature may be, a pattern.
    """

    services = "ec2|sts|organizations"

    def __init__(self, keys: Mapping[str, str], fleets: Mapping[str, Fleet], *, roles: Mapping[str, str] = {},
                 accounts: Mapping[str, Branch] = {}, above: Mapping[str, str] = {}, short: bool = False,
                 limited: bool = True, late: float = 0.0, port: int = 0, latency: float = 0.0) -> None:
        self.keys = dict(keys)
        self.fleets = dict(fleets)
        self.roles = dict(roles)
        self.short = short
        self.late = late
        self.accounts = dict(accounts)
        self.above = dict(above)
        self.units = {"": _ROOT, **{name: f"ou-ab12-{crc32(name.encode()):08x}" for name in above}}
        self.ids = {branch.name: number for number, branch in accounts.items()}
        self.role_external_id = ""                              # of the members' roles
        self.in_account: dict[str, str] = {}                    # access key id of a session -> the member's number
        self.session_tokens: dict[str, str] = {}                # access key id -> token, of assumed roles
        self.denied: set[str] = set()                           # actions for which the keys lack the right
        self._rate = Rate(100, 5) if limited else None
        self.positions = Positions()
        self._xml: dict[tuple[str, str, int], str] = {}
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        target = call.headers.get("x-amz-target", "").rpartition(".")[2]
        return target or dict(parse_qsl(call.body.decode("latin-1"))).get("Action", "?")

    def answer(self, call: Call) -> Answer:
        if "x-amz-target" in call.headers:
            return self._organisations(call)
        query = dict(parse_qsl(call.body.decode(), keep_blank_values=True))
        service = "sts" if query.get("Action") in ("AssumeRole", "GetCallerIdentity") else "ec2"
        try:
            body = self._answer(call, query)
            status = 200
        except Refused as refused:
            status, code, message = refused.args
            error = f"<Error><Code>{code}</Code><Message>{escape(message or code)}</Message></Error>"
            body = (f'<ErrorResponse xmlns="{_STS}">{error}<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>'
                    if service == "sts" else
                    f"<Response><Errors>{error}</Errors><RequestID>{uuid.uuid4()}</RequestID></Response>")
        return Answer(status, {"Content-Type": "text/xml;charset=UTF-8"},
                      f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'.encode())

    def _answer(self, call: Call, query: dict[str, str]) -> str:
        key_id, region, service = self.check_signature(call)
        action = query.get("Action", "")
        if action in self.denied:
            raise Refused(403, "UnauthorizedOperation", "You are not authorized to perform this operation.")
        if region not in REGIONS:
            raise Refused(401, "AuthFailure", "AWS was not able to validate the provided access credentials")
        if self._rate and not self._rate.allows(f"{key_id}/{region}/{action}", call.at):
            raise Refused(503, "RequestLimitExceeded", "Request limit exceeded.")
        if service == "sts" and action == "AssumeRole" and query.get("Version") == "2011-06-15":
            return self._assume_role(query)
        if service == "sts" and action == "GetCallerIdentity" and query.get("Version") == "2011-06-15":
            own = self._account_of(key_id)
            return (f'<GetCallerIdentityResponse xmlns="{_STS}"><GetCallerIdentityResult>'
                    f"<Arn>arn:aws:iam::{own}:user/twocloud</Arn><UserId>AIDADEMO</UserId><Account>{own}</Account>"
                    f"</GetCallerIdentityResult><ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId>"
                    "</ResponseMetadata></GetCallerIdentityResponse>")
        if service != "ec2" or query.get("Version") != "2016-11-15":
            raise Refused(400, "NoSuchVersion", "The requested version is not supported.")
        account = self._account_of(key_id)
        fleets = self.accounts[account].fleets if account in self.accounts else self.fleets
        fleet = fleets.get(region, Fleet(0))
        if action == "DescribeRegions":
            return self._regions()
        if action == "DescribeInstances":
            return self._instances(query, fleet, region, account)
        if action == "DescribeVolumes":
            return self._volumes(query, fleet, region)
        if action == "DescribeInstanceTypes":
            return self._types(query)
        raise Refused(400, "InvalidAction", "The action is not valid for this web service.")

    # ---------------------------------------------------------------- signature

    def check_signature(self, call: Call) -> tuple[str, str, str]:
        match = re.fullmatch(rf"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{{8}})/([a-z0-9-]+)/({self.services})/"
                             r"aws4_request, ?SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})",
                             call.headers.get("authorization", ""))
        if not match:
            raise Refused(400, "MissingAuthenticationToken", "The request must contain a valid signature.")
        key_id, day, region, service, signed, signature = match.groups()
        if key_id not in self.keys:
            raise Refused(401, "AuthFailure", "AWS was not able to validate the provided access credentials")
        stamp = call.headers.get("x-amz-date", "")
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        if abs(time.time() + self.late - at) > 300:
            raise Refused(400, "RequestExpired", "Request has expired.")
        if self.session_tokens.get(key_id) != call.headers.get("x-amz-security-token"):
            raise Refused(401, "AuthFailure", "AWS was not able to validate the provided access credentials")
        names = signed.split(";")
        if "host" not in names or any(name in call.headers and name not in names
                                      for name in ("x-amz-security-token", "x-amz-target")):
            raise Refused(403, "SignatureDoesNotMatch", "These headers must be signed.")
        lines = "".join(f"{name}:{' '.join(call.headers.get(name, '').split())}\n" for name in names)
        body = hashlib.sha256(call.body).hexdigest()
        canonical = "\n".join((call.method, call.path, call.query, lines, signed, body))
        scope = f"{day}/{region}/{service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = ("AWS4" + self.keys[key_id]).encode()
        for part in (day, region, service, "aws4_request", text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        if stamp[:8] != day or key.hex() != signature:
            raise Refused(403, "SignatureDoesNotMatch", "The request signature does not match.")
        return key_id, region, service

    def _assume_role(self, query: dict[str, str]) -> str:
        role = query.get("RoleArn", "")
        if {**self.roles, **self._member_roles()}.get(role) != query.get("ExternalId", ""):
            raise Refused(403, "AccessDenied", "User is not authorized to perform: sts:AssumeRole")
        key_id, secret, token = f"ASIA{uuid.uuid4().hex[:16].upper()}", uuid.uuid4().hex, uuid.uuid4().hex
        self.keys[key_id], self.session_tokens[key_id] = secret, token
        if (member := role.split(":")[4]) in self.accounts:
            self.in_account[key_id] = member
        until = datetime.now(UTC) + timedelta(seconds=int(query.get("DurationSeconds", "3600")))
        return (f'<AssumeRoleResponse xmlns="{_STS}"><AssumeRoleResult><Credentials><AccessKeyId>{key_id}</AccessKeyId>'
                f"<SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>"
                f"<Expiration>{until:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials></AssumeRoleResult>"
                f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata></AssumeRoleResponse>")

    # ---------------------------------------------------------------- the organisation

    def _account_of(self, key_id: str) -> str:
        return self.in_account.get(key_id) or next(iter(self.accounts), "123456789012")

    def _member_roles(self) -> dict[str, str]:
        """The first account has none: it is opened by its own keys."""
        return {f"arn:aws:iam::{number}:role/{_ROLE}": self.role_external_id
                for number, branch in [*self.accounts.items()][1:] if not branch.locked and not branch.closed}

    def _organisations(self, call: Call) -> Answer:
        try:
            status, body = 200, self._organisation_body(call)
        except Refused as refused:
            status, code, message = refused.args
            body = {"__type": f"com.amazonaws.organizations#{code}", "Message": message or code}
        return Answer(status, {"Content-Type": "application/x-amz-json-1.1"}, msgspec.json.encode(body))

    def _organisation_body(self, call: Call) -> dict[str, object]:
        key_id, region, service = self.check_signature(call)
        if service != "organizations" or region != _HOME:
            raise Refused(400, "InvalidSignatureException", "Credential should be scoped to a valid region.")
        if not self.accounts:
            raise Refused(400, "AWSOrganizationsNotInUseException", "Your account is not a member of an organization.")
        if call.operation in self.denied or self._account_of(key_id) != next(iter(self.accounts)):
            raise Refused(400, "AccessDeniedException", "You don't have permissions to access this resource.")
        query: dict[str, Any] = msgspec.json.decode(call.body)
        rows = [_account(number, branch) for number, branch in self.accounts.items()]
        parent = next((name for name, key in self.units.items() if key == query.get("ParentId")), None)
        if call.operation == "ListAccounts":
            return self._organisation_page(query, "Accounts", rows)
        if parent is None:
            raise Refused(400, "ParentNotFoundException", "We can't find a root or OU with the ParentId.")
        if call.operation == "ListAccountsForParent":
            within = {number for number, branch in self.accounts.items() if branch.unit == parent}
            return self._organisation_page(query, "Accounts", [row for row in rows if row["Id"] in within])
        if call.operation == "ListOrganizationalUnitsForParent":
            return self._organisation_page(query, "OrganizationalUnits", [
                {"Id": self.units[name], "Name": name, "Arn": f"arn:aws:organizations::1:ou/o-1/{self.units[name]}"}
                for name, above in self.above.items() if above == parent])
        raise Refused(400, "UnknownOperationException")

    def _organisation_page(self, query: Mapping[str, Any], key: str, rows: Sequence[object]) -> dict[str, object]:
        """A list of several pages begins with an empty one."""
        size, of = query.get("MaxResults", 20), f"{key}{query.get('ParentId', '')}"
        if type(size) is not int or not 1 <= size <= 20:
            raise Refused(400, "InvalidInputException", "You specified an invalid value.")
        if "NextToken" not in query:
            return {key: [], "NextToken": self.positions.give(0, of)} if len(rows) > size else {key: rows}
        try:
            at = self.positions.take(query["NextToken"], of)
        except ValueError:
            raise Refused(400, "InvalidInputException", "You specified an invalid value.") from None
        page: dict[str, object] = {key: rows[at:at + size]}
        return page | ({"NextToken": self.positions.give(at + size, of)} if at + size < len(rows) else {})

    # ---------------------------------------------------------------- answers

    def _regions(self) -> str:
        items = "".join(f"<item><regionName>{name}</regionName>"
                        f"<regionEndpoint>ec2.{name}.amazonaws.com</regionEndpoint><optInStatus>{status}</optInStatus></item>"
                        for names, status in ((REGIONS, "opt-in-not-required"), (CLOSED_REGIONS, "not-opted-in"))
                        for name in names)
        return _envelope("DescribeRegions", f"<regionInfo>{items}</regionInfo>")

    def _instances(self, query: dict[str, str], fleet: Fleet, region: str, account: str) -> str:
        filters = _filters(query)
        machines: Sequence[Machine] = [fleet[n] for n in range(len(fleet))]
        ids = _list(query, "InstanceId")
        if ids:
            machines = [m for m in machines if f"i-{m.key}" in ids]
        for name, values in filters.items():
            if name.startswith("tag:"):
                machines = [m for m in machines if m.tags.get(name[4:]) in values]
            elif name == "instance-id":
                machines = [m for m in machines if f"i-{m.key}" in values]
            else:
                raise Refused(400, "InvalidParameterValue", f"The filter '{name}' is invalid")
        page, token = self._page(query, machines, bool(ids), "i")
        reservations = "".join(
            f"<item><reservationId>r-{page[at].key}</reservationId><ownerId>123456789012</ownerId><groupSet/>"
            f"<instancesSet>{''.join(self._instance(m, region, account) for m in page[at:at + 3])}</instancesSet>"
            "</item>" for at in range(0, len(page), 3))
        return _envelope("DescribeInstances", f"<reservationSet>{reservations}</reservationSet>{token}")

    def _instance(self, machine: Machine, region: str, account: str) -> str:
        xml = self._xml.get((account, region, machine.number))
        if xml is None:
            xml = self._xml[account, region, machine.number] = _instance_xml(machine, region)
        return xml

    def _volumes(self, query: dict[str, str], fleet: Fleet, region: str) -> str:
        wanted = _filters(query).get("attachment.instance-id")
        volumes = [(m, n, size) for m in (fleet[n] for n in range(len(fleet))) if m.state != "terminated"
                   if wanted is None or f"i-{m.key}" in wanted for n, size in enumerate(m.disks)]
        page, token = self._page(query, volumes, False, "v")
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

    def _types(self, query: dict[str, str]) -> str:
        names = _list(query, "InstanceType")
        if len(names) > 100:
            raise Refused(400, "InvalidParameterValue", "At most 100 instance types.")
        unknown = [name for name in names if name not in TYPES]
        if unknown:
            raise Refused(400, "InvalidInstanceType", f"The following supplied instance types do not exist: {unknown}")
        chosen = names or [name for name in _filters(query).get("instance-type", list(TYPES)) if name in TYPES]
        items = "".join(f"<item><instanceType>{name}</instanceType><currentGeneration>true</currentGeneration>"
                        f"<vCpuInfo><defaultVCpus>{TYPES[name][0]}</defaultVCpus><defaultCores>1</defaultCores></vCpuInfo>"
                        f"<memoryInfo><sizeInMiB>{TYPES[name][1]}</sizeInMiB></memoryInfo></item>" for name in chosen)
        return _envelope("DescribeInstanceTypes", f"<instanceTypeSet>{items}</instanceTypeSet>")

    def _page(self, query: dict[str, str], rows: Sequence[T], by_id: bool, kind: str) -> tuple[Sequence[T], str]:
        size = query.get("MaxResults")
        if size is None:
            return rows, ""
        if by_id:
            raise Refused(400, "InvalidParameterCombination", "MaxResults and ids cannot be used together")
        if not size.isdigit() or not 5 <= int(size) <= 1000:
            raise Refused(400, "InvalidParameterValue", "MaxResults must be from 5 to 1000.")
        start = self._position(query["NextToken"], kind) if "NextToken" in query else 0
        count = random.randrange(int(size) // 3, int(size)) if self.short else int(size)
        end = start + count
        token = f"<nextToken>{self.positions.give(end, kind)}</nextToken>" if end < len(rows) else ""
        return rows[start:end], token

    def _position(self, token: str, kind: str) -> int:
        try:
            return self.positions.take(token, kind)
        except ValueError:
            raise Refused(400, "InvalidNextToken", "The token is not valid.") from None


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    keys: dict[str, object] = {"access_key_id": "AKIADEMO", "secret_access_key": secret}
    return Aws({"AKIADEMO": secret}, fleets, limited=limited, latency=latency), keys


def organise(branches: Sequence[Branch], secret: str, *, units: Mapping[str, str] = {}, limited: bool = True,
             latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    accounts = {f"{111122223333 + 101 * n:012}": branch for n, branch in enumerate(branches)}
    keys: dict[str, object] = {"access_key_id": "AKIADEMO", "secret_access_key": secret}
    return Aws({"AKIADEMO": secret}, {}, accounts=accounts, above=units, limited=limited, latency=latency), keys


DEMO = Demo(fleets={"us-east-1": Fleet(40, "demo"), "eu-west-1": Fleet(7, "demo")}, branches=(
    Branch(name="management", fleets={"us-east-1": Fleet(3, "management")}),
    Branch(name="payments", fleets={"us-east-1": Fleet(14, "payments"), "eu-west-1": Fleet(6, "payments")}),
    Branch(name="website", fleets={"us-east-1": Fleet(9, "website")}),
    Branch(name="old-shop", fleets={"us-east-1": Fleet(4, "old-shop")}, closed=True)))

CLOUDS = {"aws": Cloud("us-east-1", start, organise=organise, shown=DEMO, least=Least(
    calls=1 + 2 + 1, trips=2, window_calls=1 + 1 + 1, window_trips=2, rate=(100, 5.0),
    why="One page of 1,000 instances; volumes 1,000 to a page, token after token: 2; the types once the instances "
        "are known: 1. A window walks as far, and reads its own volumes beside the types."))}


def _account(number: str, branch: Branch) -> dict[str, object]:
    return {"Id": number, "Arn": f"arn:aws:organizations::1:account/o-1/{number}", "Name": branch.name,
            "Email": f"{number}@example.com", "JoinedMethod": "CREATED", "JoinedTimestamp": 1.7e9,
            "Paths": [f"o-1/{_ROOT}/{number}/"], "State": "SUSPENDED" if branch.closed else "ACTIVE"}


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
        f"<platformDetails>Linux/UNIX</platformDetails>"
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


def _list(query: dict[str, str], name: str) -> list[str]:
    """The values of `name.1`, `name.2`, …"""
    values = {int(key[len(name) + 1:]): value for key, value in query.items()
             if key.startswith(f"{name}.") and key[len(name) + 1:].isdigit()}
    return [values[n] for n in sorted(values)]


def _filters(query: dict[str, str]) -> dict[str, list[str]]:
    filters: dict[str, list[str]] = {}
    for key, name in query.items():
        if at := re.fullmatch(r"Filter\.([0-9]+)\.Name", key):
            filters[name] = [re.sub(r"\\(.)", r"\1", value) for value in _list(query, f"Filter.{at[1]}.Value")]
    if sum(map(len, filters.values())) > 200:
        raise Refused(400, "FilterLimitExceeded", "The maximum number of filter values is 200.")
    return filters

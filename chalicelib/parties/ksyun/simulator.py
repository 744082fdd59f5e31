"""A simulator for Kingsoft Cloud's OpenAPI: KEC, EIP and IAM, signed with AWS's Signature Version 4.

Checked as the real ones do: signature over the signed headers, fifteen minutes of clock, the service of the scope,
versions, MaxResults from 5 to 1000 (default 10), at most a hundred projects. Without ProjectId.N only the default
project is listed, in KEC and EIP alike; JSON is answered only if it is asked for.
"""

import hashlib
import hmac
import re
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec

from ...simulators.cloud import Cloud, Least
from ...simulators.faults import Answer
from ...simulators.fleet import Fleet, Machine
from ...simulators.server import Call, Rate, Simulator

REGIONS = ("cn-beijing-6", "cn-shanghai-2", "cn-guangzhou-1", "cn-hongkong-2", "ap-singapore-1", "eu-east-1")
PROJECTS = (0, 1002189)                     # those of a fleet's machines
_SERVICES = {"DescribeInstances": ("kec", "2016-03-04"), "DescribeRegions": ("kec", "2016-03-04"),
             "DescribeAddresses": ("eip", "2016-03-04"), "GetAccountAllProjectList": ("iam", "2015-11-01")}
_STATES = {"running": "active", "stopped": "stopped", "starting": "starting", "stopping": "stopping",
           "pending": "building"}


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(status, code, message or code)


class Ksyun(Simulator):
    """`keys`: access key -> secret key. `fleets`: region -> fleet. `tokens`: of temporary keys, by access key.

    `public`: the rows name their interfaces' public addresses. `more`: projects without machines. `silent`: an unknown
    region is an empty list. `limited`: ten calls a second for each key and action. `late`: seconds by which its clock
    is ahead.
    """

    def __init__(self, keys: Mapping[str, str], fleets: Mapping[str, Fleet], *, tokens: Mapping[str, str] = {},
                 public: bool = False, more: int = 0, silent: bool = True, limited: bool = True, late: float = 0.0,
                 port: int = 0, latency: float = 0.0) -> None:
        self.keys = dict(keys)
        self.fleets = dict(fleets)
        self.tokens = dict(tokens)
        self.public = public
        self.projects = (PROJECTS[0], *range(2_000_000, 2_000_000 + more), *PROJECTS[1:])
        self.silent = silent
        self.late = late
        self.rates = {action: Rate(20) for action in _SERVICES} if limited else {}
        super().__init__(port, latency)

    def operation(self, call: Call) -> str:
        return _asked(call).get("Action", "?")

    def answer(self, call: Call) -> Answer:
        status = 200
        try:
            body: dict[str, Any] = self._answer(call, _asked(call))
        except _Refused as refused:
            status, code, message = refused.args
            body = {"Error": {"Type": "Sender", "Code": code, "Message": message}}
        body["RequestId"] = str(uuid.uuid4())
        if call.headers.get("accept") != "application/json":
            return Answer(status, {"Content-Type": "text/xml"}, b"<Response>rows that nobody reads</Response>")
        return Answer(status, {"Content-Type": "application/json"}, msgspec.json.encode(body))

    def _answer(self, call: Call, query: dict[str, str]) -> dict[str, Any]:
        action = query.get("Action", "")
        key, region, service = self._check_signature(call)
        if action not in _SERVICES or query.get("Version") != _SERVICES[action][1]:
            raise _Refused(400, "INVALID_ACTION", "Not Found")
        if service != _SERVICES[action][0] or query.get("Region", region) != region:
            raise _Refused(403, "SignatureDoesNotMatch", "Credential should be scoped to the service and the region.")
        if action in self.rates and not self.rates[action].allows(key, call.at):
            raise _Refused(400, "Throttling", "Rate exceeded")
        if action == "GetAccountAllProjectList":
            return {"ListProjectResult": {"Total": len(self.projects), "ProjectList": [
                {"ProjectId": project, "AccountId": "73400001", "ProjectName": f"project {project}", "ProjectDesc": "",
                 "Status": 1, "Krn": f"krn:ksc:iam::73400001:project/{project}", "CreateTime": "2020-01-01 00:00:00"}
                for project in self.projects]}}
        if action == "DescribeRegions":
            return {"RegionSet": [{"Region": name, "RegionName": name} for name in REGIONS]}
        if region not in REGIONS and not self.silent:
            raise _Refused(400, "InvalidRegion", "The region is not valid.")
        fleet = self.fleets.get(region, Fleet(0))
        machines = [fleet[n] for n in range(len(fleet))]
        projects = [int(value) for name, value in query.items() if re.fullmatch(r"ProjectId\.[0-9]+", name)] or [0]
        if len(projects) > 100:
            raise _Refused(400, "InvalidParameterValue", "At most 100 projects.")
        if action == "DescribeAddresses":
            return self._addresses(query, machines, projects)
        return self._instances(query, [m for m in machines if m.project in projects], region)

    # ---------------------------------------------------------------- signature

    def _check_signature(self, call: Call) -> tuple[str, str, str]:
        match = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([a-z0-9-]+)/([a-z]+)/aws4_request, ?"
                             r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})",
                             call.headers.get("authorization", ""))
        if not match:
            raise _Refused(403, "MissingAuthenticationToken", "Request is missing Authentication Token.")
        key_id, day, region, service, signed, signature = match.groups()
        if key_id not in self.keys:
            raise _Refused(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
        stamp = call.headers.get("x-amz-date", "")
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        if abs(time.time() + self.late - at) > 900:
            raise _Refused(400, "RequestExpired", "Request has expired.")
        names = signed.split(";")
        if self.tokens.get(key_id) != call.headers.get("x-ksc-security-token"):
            raise _Refused(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
        if not {"host", "x-amz-date"} <= set(names):
            raise _Refused(403, "SignatureDoesNotMatch", "These headers must be signed.")
        lines = "".join(f"{name}:{' '.join(call.headers.get(name, '').split())}\n" for name in names)
        query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
                         for name, value in sorted(parse_qsl(call.query, keep_blank_values=True)))
        body = hashlib.sha256(call.body).hexdigest()
        canonical = "\n".join((call.method, call.path, query, lines, signed, body))
        scope = f"{day}/{region}/{service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = ("AWS4" + self.keys[key_id]).encode()
        for part in (day, region, service, "aws4_request", text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        if stamp[:8] != day or key.hex() != signature:
            raise _Refused(403, "SignatureDoesNotMatch", "The request signature does not match.")
        return key_id, region, service

    # ---------------------------------------------------------------- answers

    def _instances(self, query: dict[str, str], machines: list[Machine], region: str) -> dict[str, Any]:
        size, start = _size(query, 10), _number(query, "Marker", "0")
        page, end = machines[start:start + size], start + size
        return {"Marker": end if end < len(machines) else 0, "InstanceCount": len(machines),
                "InstancesSet": [_row(machine, region, self.public) for machine in page]}

    def _addresses(self, query: dict[str, str], machines: list[Machine], projects: list[int]) -> dict[str, Any]:
        """An address is in the default project or the other, whichever its server is in, and some belong to none."""
        every = [{"PublicIp": ip, "AllocationId": f"{m.key}-eip-{n}", "State": "associate", "IpState": "start",
                  "LineId": "5fc2595f-1bfd-481b-bf64-2d08f116d800", "BandWidth": 1, "InstanceType": "Ipfwd",
                  "InstanceId": _id(m), "NetworkInterfaceId": f"{m.key}-eni-{n}", "NetworkInterfaceType": "primary",
                  "PrivateIpAddress": m.lan[0], "IpVersion": "ipv4", "ProjectId": str(PROJECTS[m.number % 2]),
                  "CreateTime": "2020-01-01 00:00:00"} for m in machines for n, ip in enumerate(m.wan)]
        every.append({"PublicIp": "120.92.0.1", "AllocationId": "free", "State": "disassociate", "IpState": "start",
                      "BandWidth": 1, "IpVersion": "ipv4", "ProjectId": "0", "CreateTime": "2020-01-01 00:00:00"})
        wanted = {value for name, value in query.items() if name.startswith("Filter.1.Value.")}
        if query.get("Filter.1.Name", "network-interface-id") != "network-interface-id":
            raise _Refused(400, "InvalidParameterValue", "The filter is not known.")
        chosen = [address for address in every if int(address["ProjectId"]) in projects
                  and (not wanted or address.get("NetworkInterfaceId") in wanted)]
        size, start = _size(query, 1000), _number(query, "NextToken", "0")
        end = start + size
        more = {"NextToken": str(end)} if end < len(chosen) else {}
        return {"AddressesSet": chosen[start:end], **more}


def start(fleets: Mapping[str, Fleet], secret: str, *, limited: bool = True,
          latency: float = 0.0) -> tuple[Simulator, dict[str, object]]:
    keys: dict[str, object] = {"access_key": "AKLTdemo", "secret_key": secret}
    return Ksyun({"AKLTdemo": secret}, fleets, limited=limited, latency=latency), keys


CLOUDS = {"ksyun": Cloud("cn-beijing-6", start, Least(
    calls=1 + 1 + 3, trips=5, window_calls=1 + 1 + 1, window_trips=3,
    why="The projects; one page of 1,000; only its rows show whether the elastic IPs must be read: 200 to a page, "
        "token after token: 3, or those of the window's interfaces."))}


def _asked(call: Call) -> dict[str, str]:
    return dict(parse_qsl(call.query, keep_blank_values=True)) | dict(
        parse_qsl(call.body.decode("latin-1"), keep_blank_values=True))


def _size(query: dict[str, str], default: int) -> int:
    size = _number(query, "MaxResults", str(default))
    if not 5 <= size <= 1000:
        raise _Refused(400, "InvalidParameterValue", "MaxResults must be from 5 to 1000.")
    return size


def _number(query: dict[str, str], name: str, default: str) -> int:
    if not query.get(name, default).isdigit():
        raise _Refused(400, "InvalidParameterValue", f"{name} must be a number.")
    return int(query.get(name, default))


def _id(machine: Machine) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, machine.key))


def _row(machine: Machine, region: str, public: bool) -> dict[str, Any]:
    """The primary interface stands last, so that who does not look for it takes the wrong one."""
    system, *data = machine.disks
    china = (machine.created + timedelta(hours=8)).strftime("%Y-%m-%d %H:%M:%S")
    interfaces = [
        {"NetworkInterfaceId": f"{machine.key}-eni-{n}", "NetworkInterfaceType": "extension" if n else "primary",
         "VpcId": "a8979fe2-cf1a-47b9-80f6-57445227c541", "SubnetId": "f1bd236b-7fd3-44d3-aef9-2d673a65466e",
         "MacAddress": f"fa:16:3e:00:00:0{n}", "PrivateIpAddress": ip, "GroupSet": [{"GroupId": "1"}],
         "SecurityGroupSet": [{"SecurityGroupId": "7"}], "NetworkInterfaceName": f"eth{n}",
         **({"PublicIp": ",".join(machine.wan[n:n + 1])} if public else {})} for n, ip in enumerate(machine.lan)]
    return {
        "InstanceId": _id(machine), "ProjectId": machine.project, "ShutdownNoCharge": False, "IsDistributeIpv6": False,
        "InstanceName": machine.name, "InstanceType": f"N3.{machine.cpu}B",
        "InstanceConfigure": {"VCPU": machine.cpu, "GPU": 0, "MemoryGb": machine.memory_gib, "DataDiskGb": 0,
                              "RootDiskGb": system, "DataDiskType": "", "VGPU": ""},
        "ImageId": "641a7f08-c8dc-543a-8931-7448eeba0e5f", "SubnetId": "f1bd236b-7fd3-44d3-aef9-2d673a65466e",
        "PrivateIpAddress": machine.lan[0],
        "InstanceState": {"Name": _STATES[machine.state], "OnMigrate": False, "CostTime": "", "TimeStamp": ""},
        "Monitoring": {"State": "enabled"}, "NetworkInterfaceSet": interfaces[::-1], "SriovNetSupport": "false",
        "IsShowSriovNetSupport": False,
        "CreationDate": china if machine.number % 2 else machine.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "AvailabilityZone": f"{region}{'abc'[machine.zone - 1]}", "AvailabilityZoneName": "", "ProductType": 1,
        "ProductWhat": 1, "LiveUpgradeSupport": False, "ChargeType": "Monthly" if machine.ends else "Daily",
        **({"ServiceEndTime": f"{machine.ends:%Y-%m-%dT%H:%M:%SZ}"} if machine.ends else {}),
        "HostName": machine.name,
        "SystemDisk": {"DiskType": "SSD3.0", "DiskSize": system}, "UserData": "", "Migration": 0, "VncSupport": True,
        **({"DataDisks": [{"DiskId": f"{machine.key}-disk-{n}", "DiskType": "EHDD", "DiskSize": size,
                           "DeleteWithInstance": True, "Encrypted": False} for n, size in enumerate(data)]}
           if data else {}), "Platform": "centos-7.9"}

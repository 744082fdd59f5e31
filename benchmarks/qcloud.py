"""4,000 and 40,000 servers at Tencent Cloud: ours beside the loop that the official SDK needs."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from benchmarks.clouds import Cloud
from benchmarks.keys import CREDENTIALS, REGION
from benchmarks.measure import Round, in_turn, middle, same_lists
from benchmarks.verdict import Claim, table

TITLE = "Tencent Cloud: 4,000 and 40,000 servers"
LIBRARIES = ("tencentcloud-sdk-python-cvm", "tencentcloud-sdk-python-common")
LATENCY = 0.05
RATE = 40                                   # DescribeInstances, calls a second
ROUNDS = 9
LARGE_ROUNDS = 3
PAUSE = 1.2                                 # the simulator counts the calls of the last second

_STATUS = {"PENDING": "BUILD", "LAUNCH_FAILED": "ERROR", "RUNNING": "ACTIVE", "STOPPED": "SHUTOFF",
           "STARTING": "STARTING", "STOPPING": "STOPPING", "REBOOTING": "REBOOT", "SHUTDOWN": "SHUTOFF",
           "TERMINATING": "DELETED"}


def client(url: str, keys: Mapping[str, str] = CREDENTIALS["qcloud"]) -> Any:
    """The official SDK's client as it comes; only the address is another."""
    from tencentcloud.common.credential import Credential
    from tencentcloud.common.profile.client_profile import ClientProfile
    from tencentcloud.common.profile.http_profile import HttpProfile
    from tencentcloud.cvm.v20170312.cvm_client import CvmClient

    return CvmClient(Credential(keys["secret_id"], keys["secret_key"]), REGION["qcloud"], ClientProfile(
        httpProfile=HttpProfile(protocol="http", endpoint=urlsplit(url).netloc)))


@contextmanager
def sdk(url: str, keys: Mapping[str, str] = CREDENTIALS["qcloud"]) -> Iterator[Callable[[], bytes]]:
    """The loop that the SDK leaves to its user, page after page."""
    from tencentcloud.cvm.v20170312.models import DescribeInstancesRequest

    made = client(url, keys)

    def work() -> bytes:
        rows: list[dict[str, Any]] = []
        offset = 0
        while True:
            request = DescribeInstancesRequest()
            request.Offset, request.Limit = offset, 100
            answer = made.DescribeInstances(request)
            rows += [row(instance) for instance in answer.InstanceSet]
            offset += 100
            if offset >= answer.TotalCount:
                return json.dumps({"code": 200, "msg": "", "vm_servers": rows}).encode()

    yield work


def row(instance: Any) -> dict[str, Any]:
    created = instance.CreatedTime[:19].replace("T", " ")
    return {"instance_name": instance.InstanceName, "instance_id": instance.InstanceId, "cpu_num": instance.CPU,
            "mem_size": instance.Memory,
            "disk_size": instance.SystemDisk.DiskSize + sum(disk.DiskSize for disk in instance.DataDisks or ()),
            "lan_ip_set": ",".join(instance.PrivateIpAddresses or ()),
            "wan_ip_set": ",".join(instance.PublicIpAddresses or ()),
            "status": _STATUS.get(instance.InstanceState, "UNKNOWN"), "create_at": created, "update_at": created}


def run() -> dict[str, Any]:
    with Cloud("qcloud", size=4000, latency=LATENCY) as cloud:
        small = in_turn(_sides(cloud), ROUNDS, PAUSE)
    same_lists(*small.values())
    with Cloud("qcloud", size=40_000, latency=LATENCY) as cloud:
        sides = _sides(cloud)
        large = in_turn({"ours": sides["ours"]}, LARGE_ROUNDS, PAUSE)
        time.sleep(PAUSE)
        large["sdk"] = [sides["sdk"]()]
    same_lists(*large.values())
    return {"small": small, "large": large}


def _sides(cloud: Cloud) -> dict[str, Callable[[], Round]]:
    return {"ours": cloud.side("benchmarks.ours:listing", party="qcloud", url=cloud.url),
            "sdk": cloud.side("benchmarks.qcloud:sdk", url=cloud.url)}


# ---------------------------------------------------------------- what it says

def claims(figures: dict[str, Any]) -> list[Claim]:
    small, large = figures["small"], figures["large"]
    floor = (400 - RATE) / RATE
    return [
        Claim("4,000 qcloud servers, wall time, ours / the SDK's loop",
              middle(small["ours"], "wall") / middle(small["sdk"], "wall"), 0.10),
        Claim("4,000 qcloud servers, CPU time, ours / the SDK's loop",
              middle(small["ours"], "cpu") / middle(small["sdk"], "cpu"), None),
        Claim("4,000 qcloud servers, peak memory of the whole process, ours / the SDK's loop",
              middle(small["ours"], "peak_mib") / middle(small["sdk"], "peak_mib"), None),
        Claim("40,000 qcloud servers, wall time, ours / the shortest that the rate allows (9 s)",
              middle(large["ours"], "wall") / floor, None),
    ]


def text(figures: dict[str, Any]) -> str:
    names = {"ours": "twocloud", "sdk": "official SDK, a loop"}
    small = table(names, figures["small"])
    large = table(names, figures["large"])
    return f"""\
4,000 servers are 40 calls: one second at the documented rate limit of 40 a second. The simulator waits
{LATENCY * 1000:.0f} ms before each response and enforces the limit.

- Ours is a whole deployment with its own rate limiter on.
- The SDK's side is an unchanged `CvmClient`, which makes a new connection for each call. Without TLS here it is spared
  40 handshakes.
- Both end with the same ten fields as JSON, and the lists are compared. {ROUNDS} rounds of each.

{small}

40,000 servers are 400 calls. 40 of them may start at once and the rest at 40 a second, so nobody can finish before 9 s.
We stay 5 % below the limit on purpose; the SDK's loop never comes near it. {LARGE_ROUNDS} rounds of ours, one of the
SDK.

{large}
"""

"""5,000 servers at Amazon EC2: ours beside boto3's paginators and beside Apache Libcloud's driver."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from benchmarks.clouds import Cloud
from benchmarks.keys import CREDENTIALS, REGION
from benchmarks.measure import Round, in_turn, middle, same_lists
from benchmarks.verdict import Claim, table

TITLE = "Amazon EC2: 5,000 servers"
LIBRARIES = ("boto3", "botocore", "apache-libcloud")
SIZE = 5000
LATENCIES = {"near": 0.0, "far": 0.02}
ROUNDS = 5

_STATUS = {"pending": "BUILD", "running": "ACTIVE", "stopping": "STOPPING", "stopped": "SHUTOFF",
           "shutting-down": "DELETED"}


@contextmanager
def boto3_paginators(url: str, keys: Mapping[str, str] = CREDENTIALS["aws"]) -> Iterator[Callable[[], bytes]]:
    """The same three calls, one after the other; each page is cut down to what is needed before the next."""
    import boto3

    client = boto3.client("ec2", region_name=REGION["aws"], endpoint_url=url,
                          aws_access_key_id=keys["access_key_id"], aws_secret_access_key=keys["secret_access_key"])

    def work() -> bytes:
        rows: list[dict[str, Any]] = []
        for page in client.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000}):
            rows += [_row(instance) for group in page["Reservations"] for instance in group["Instances"]
                     if instance["State"]["Name"] != "terminated"]
        disks: dict[str, int] = {}
        for page in client.get_paginator("describe_volumes").paginate(PaginationConfig={"PageSize": 1000}):
            for volume in page["Volumes"]:
                for attachment in volume["Attachments"]:
                    owner = attachment["InstanceId"]
                    disks[owner] = disks.get(owner, 0) + volume["Size"]
        memory: dict[str, int] = {}
        kinds = sorted({row["mem_size"] for row in rows})
        for page in client.get_paginator("describe_instance_types").paginate(InstanceTypes=kinds):
            for kind in page["InstanceTypes"]:
                memory[kind["InstanceType"]] = -(-kind["MemoryInfo"]["SizeInMiB"] // 1024)
        for row in rows:
            row["mem_size"] = memory[row["mem_size"]]
            row["disk_size"] = disks.get(row["instance_id"], 0)
        return json.dumps({"code": 200, "msg": "", "vm_servers": rows}).encode()

    yield work


def _row(instance: dict[str, Any]) -> dict[str, Any]:
    """The ten fields; `mem_size` holds the type until the types are known."""
    interfaces = instance["NetworkInterfaces"]
    lan = {instance["PrivateIpAddress"]: None}
    wan = {instance["PublicIpAddress"]: None} if "PublicIpAddress" in instance else {}
    for interface in interfaces:
        for address in interface["PrivateIpAddresses"]:
            lan[address["PrivateIpAddress"]] = None
            if "Association" in address:
                wan[address["Association"]["PublicIp"]] = None
    attached = next(each["Attachment"]["AttachTime"] for each in interfaces if each["Attachment"]["DeviceIndex"] == 0)
    state = instance["State"]["Name"]
    if state == "pending" and (instance["LaunchTime"] - attached).total_seconds() > 60:
        status = "STARTING"
    else:
        status = _STATUS[state]
    created = attached.strftime("%Y-%m-%d %H:%M:%S")
    return {"instance_name": next((tag["Value"] for tag in instance.get("Tags", ()) if tag["Key"] == "Name"), ""),
            "instance_id": instance["InstanceId"],
            "cpu_num": instance["CpuOptions"]["CoreCount"] * instance["CpuOptions"]["ThreadsPerCore"],
            "mem_size": instance["InstanceType"], "disk_size": 0, "lan_ip_set": ",".join(lan),
            "wan_ip_set": ",".join(wan), "status": status, "create_at": created, "update_at": created}


@contextmanager
def libcloud(url: str) -> Iterator[Callable[[], bytes]]:
    """`list_nodes`, and what a node says as JSON: no memory, no CPUs, no size of disks."""
    from libcloud.compute.drivers.ec2 import EC2NodeDriver

    there, keys = urlsplit(url), CREDENTIALS["aws"]
    driver = EC2NodeDriver(keys["access_key_id"], keys["secret_access_key"], secure=False, host=there.hostname,
                           port=there.port, region=REGION["aws"], signature_version="4")

    def work() -> bytes:
        return json.dumps({"code": 200, "msg": "", "vm_servers": [
            {"instance_name": node.name, "instance_id": node.id, "lan_ip_set": ",".join(node.private_ips),
             "wan_ip_set": ",".join(node.public_ips), "status": node.state, "create_at": node.extra["launch_time"]}
            for node in driver.list_nodes()]}).encode()

    yield work


def run() -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, latency in LATENCIES.items():
        with Cloud("aws", size=SIZE, latency=latency) as cloud:
            figures[name] = in_turn(_sides(cloud), ROUNDS)
        same_lists(figures[name]["ours"], figures[name]["boto3"])
    return figures


def _sides(cloud: Cloud) -> dict[str, Callable[[], Round]]:
    return {"ours": cloud.side("benchmarks.ours:listing", party="aws", url=cloud.url),
            "boto3": cloud.side("benchmarks.aws:boto3_paginators", url=cloud.url),
            "libcloud": cloud.side("benchmarks.aws:libcloud", url=cloud.url)}


# ---------------------------------------------------------------- what it says

def claims(figures: dict[str, Any]) -> list[Claim]:
    near, far = figures["near"], figures["far"]

    def ratio(of: dict[str, list[Round]], name: str, other: str) -> float:
        return middle(of["ours"], name) / middle(of[other], name)

    return [
        Claim("5,000 EC2 servers with volumes, wall time, ours / boto3", ratio(near, "wall", "boto3"), 0.25),
        Claim("5,000 EC2 servers, wall time with 20 ms latency per call, ours / boto3",
              ratio(far, "wall", "boto3"), 0.25),
        Claim("5,000 EC2 servers, peak memory of the whole process, ours / boto3",
              ratio(near, "peak_mib", "boto3"), 0.5),
        Claim("5,000 EC2 servers, memory on top of a ready process, ours / boto3",
              ratio(near, "added_mib", "boto3"), 0.5),
        Claim("5,000 EC2 servers, wall time, ours / Libcloud (which reads no volumes)",
              ratio(near, "wall", "libcloud"), None),
        Claim("5,000 EC2 servers, peak memory, ours / Libcloud", ratio(near, "peak_mib", "libcloud"), None),
    ]


def text(figures: dict[str, Any]) -> str:
    names = {"ours": "twocloud", "boto3": "boto3, paginators", "libcloud": "Apache Libcloud, `list_nodes`"}
    return f"""\
The simulator enforces EC2's documented rate limit (a bucket of 100 calls); nobody here comes near it. {ROUNDS} rounds
of each side:

- Ours is a whole deployment with its own rate limiter on.
- boto3 makes the same calls with its paginators, 1,000 to a page, one after the other, and keeps of each page only what
  the ten fields need. The time to make its client is not counted. The lists of both are compared.
- Libcloud does less: `list_nodes` reads no volumes and no types, so it knows neither CPUs, memory nor disks. It does
  not page, so the simulator returns all servers at once, and that account has no elastic addresses.

Without latency:

{table(names, figures["near"])}

With {LATENCIES["far"] * 1000:.0f} ms before each response:

{table(names, figures["far"])}
"""

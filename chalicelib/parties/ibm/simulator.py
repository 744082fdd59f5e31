"""A simulator for IBM Cloud VPC: the IAM login, instances, volumes, floating IPs, regions."""

import base64
import hashlib
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from ...simulators.bearer import Ask, Kind, Refused, Reply, cloud, time_text, uuid_of

_REGIONS = ("us-south", "us-east", "eu-de", "eu-gb", "jp-tok")
_STATES = {"running": "running", "stopped": "stopped", "starting": "starting", "stopping": "stopping",
           "pending": "pending"}
_GROUP = "{:032x}"


def _token(key: str) -> str:
    """A JWT, as its SDK expects one; what it says is not checked, and it ends in 2100."""
    parts = ({"alg": "none"}, {"iat": 4102441200, "exp": 4102444800}, hashlib.sha256(key.encode()).hexdigest())
    return ".".join(base64.urlsafe_b64encode(msgspec.json.encode(part)).rstrip(b"=").decode() for part in parts)


def _login(ask: Ask) -> Reply:
    form = dict(parse_qsl(ask.call.body.decode()))
    if form.get("grant_type") != "urn:ibm:params:oauth:grant-type:apikey":
        raise Refused(400, "BXNIM0429E")
    if form.get("apikey") != ask.cloud.token:
        raise Refused(400, "BXNIM0415E")
    return {"access_token": _token(ask.cloud.token), "refresh_token": "not_supported", "token_type": "Bearer",
            "expires_in": 3600, "expiration": int(time.time()) + 3600, "scope": "ibm openid"}, {}


def _page(ask: Ask, key: str, make: Callable[[Ask], list[Any]], *by: object) -> Reply:
    if not re.fullmatch(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}", ask.one("version") or ""):
        raise Refused(400, "bad_version")
    if ask.one("generation") != "2":
        raise Refused(400, "invalid_generation")
    rows, limit, start = ask.kept(make, *by), ask.number("limit", 50, 1, 100), ask.one("start") or "at0"
    ids = [row["id"] if "id" in row else row["name"] for row in rows]
    try:
        at = ask.cloud.cursors.take(start.removeprefix("at"), ids) if start != "at0" else 0
    except ValueError:
        raise Refused(400, "bad_field") from None
    there = f"https://{ask.call.headers.get('host')}{ask.call.path}"
    more = {"next": {"href": f"{there}?start=at{ask.cloud.cursors.give(ids, at + limit)}&limit={limit}"}
            } if at + limit < len(rows) else {}
    return {key: rows[at:at + limit], "first": {"href": f"{there}?limit={limit}"}, "limit": limit,
            "total_count": len(rows), **more}, {}


def _named(kind: str, key: str) -> dict[str, Any]:
    return {"id": key, "crn": f"crn:{key}", "href": f"https://x/{kind}/{key}", "name": f"{kind}-{key}",
            "resource_type": kind}


def _instances(ask: Ask) -> list[Any]:
    wanted = ask.one("resource_group.id")
    rows: list[Any] = []
    for region, m in ask.machines():
        key, group = f"0717_{uuid_of(m, 0)}", _GROUP.format(m.project)
        if wanted not in (None, group):
            continue
        nets = [{**_named("network_interface", f"{key}-{n}"), "subnet": _named("subnet", "1"),
                 "primary_ip": {**_named("subnet_reserved_ip", f"{key}-{n}"), "address": ip}}
                for n, ip in enumerate(m.lan)]
        attached = [{**net, "resource_type": "instance_network_attachment", "id": f"{net['id']}-attached",
                     "virtual_network_interface": _named("virtual_network_interface", f"vni-{net['id']}")}
                    for net in nets] if m.number % 2 else []
        rows.append({
            "id": key, "crn": "crn:x", "href": "https://x", "name": m.name, "resource_type": "instance",
            "status": _STATES[m.state], "status_reasons": [], "created_at": time_text(m, "%Y-%m-%dT%H:%M:%S.000Z"),
            "vcpu": {"architecture": "amd64", "count": m.cpu, "manufacturer": "intel", "percentage": 100, "burst": {}},
            "memory": m.memory_gib, "disks": [], "zone": {"name": f"{region}-{m.zone}", "href": "https://x"},
            "profile": {"name": f"bx2-{m.cpu}x{m.memory_gib}", "href": "https://x", "resource_type": "x"},
            "resource_group": {"id": group, "name": "x", "href": "https://x"},
            "primary_network_interface": nets[0], "network_interfaces": nets[::-1],
            "network_attachments": attached[::-1],
            **({"primary_network_attachment": attached[0]} if attached else {}),
            "boot_volume_attachment": {"id": f"{key}-a0", "name": "x", "href": "https://x",
                                       "volume": _named("volume", f"{key}-v0")},
            "volume_attachments": [{"id": f"{key}-a{n}", "name": "x", "href": "https://x",
                                    "volume": _named("volume", f"{key}-v{n}")} for n in range(len(m.disks))],
            "vpc": _named("vpc", "1")})
    return rows


def _volumes(ask: Ask) -> list[Any]:
    return [{"id": f"0717_{uuid_of(m, 0)}-v{n}", "name": f"{m.name}-{n}", "capacity": size, "resource_type": "volume",
             "zone": {"name": f"{region}-{m.zone}"}, "status": "available", "attachment_state": "attached"}
            for region, m in ask.machines() for n, size in enumerate(m.disks)]


def _floating(ask: Ask) -> list[Any]:
    return [*({"id": f"fip-{m.key}-{n}", "name": f"{m.name}-{n}", "address": ip, "status": "available",
               "target": _named("virtual_network_interface", f"vni-0717_{uuid_of(m, 0)}-0") if m.number % 2 else
               _named("network_interface", f"0717_{uuid_of(m, 0)}-0")}
              for _, m in ask.machines() for n, ip in enumerate(m.wan)),
            {"id": "fip-free", "name": "free", "address": "203.0.113.250", "status": "available"}]


def _regions(_: Ask) -> list[Any]:
    return [{"name": name, "href": f"https://x/{name}", "endpoint": f"https://{name}.iaas.cloud.ibm.com",
             "status": "available"} for name in _REGIONS]


KIND = Kind(
    routes={
        "Login": ("/identity/token", "", _login),
        "ListInstances": ("/v1/instances", "version generation limit start resource_group.id name", lambda ask:
                          _page(ask, "instances", _instances, ask.one("resource_group.id"))),
        "ListVolumes": ("/v1/volumes", "version generation limit start attachment_state", lambda ask: _page(
            ask, "volumes", _volumes)),
        "ListFloatingIps": ("/v1/floating_ips", "version generation limit start", lambda ask: _page(
            ask, "floating_ips", _floating)),
        "ListRegions": ("/v1/regions", "version generation", lambda ask: _page(ask, "regions", _regions)),
    },
    refusal=lambda status, word: {"errorCode": word, "errorMessage": "no"} if word.startswith("BXNIM") else {
        "errors": [{"code": "not_authenticated" if status == 401 else word, "message": "no"}], "trace": "x"},
    issued=_token,
    open=("Login",),
)

CLOUDS = {"ibm": cloud(KIND, "us-south")}

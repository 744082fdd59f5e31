"""What a caller sees when a party fails."""

import re

from chalicelib.simulators.fleet import Fleet
from tests import canaries
from tests.http.contract.cases import case, error, good, gz, new_tenant
from tests.targets import Target

FAULTS = {"429": (503, "party_throttled"), "500": (502, "party_error"), "502": (503, "party_unavailable"),
          "503": (503, "party_unavailable"),
          "504": (503, "party_unavailable"), "401": (502, "party_denied"), "403": (502, "party_denied"),
          "cut body": (502, "party_malformed"),
          "reset": (503, "party_unavailable"), "html": (502, "party_malformed")}


@case("a party that fails has its word")
def _(target: Target) -> None:
    for fault, (status, word) in FAULTS.items():
        tenant, token = new_tenant(target)
        target.qcloud.fail(fault)
        try:
            error(target.ask(gz(tenant), token), status, word)
        except AssertionError as wrong:
            raise AssertionError(f"{fault}: {wrong}") from wrong
        target.qcloud.forget()


@case("a single failure is not seen")
def _(target: Target) -> None:
    for fault in ("500", "503", "reset", "429"):
        tenant, token = new_tenant(target)
        target.qcloud.fail(fault, nth=(1,))
        good(target.ask(gz(tenant), token), 25)
        target.qcloud.forget()


@case("credentials that the party refuses")
def _(target: Target) -> None:
    tenant = target.tenant(keys={"secret_id": "AKIDtest", "secret_key": canaries.secret("wrong")})
    error(target.ask(gz(tenant), target.token(tenant)), 502, "party_denied")


@case("a region that the party does not know")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    error(target.ask(f"party=qcloud&tenant_id={tenant}&region=ap-nowhere", token), 400, "invalid_parameter", "region")


@case("an answer that is too large says which range fits")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    fleet, rows = target.qcloud.fleets["ap-guangzhou"], target.qcloud.rows
    target.qcloud.rows = {n: {**target.qcloud._row(Fleet(20)[n], "ap-guangzhou"), "InstanceName": "x" * 400_000}
                          for n in range(20)}
    target.qcloud.fleets["ap-guangzhou"] = Fleet(20)
    try:
        match = re.search(r"f=(\d+)&t=(\d+)", error(target.ask(gz(tenant), token), 413, "too_large"))
        assert match
        good(target.ask(gz(tenant, f"&{match[0]}"), token), int(match[2]))
    finally:
        target.qcloud.fleets["ap-guangzhou"], target.qcloud.rows = fleet, rows

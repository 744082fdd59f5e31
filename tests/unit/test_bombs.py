"""No answer of a party makes the process grow by more than 200 MB, ten at once: tests/bombs.py, in a process of its
own. None keeps a thread, and with it all others, for minutes: here the time limit of a test is what fails."""

import json
import subprocess
import sys
from typing import Any

import pytest

from chalicelib import parties
from chalicelib.model import Response
from chalicelib.parties import azure

SHAPES = ["nested elements", "tiny rows", *(pytest.param(shape, marks=pytest.mark.slow) for shape in (
    "unclosed elements", "attributes", "attributes with blanks", "texts", "one long wide text", "one long name",
    "elements beside", "attributes by default", "UTF-16", "control characters", "texts without an end"))]
# all: tests/bombs.py


@pytest.mark.sample(3)
@pytest.mark.parametrize("shape", SHAPES)
def test_ten_bombs_at_once_stay_below_200_mb(shape: str) -> None:
    done = subprocess.run([sys.executable, "-m", "tests.bombs", shape], capture_output=True, text=True, timeout=100,
                          check=True)
    grown, *words = done.stdout.split()
    assert int(grown) < 200, done.stdout
    assert set(words) <= {"party_malformed", "party_throttled", "party_timeout"}, done.stdout


REPEATED = ["ip ", "account ", "verify ", "token ", "key ", "user ", "project ", "Region", "password ", "unknown ",
            "projects/", "Permission check failed (", "\t", "*"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", parties.names())
def test_no_text_of_a_refusal_takes_long(name: str) -> None:
    """Which patterns look through for its cause: some took a time that grew with the square of its length."""
    party = parties.load(name)
    for words in REPEATED:
        text = words * (250_000 // len(words))
        bodies: list[Any] = [
            {"error": {"message": text, "code": 403, "status": "PERMISSION_DENIED"}},
            {"error": {"message": text, "title": "Unauthorized"}}, {"error": text}, {"message": text},
            {"detail": text}, {"errors": [{"reason": text, "message": text}]}, {"errorCode": text, "statusCode": 900},
            {"error_code": "APIGW.0301", "error_msg": text}, {"code": text, "Code": text, "RetCode": text},
            {"Response": {"Error": {"Code": text, "Message": text}}}]
        for body in (json.dumps(body).encode() for body in bodies):
            party.error_code(Response(403, {}, body))
        party.error_code(Response(403, {}, f"<Response><Errors><Error><Code>x</Code><Message>{text}</Message></Error>"
                                           "</Errors></Response>".encode()))


@pytest.mark.timeout(60)
def test_a_right_that_has_many_stars() -> None:
    right = "Microsoft.Compute/virtualMachines/read"
    for fits in ("*", "*" * 5000, "*/read", "Microsoft.Compute/*", "microsoft.compute/*/READ", "*e*e*", "*m*read*",
                 right):
        assert azure._covers([fits], right), fits
    for other in ("", "*" * 5000 + "Z", "*e" * 30, "read", "*/write", "Microsoft.Compute/virtualMachines/*/read", "*?",
                  "Microsoft.Compute/virtualMachines/read*read"):
        assert not azure._covers([other], right), other

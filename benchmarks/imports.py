"""Imports: what a cold start loads, beside Chalice with a boto3 client for DynamoDB."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from benchmarks.clouds import Cloud
from benchmarks.measure import ROOT
from benchmarks.verdict import Claim, lines, seconds

TITLE = "Imports and the first use"
LIBRARIES = ("chalice", "boto3", "botocore")
ROUNDS = 21
_TABLE, _REGION = "twocloud-benchmark", "us-east-1"

# each is timed from its first line to its last, in an interpreter that has just started
PROGRAMS = {
    "authorizer": "import chalicelib.http.authorizer",
    "handler": "import app",
    "chalice_boto3": "import chalice, boto3; boto3.client('dynamodb')",
    "authorizer_used": """
from chalicelib.http import authorizer
answer = authorizer.authorize({"type": "TOKEN", "authorizationToken": "Bearer " + details["token"],
                               "methodArn": "arn:aws:execute-api:r:0:a/s/GET/twocloud/servers"}, {})
assert answer["policyDocument"]["Statement"][0]["Resource"], answer
""",
    "chalice_boto3_used": """
import chalice, boto3
client = boto3.client("dynamodb")
for kind, key in (("token", details["token_key"]), ("user", details["user"])):
    assert "Item" in client.get_item(TableName=details["table"], Key={"pk": {"S": kind}, "sk": {"S": key}})
""",
}
_TIMED = """
import json, os, time
details = json.loads(os.environ["BENCHMARK_DETAILS"])
wall, cpu = time.perf_counter(), time.process_time()
{program}
print(json.dumps({{"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}}))
"""


def run() -> dict[str, Any]:
    with Cloud("dynamodb", table=_TABLE, region=_REGION) as cloud, tempfile.TemporaryDirectory() as compiled:
        environment = _environment(cloud, compiled)
        figures: dict[str, list[dict[str, float]]] = {name: [] for name in PROGRAMS}
        for number in range(ROUNDS + 1):                        # the first round compiles, and does not count
            for name in (list(PROGRAMS) if number % 2 else list(PROGRAMS)[::-1]):
                measured = _interpreter(_TIMED.format(program=PROGRAMS[name]), environment)
                if number:
                    figures[name].append(measured)
    return figures


def _environment(cloud: Cloud, compiled: str) -> dict[str, str]:
    """As in Lambda; modules are compiled once, aside, whatever the environment says about compiled files."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("AWS_", "TWOCLOUD_", "PYTHON")) or name == "PYTHONPATH"}
    return kept | {
        "PYTHONPYCACHEPREFIX": compiled, "TWOCLOUD_STORE": f"dynamodb://{_TABLE}",
        "AWS_DEFAULT_REGION": _REGION, "AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_ENDPOINT_URL_DYNAMODB": cloud.url, "BENCHMARK_DETAILS": json.dumps({**cloud.details, "table": _TABLE})}


def _interpreter(program: str, environment: Mapping[str, str]) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True,
                          stdout=subprocess.PIPE)
    return json.loads(done.stdout)


# ---------------------------------------------------------------- what it says

def claims(figures: dict[str, Any]) -> list[Claim]:
    def ratio(ours: str, theirs: str) -> float:
        return _middle(figures, ours) / _middle(figures, theirs)

    return [
        Claim("Importing the authorizer / Chalice and a DynamoDB client", ratio("authorizer", "chalice_boto3"), None),
        Claim("Importing the API handler / Chalice and a DynamoDB client", ratio("handler", "chalice_boto3"), None),
        Claim("Authorizer to its first answer / Chalice and the same two reads of DynamoDB",
              ratio("authorizer_used", "chalice_boto3_used"), None),
    ]


def text(figures: dict[str, Any]) -> str:
    titles = {"authorizer": "`import chalicelib.http.authorizer`", "handler": "`import app`",
              "chalice_boto3": "`import chalice, boto3`, `boto3.client(\"dynamodb\")`",
              "authorizer_used": "authorizer to its first answer (two reads of DynamoDB)",
              "chalice_boto3_used": "Chalice, boto3's client, the same two reads"}
    rows = [(title, seconds(_middle(figures, name)), seconds(min(each["wall"] for each in figures[name])),
             seconds(statistics.median(each["cpu"] for each in figures[name]))) for name, title in titles.items()]
    return f"""\
Fresh interpreters, {ROUNDS} of each, in turns, medians. They are timed inside, so the start of Python is not counted.
Modules are compiled beforehand.

- The first two rows look better than a cold start is: we import botocore only when the store is first read, so its time
  comes back with the first request.
- The last two rows are what a caller waits for: import, client, two reads of a DynamoDB simulator (moto) on this
  machine.

{lines(("program", "wall", "least wall", "CPU"), rows)}
"""


def _middle(figures: dict[str, Any], name: str) -> float:
    return statistics.median(each["wall"] for each in figures[name])

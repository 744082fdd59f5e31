"""Cold starts of the packaged functions under Amazon's runtime client, beside a bare Chalice app with boto3."""

import importlib.metadata
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from benchmarks.clouds import Cloud
from benchmarks.measure import cpu_of
from benchmarks.verdict import Claim, lines, seconds

TITLE = "Cold starts from the real zip"
LIBRARIES = ("chalice", "boto3", "botocore")
ROUNDS = 9
_TABLE, _REGION = "twocloud-benchmark", "us-east-1"
_BARE = ("boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3")
_BARE_APP = """
import os

import boto3
from chalice.app import Chalice

app = Chalice("bare", configure_logs=False)
client = boto3.client("dynamodb")


@app.route("/read")
def read():
    for kind, key in (("token", os.environ["TOKEN_KEY"]), ("user", os.environ["USER_NAME"]))[:int(os.environ["READS"])]:
        assert "Item" in client.get_item(TableName=os.environ["TABLE"], Key={"pk": {"S": kind}, "sk": {"S": key}})
    return {}
"""


def run() -> dict[str, Any]:
    from chalicelib.packaging import package

    python = os.environ.get("RUNTIME", sys.executable)
    with Cloud("dynamodb", table=_TABLE, region=_REGION) as cloud, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        package.build(folder / "out", python, here=True)
        task, bare = folder / "task", folder / "bare"
        with zipfile.ZipFile(folder / "out/deployment.zip") as archive:
            archive.extractall(task)
        _bare(bare, task)
        package._compile(python, bare)
        client = _runtime_client(python, package.version_of(python), folder / "client")
        variables = {
            "AWS_ENDPOINT_URL_DYNAMODB": cloud.url,
            "TWOCLOUD_STORE": f"dynamodb://{_TABLE}",
            "TABLE": _TABLE,
            "TWOCLOUD_KEY": "kms:key",
            "TOKEN_KEY": cloud.details["token_key"],
            "USER_NAME": cloud.details["user"],
        }
        query = {
            "type": "TOKEN",
            "authorizationToken": f"Bearer {cloud.details['token']}",
            "methodArn": "arn:aws:execute-api:r:0:a/s/GET/twocloud/servers",
        }
        sides: dict[str, tuple[Path, str, dict[str, str], dict[str, Any]]] = {
            "handler": (task, "app.app", {}, _event("/twocloud/health")),
            "authorizer": (task, "chalicelib.http.authorizer.authorize", {}, query),
            "bare": (bare, "app.app", {"READS": "1"}, _event("/read")),
            "bare_two": (bare, "app.app", {"READS": "2"}, _event("/read")),
        }
        figures: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for number in range(ROUNDS + 1):  # the first one fills the caches of files
            for side in list(sides) if number % 2 else list(sides)[::-1]:
                at, handler, more, event = sides[side]
                measured = _start(at, handler, {**variables, **more}, event, folder, python, client)
                if number:
                    figures[side].append(measured)
    return {"python": package.version_of(python), "sides": figures}


def _start(
    task: Path,
    handler: str,
    variables: dict[str, str],
    event: dict[str, Any],
    folder: Path,
    python: str,
    client: Path | None,
) -> dict[str, float]:
    """Seconds from the process's start to its first poll, CPU seconds until then, and seconds to the first answer."""
    from deploy.ministack import Function

    begun = time.perf_counter()
    with Function(task, handler, variables, 28, folder, python, client) as function:
        function.wait()
        cpu = cpu_of(function.pid)
        answer = function.invoke(event)
        took = time.perf_counter() - begun
        if answer.get("statusCode", 200) != 200:
            raise RuntimeError(str(answer))
        return {"init": function.started, "init_cpu": cpu, "answer": took, "answer_cpu": cpu_of(function.pid)}


def _event(path: str) -> dict[str, Any]:
    return {
        "resource": path,
        "path": path,
        "httpMethod": "GET",
        "headers": {},
        "multiValueHeaders": {},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "body": None,
        "isBase64Encoded": False,
        "requestContext": {"resourcePath": path, "httpMethod": "GET", "path": path, "requestId": "r", "identity": {}},
    }


def _bare(folder: Path, task: Path) -> None:
    """boto3 and what it needs as installed here, whole; Chalice's runtime as Chalice packages it."""
    for name in _BARE:
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or []:
            if file.suffix != ".pyc" and ".." not in file.parts:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(distribution.locate_file(file)), folder / file)
    shutil.copytree(task / "chalice", folder / "chalice", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "app.py").write_text(_BARE_APP)


def _runtime_client(python: str, version: str, folder: Path) -> Path | None:
    """awslambdaric for an interpreter of another version than ours; None: ours is used."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return None
    wanted = [
        f"{name}=={importlib.metadata.version(name)}" for name in ("awslambdaric", "simplejson", "snapshot-restore-py")
    ]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--python-version",
            version,
            "--target",
            folder,
            *wanted,
        ],
        check=True,
    )
    return folder


# ---------------------------------------------------------------- what it says


def claims(figures: dict[str, Any]) -> list[Claim]:
    def ratio(ours: str, theirs: str, name: str) -> float:
        return _middle(figures, ours, name) / _middle(figures, theirs, name)

    return [
        Claim(
            "Cold start of the API's function to its first poll / bare Chalice with a boto3 DynamoDB client",
            ratio("handler", "bare", "init"),
            1.1,
        ),
        Claim(
            "Cold start of the authorizer to its first poll / bare Chalice with a boto3 DynamoDB client",
            ratio("authorizer", "bare", "init"),
            0.6,
        ),
        Claim(
            "Cold start of the API's function to its first answer (health) / bare Chalice with the same read",
            ratio("handler", "bare", "answer"),
            1.0,
        ),
        Claim(
            "Cold start of the authorizer to its first answer / bare Chalice with the same two reads",
            ratio("authorizer", "bare_two", "answer"),
            None,
        ),
    ]


def text(figures: dict[str, Any]) -> str:
    titles = {
        "handler": "`app.app`, then `GET /twocloud/health`",
        "authorizer": "`chalicelib.http.authorizer.authorize`, then a token",
        "bare": 'bare Chalice with `boto3.client("dynamodb")`, then one read',
        "bare_two": "the same, then two reads",
    }
    rows = [
        (title, *(seconds(_middle(figures, side, name)) for name in ("init", "init_cpu", "answer", "answer_cpu")))
        for side, title in titles.items()
    ]
    python = figures["python"]
    return f"""\
One side is `deployment.zip` as `make package` builds it, except with this machine's wheels; the other a bare Chalice
app with all of boto3. Both have `.pyc` files; Python {python}. Each round starts a process under Amazon's own
runtime client (awslambdaric) and waits for its first poll, which Lambda calls INIT, then for its first answer. DynamoDB
is moto in another process. {ROUNDS} rounds of each, in turns; medians.

botocore is loaded with the first use of the store, not in INIT. So INIT is short and the first answer holds the rest.
On Lambda this may be slower for the first caller: INIT is believed to run with the CPU of a whole core, and an answer
with the share that the memory buys. Nobody has measured it there.

{lines(("function", "to the first poll", "CPU", "to the first answer", "CPU"), rows)}
"""


def _middle(figures: dict[str, Any], side: str, name: str) -> float:
    return statistics.median(each[name] for each in figures["sides"][side])

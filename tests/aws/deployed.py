"""The package for AWS, built once for all tests, and what it is deployed to: MiniStack, with its rights enforced.

Building needs a package index and, for the real package, an interpreter of one of Lambda's versions.
"""

import fcntl
import json
import os
import re
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from chalicelib import parties
from chalicelib.access import accounts, tokens, users
from chalicelib.access.sealing import KmsSealer
from chalicelib.cloud.sender import Transport
from chalicelib.fleet.deployment import Deployment, OnFirstUse
from chalicelib.model import DEFAULT_ACCOUNT, Source
from chalicelib.packaging import package
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators import tls
from chalicelib.simulators.fleet import Fleet
from chalicelib.storage import snapshots
from chalicelib.storage.dynamodb import DynamoStore
from deploy import emulator
from deploy.ministack import Function, ministack
from tests import ROOT, canaries
from tests.fixtures import settings_in

FUNCTIONS = {"APIHandler": "app.app", "Authorize": "chalicelib.http.authorizer.authorize", "Spread": "app.spread",
             "Work": "app.work"}
ROLES = {"APIHandler": "ApiHandlerRole", "Authorize": "AuthorizeRole", "Spread": "SpreadRole", "Work": "WorkRole"}


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made by one of the workers, for all of them."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"package-{name}"
    with (folder.parent / f"package-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "template.json").exists():
            make(folder)
    return folder


def runtime() -> str:
    for name in (os.environ.get("RUNTIME", sys.executable), sys.executable,
                 *(f"python{version}" for version in package.RUNTIMES)):
        try:
            python = package.interpreter(name)
            if package.version_of(python) in package.RUNTIMES:
                return python
        except package.BuildError:
            continue
    pytest.skip(
        "no interpreter of one of Lambda's versions on this machine; name one: make test RUNTIME=/path/to/python3.12")


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What goes to AWS."""
    python = runtime()
    return once(tmp_path_factory, "aws", lambda folder: package.build(folder, python))


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with this machine's wheels."""
    return once(tmp_path_factory, "here", lambda folder: package.build(folder, sys.executable, here=True))


@pytest.fixture(scope="session")
def template(here: Path) -> dict[str, Any]:
    return json.loads((here / "template.json").read_text())


def files(folder: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(folder / "deployment.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def locked() -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))


def resource(template: dict[str, Any], name: str) -> dict[str, Any]:
    return template["Resources"][name]["Properties"]


def statements(template: dict[str, Any], name: str) -> list[dict[str, Any]]:
    (policy,) = resource(template, ROLES[name])["Policies"]
    return policy["PolicyDocument"]["Statement"]


def granted(template: dict[str, Any], name: str) -> set[tuple[str, str]]:
    """(operation, kind of row) that the function may."""
    grants: set[tuple[str, str]] = set()
    for statement in statements(template, name):
        for action in statement["Action"]:
            if action.startswith("dynamodb:"):
                kinds = statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]
                grants |= {(action.removeprefix("dynamodb:"), kind) for kind in kinds}
    return grants


@dataclass
class Stack:
    """The package deployed, with one tenant's account at a simulator behind TLS."""

    endpoint: str
    outputs: dict[str, str]
    deployment: Deployment
    cloud: Qcloud
    keys: dict[str, str]
    authority: Path
    fleet: Fleet
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def environment(self) -> dict[str, str]:
        """With which boto3 finds the emulator, as the account's own user."""
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1"}

    @property
    def url(self) -> str:
        return self.outputs["URL"]

    def client(self, service: str) -> Any:
        return emulator.client(self.endpoint, service)

    def account(self, tenant: str, regions: tuple[str, ...] = ("gz",), name: str = DEFAULT_ACCOUNT) -> None:
        made = accounts.check(tenant, parties.load("qcloud"), self.keys, project=None, regions=regions, deep=False,
                              endpoint=self.cloud.url, local=False, name=name)
        accounts.put(self.deployment.store, self.deployment.sealer(), made, time.time(), replace=True)

    def token(self, *tenants: str) -> str:
        user = users.User(name=f"user-{os.urandom(4).hex()}", uid=users.new_uid(), tenants=tenants,
                          password=users.hash_password("password"))
        users.add(self.deployment.store, user)
        return canaries.watch(tokens.issue(self.deployment.store, user, tokens.Limits(), 3600, time.time())[0])

    def get(self, token: str, query: str = "?party=qcloud&tenant_id=123&region=gz&f=1&t=10", method: str = "GET",
            url: str = "") -> requests.Response:
        return self.session.request(method, (url or self.url) + query, auth=(token, "password") if token else None,
                                    timeout=60)

    def function(self, logical: str) -> dict[str, Any]:
        prefix = self.outputs["APIHandlerName"].partition("-APIHandler-")[0]
        (function,) = (it for it in self.client("lambda").list_functions()["Functions"]
                        if it["FunctionName"].startswith(f"{prefix}-{logical}-"))
        return function


@pytest.fixture(scope="session")
def stack(here_for_ministack: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("deployed")
    pem, key = tls.certificate(folder)
    keys = {"secret_id": "AKIDtest", "secret_key": canaries.secret("qcloud")}
    fleet = Fleet(25)
    with ministack(folder, rights=True) as endpoint, Qcloud({keys["secret_id"]: keys["secret_key"]},
                                                            {"ap-guangzhou": fleet}) as cloud:
        tls.wrap(cloud, pem, key)
        outputs = emulator.deploy(endpoint, here_for_ministack, "twocloud-test", trusted=pem)
        client = emulator.client(endpoint, "dynamodb")
        kms = KmsSealer(outputs["Key"].removeprefix("kms:"), emulator.client(endpoint, "kms"))
        made = Deployment(settings_in(folder, local=False),
                          DynamoStore(outputs["Store"].removeprefix("dynamodb://"), time.time, client),
                          lambda: kms, OnFirstUse(lambda: Transport(trusted=str(pem))), time.time)
        deployed = Stack(endpoint, outputs, made, cloud, keys, pem, fleet)
        deployed.account("123")
        yield deployed
        deployed.session.close()
        made.close()


@pytest.fixture(scope="session")
def here_for_ministack(here: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniStack runs functions under its own interpreter: of another version than ours, it needs other wheels."""
    python = str(ROOT / ".tools/ministack/bin/python")
    if package.version_of(python) == package.version_of(sys.executable):
        return here
    return once(tmp_path_factory, "ministack", lambda folder: package.build(folder, python, here=True))


def wait(what: Callable[[], Any], seconds: float) -> Any:
    until = time.monotonic() + seconds
    while not (result := what()):
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.5)
    return result


def kept(stack: Stack, tenant: str) -> snapshots.Head | None:
    revision = accounts.find(stack.deployment.store, tenant, "qcloud").revision
    return snapshots.find(stack.deployment.store, Source(tenant, "qcloud", "ap-guangzhou"), revision)


@pytest.fixture(scope="session")
def task(here: Path, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    with zipfile.ZipFile(here / "deployment.zip") as archive:
        archive.extractall(folder)
    with (folder / "certifi/cacert.pem").open("ab") as trusted:
        trusted.write(stack.authority.read_bytes())
    return folder


@contextmanager
def started(stack: Stack, task: Path, logical: str, folder: Path, **more: str) -> Iterator[Function]:
    """The function with the variables, handler and time that the deployed one has."""
    configuration = stack.function(logical)
    assert configuration["Handler"] == FUNCTIONS[logical]
    variables = {**configuration["Environment"]["Variables"], **stack.environment, **more}
    with Function(task, configuration["Handler"], variables, configuration["Timeout"], folder) as function:
        yield function

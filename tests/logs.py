"""An app with everything that is logged happening in it: the lines, by the log group that holds them on AWS."""

import json
import logging
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto import mock_aws

import app as functions
from chalicelib import log, parties
from chalicelib.access import accounts
from chalicelib.fleet import schedule
from tests.fixtures import App, qcloud_keys
from tests.http.test_app import Context, basic, event

TICK = {"version": "0", "account": "1", "region": "us-east-1", "detail": {}, "detail-type": "Scheduled Event",
        "source": "aws.events", "time": "2026-11-23T00:00:00Z", "id": "x", "resources": []}
GZ = {"party": ["qcloud"], "tenant_id": ["123"], "region": ["gz"]}


@contextmanager
def heard() -> Generator[list[str]]:
    """The lines that are written in the block, while it runs."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Kept()
    handler.setFormatter(log.Lines())
    log.logger.addHandler(handler)
    try:
        yield lines
    finally:
        log.logger.removeHandler(handler)


def read(lines: list[str], event: str | None = None) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in lines]
    return [line for line in events if event in (None, line["event"])]


class Run(Context):
    """A run of a function, as Lambda names it."""

    def __init__(self, milliseconds: int = 28_000) -> None:
        super().__init__(milliseconds)
        self.aws_request_id = str(uuid.uuid4())


def get(app: App, token: str | None = None, path: str = "/twocloud/servers", method: str = "GET",
        query: dict[str, list[str]] | None = GZ) -> int:
    request = event(path, basic(app.token if token is None else token), method, query)
    request["requestContext"]["requestId"] = str(uuid.uuid4())
    return functions.app(request, Run())["statusCode"]


def put(app: App, tenant: str, regions: tuple[str, ...], keys: dict[str, str] | None = None) -> None:
    """Its keys are wrong unless they are given."""
    made = accounts.check(tenant, parties.load("qcloud"), keys or qcloud_keys(), project=None, regions=regions,
                          deep=False,
                          endpoint=app.clouds["qcloud"].url, local=True)
    accounts.put(app.deployment.store, app.deployment.sealer(), made, app.clock(), replace=True)


def record(body: str, run_id: str | None = None, message_id: str = "m") -> dict[str, Any]:
    """A message as the queue hands it to the worker."""
    attributes = {"run_id": {"stringValue": run_id, "dataType": "String"}} if run_id else {}
    return {"messageId": message_id, "receiptHandle": "r", "body": body, "messageAttributes": attributes}


def live(app: App, patch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Requests that go well, are refused, throttled and broken; refreshes of all kinds; runs of the schedule."""
    functions.use(app.deployment)
    qcloud = app.clouds["qcloud"]
    with heard() as api:
        assert get(app) == get(app) == get(app, path="/twocloud/parties", query=None) == 200
        assert get(app, query={**GZ, "tenant_id": ["7"]}) == 403
        assert get(app, token="tc_wrong") == 401
        assert get(app, query={**GZ, "party": ["qcloud,aws"], "region": ["all"],
                                 "on_error": ["partial"]}) in (200, 404)
        app.user("pia", password="password")
        assert get(app, "pia", "/twocloud/tokens", "POST", None) == 200
        for fault, status in (("403", 502), ("429 for six hours", 503)):
            qcloud.fail(fault)
            assert get(app, query={**GZ, "on_error": ["fail"]}) == status
            qcloud.forget()
        put(app, "wrong", ("gz",))
        wrong = app.issue(app.user("eve", tenants=("wrong",)))
        assert get(app, wrong, query={**GZ, "tenant_id": ["wrong"]}) == 502
        with patch.context() as broken:
            broken.setattr(type(app.deployment.store), "get", lambda *_: 1 / 0)
            assert get(app) == 500
    with heard() as work:
        def refresh(source: tuple[str, str, str], due: float) -> None:
            body = schedule.write(schedule.Message(*source, due))
            functions.work({"Records": [record(body, "run-1", f"m-{len(work)}")]}, Run())

        app.clock.forward(60)
        refresh(("123", "qcloud", "ap-guangzhou"), app.clock())
        refresh(("123", "qcloud", "ap-guangzhou"), 0.0)         # nothing to do
        refresh(("wrong", "qcloud", "ap-guangzhou"), app.clock())
        qcloud.fail("429 for six hours")
        refresh(("123", "qcloud", "ap-shanghai"), app.clock())
        qcloud.forget()
        functions.work({"Records": [record("poison", "run-1", "m-poison")]}, Run())
    with heard() as spread, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client: Any = boto3.client("sqs")
        client.create_queue(QueueName=app.deployment.settings.queue)
        functions.spread(TICK, Run())
        app.clock.forward(7200)
        functions.spread(TICK, Run())
    return {"ApiLog": api, "WorkLog": work, "SpreadLog": spread}

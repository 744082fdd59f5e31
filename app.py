"""The Lambda entry: binds paths and authorizer to what is below; nothing else knows the framework.

The handlers are `app.app`, `chalicelib.http.authorizer.authorize`, `app.spread` (the schedule) and `app.work` (the
queue's).
"""

import time
import uuid
from functools import cache, partial
from typing import Any, cast

from chalice.app import Chalice, CloudWatchEvent, Rate, Request, Response, SQSEvent

from chalicelib import log, settings
from chalicelib.concurrency import run_all
from chalicelib.errors import TwocloudError
from chalicelib.fleet import schedule
from chalicelib.fleet.many_sources import REQUEST_SECONDS, Deployment, open_deployment
from chalicelib.http import api, authorizer, forwarding
from chalicelib.model import Source
from chalicelib.storage import amazon

MARGIN_SECONDS = 2.0                       # before Lambda ends the function


class _App(Chalice):
    """Chalice fails on an event with a null where it expects an object (API Gateway's test console sends some), and
    answers in an envelope of its own. So it gets complete events, for paths and methods that it knows.
    """

    def __call__(self, event: object, context: Any) -> dict[str, Any]:
        known = _complete(event)
        route, method = known["requestContext"]["resourcePath"], known["requestContext"]["httpMethod"]
        if method in self.routes.get(route, {}):
            return super().__call__(known, context)
        return _answer(route, Request(known, context)).to_dict()


def _complete(event: object) -> dict[str, Any]:
    """The event of a Lambda proxy integration with every key that it can have, and nothing null inside."""
    request = _object(event)
    context = _object(request.get("requestContext"))
    context["resourcePath"] = _first_text(context.get("resourcePath"), request.get("resource"), request.get("path"))
    context["httpMethod"] = _first_text(context.get("httpMethod"), request.get("httpMethod"))
    body = request.get("body")
    return {
        **request, "requestContext": context, "body": body if isinstance(body, str) else None,
        "isBase64Encoded": request.get("isBase64Encoded") is True, "pathParameters": None, "stageVariables": None,
        "headers": {**{name: str(values[-1]) for name, values in _lists(request.get("multiValueHeaders")).items()},
                    **{name: str(value) for name, value in _object(request.get("headers")).items()}},
        "multiValueQueryStringParameters": {
            **{name: [str(value)] for name, value in _object(request.get("queryStringParameters")).items()},
            **_lists(request.get("multiValueQueryStringParameters"))} or None}


def _first_text(*values: object) -> str:
    return next((value for value in values if isinstance(value, str)), "")


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {}
    return {str(name): it for name, it in cast(dict[object, Any], value).items() if it is not None}


def _lists(value: object) -> dict[str, list[str]]:
    lists = {name: [str(it) for it in cast(list[object], values) if it is not None]
             for name, values in _object(value).items() if isinstance(values, list)}
    return {name: values for name, values in lists.items() if values}


app = _App("twocloud", configure_logs=False)
app.log = log.logger
app.register_blueprint(authorizer.bp)
log.start()


@cache
def _from_environment() -> Deployment:
    made = open_deployment(settings.load())
    if made.settings.in_lambda:
        made.later.send = partial(_send, made.settings.queue)
    return made


def _send(queue: str, source: Source, due: float) -> None:
    """Put one message into the queue: a caller has caused a listing."""
    client = amazon.client("sqs", attempts=2)
    client.send_message(QueueUrl=client.get_queue_url(QueueName=queue)["QueueUrl"],
                        MessageBody=schedule.write(schedule.message_of(source, due)))


_deployment = _from_environment


def use(deployment: Deployment) -> None:
    """Use this deployment instead of the one that the environment describes."""
    def given() -> Deployment:
        return deployment

    global _deployment
    _deployment = given
    authorizer.use(deployment.store, deployment.clock)


def _answer(route: str, request: Request) -> Response:
    request_id = str(request.context.get("requestId") or uuid.uuid4())
    with log.about(request_id=request_id, function_request_id=_own_id(request.lambda_context)):
        try:
            response = api.answer(_deployment, route, _read(route, request, request_id))
        except Exception:                   # an event that cannot be read
            log.failure()
            response = api.refused(TwocloudError(), request_id)
    return Response(response.body.decode(), {**response.headers}, response.status)


def _read(route: str, request: Request, request_id: str) -> api.HttpRequest:
    event: dict[str, Any] = request.to_original_event()
    many: dict[str, list[str]] = event["multiValueQueryStringParameters"] or {}
    headers: dict[str, str] = event["headers"]
    raw = request.raw_body
    lower = {name.lower(): value for name, value in headers.items()}
    origin = forwarding.origin_of(str(_object(request.context.get("identity")).get("sourceIp", "")), lower,
                                  _deployment().settings.trusted_proxies)
    return api.HttpRequest(
        method=request.method,
        path=route if origin.prefix else str(request.context.get("path") or route),     # which begins with the stage
        pairs=[(name, value) for name, values in many.items() for value in values],
        headers=lower,
        body=raw.encode() if isinstance(raw, str) else raw,
        request_id=request_id,
        proof=str(_object(request.context.get("authorizer")).get(authorizer.PROOF, "")),
        deadline=time.monotonic() + _seconds_left(request.lambda_context),
        prefix=origin.prefix, client=origin.address)


def _own_id(context: object) -> str | None:
    """Lambda's name for this run of the function: that of its REPORT line."""
    return getattr(context, "aws_request_id", None)


def _seconds_left(context: object, most: float = REQUEST_SECONDS) -> float:
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    return min(most, remaining() / 1000 - MARGIN_SECONDS) if remaining else most


# ---------------------------------------------------------------- the schedule and the queue

@app.schedule(Rate(schedule.RUN_EVERY // 60, unit=Rate.MINUTES))
def spread(event: CloudWatchEvent) -> dict[str, int]:
    """Put a message for each list that is due into the queue, ten at a time."""
    # in an attribute, not in the body: a worker of another version, before or after an update, reads the body as ever
    run_id = _own_id(event.context) or str(uuid.uuid4())
    attributes = {"run_id": {"DataType": "String", "StringValue": run_id}}
    client = amazon.client("sqs", attempts=3)
    deployment = _deployment()
    with log.about(run_id=run_id):
        url = client.get_queue_url(QueueName=deployment.settings.queue)["QueueUrl"]
        survey = schedule.survey(deployment)
        waiting = list(schedule.messages(deployment, waiting=survey.messages))

        def send(at: int) -> int:
            answer: dict[str, Any] = client.send_message_batch(QueueUrl=url, Entries=[
                {"Id": str(n), "MessageBody": schedule.write(message), "DelaySeconds": delay,
                 "MessageAttributes": attributes}
                for n, (message, delay) in enumerate(waiting[at:at + 10])])
            for failed in answer.get("Failed", []):
                log.logger.error("message not sent", extra={"fields": {"code": failed["Code"]}})
            return len(answer.get("Successful", []))            # neither list is there if it is empty

        batches = range(0, len(waiting), 10)                    # ten: the most that SQS takes at once
        # side by side, or 10,000 calls one after another pass the function's time
        sent = sum(run_all([lambda at=at: send(at) for at in batches], 8))
        schedule.finish(deployment, survey, schedule.RUN_EVERY, messages=sent)
    return {"messages": sent}


@app.on_sqs_message(queue=settings.SETTINGS["TWOCLOUD_QUEUE"][0], batch_size=1)    # the template names its own queue
def work(event: SQSEvent) -> dict[str, list[dict[str, str]]]:
    """Refresh what the messages name. Those that we could not work on are named, and come again."""
    failed: list[dict[str, str]] = []
    deadline = time.monotonic() + _seconds_left(event.context, schedule.REFRESH_SECONDS)
    for record in event.to_dict()["Records"]:
        run = record.get("messageAttributes", {}).get("run_id", {}).get("stringValue")
        with log.about(run_id=run, message_id=record["messageId"], function_request_id=_own_id(event.context)):
            try:
                schedule.work_on(_deployment(), schedule.read(record["body"]), deadline)
            except Exception:
                log.failure()
                failed.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failed}


# ---------------------------------------------------------------- the routes

def _bind(route: str, name: str) -> None:
    """The route's own methods behind the authorizer (or open), every other method to a plain 405."""
    def view() -> Response:
        return _answer(route, cast(Request, app.current_request))

    own = list(api.ROUTES[route])
    others = [method for method in api.METHODS if method not in own]
    guard = {} if route in api.OPEN_ROUTES else {"authorizer": authorizer.authorize}
    app.route(route, methods=own, name=name, content_types=[], **guard)(view)
    app.route(route, methods=others, name=f"no_{name}", content_types=[])(view)


for _route in api.ROUTES:
    _bind(_route, _route.removeprefix("/").replace("/", "_").replace(".", "_"))

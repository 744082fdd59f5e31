"""API Gateway in front of functions under Amazon's runtime client, both as the template describes them.

Written from AWS's documents: routes, the TOKEN authorizer with its policy and the cache of it, gateway responses,
compression, renamed and dropped headers, limits of size, time and concurrency, the throttle. It shows that we agree
with the documents, not how AWS behaves.
https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-known-issues.html
"""

import base64
import fnmatch
import gzip
import json
import re
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from deploy.ministack import Function

_LARGEST_ANSWER, _LARGEST_REQUEST, _SECONDS = 6 * 1024 * 1024, 10 * 1024 * 1024, 29
_RENAMED = {"authorization", "connection", "content-md5", "date", "max-forwards", "server", "user-agent",
            "www-authenticate"}
_DROPPED = {"expect", "host", "proxy-authenticate", "te", "trailer", "transfer-encoding", "upgrade", "via"}
_API = "arn:aws:execute-api:us-east-1:123456789012:local"

Headers = list[tuple[str, str]]


class Answer(NamedTuple):
    status: int
    headers: Headers
    body: bytes


class Invoked(NamedTuple):
    """One run of a function. `cold`: seconds that its start took first, 0 if it was warm. `took`: seconds that are
    billed."""

    cold: float
    took: float
    failed: bool


class Throttled(Exception):
    """As many of the function's environments are at work as it may have."""


class _Refused(Exception):
    """The gateway answers by itself, with its response of this kind."""


class Pool:
    """The execution environments of one function; `most` at a time. `log`: what ran."""

    def __init__(self, start: Callable[[], Function], most: int) -> None:
        self._start, self._most = start, most
        self._idle: list[Function] = []
        self._lock = threading.Lock()
        self.all: list[Function] = []
        self.log: list[Invoked] = []
        self._busy = 0

    def invoke(self, event: dict[str, Any]) -> Any:
        """Raises Throttled, or RuntimeError with what the function raised."""
        with self._lock:
            if self._busy >= self._most:
                raise Throttled
            self._busy += 1
            warm = self._idle.pop() if self._idle else None
        function = warm or self._start()
        try:
            if not warm:
                self.all.append(function)
                function.wait()
            failed = True
            try:
                answer = function.invoke(event)
                failed = False
                return answer
            finally:
                self.log.append(Invoked(0.0 if warm else function.started, function.took, failed))
        finally:
            with self._lock:
                self._busy -= 1
                if function.alive:
                    self._idle.append(function)         # the last one that was at work is the next

    def close(self) -> None:
        for function in self.all:
            function.close()


class _Bucket:
    """Of tokens, one for each request; `rate` of them a second."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst, self._tokens, self._filled = rate, burst, float(burst), time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        with self._lock:
            now = time.monotonic()
            self._tokens, self._filled = min(self._burst, self._tokens + (now - self._filled) * self._rate), now
            taken = self._tokens >= 1
            self._tokens -= taken
            return taken


class Gateway:
    """`pools`: by the functions' names in the template. `limited`: the template's throttle is on."""

    def __init__(self, template: dict[str, Any], pools: dict[str, Pool], limited: bool = False) -> None:
        (api,) = (it["Properties"] for it in template["Resources"].values() if it["Type"] == "AWS::Serverless::Api")
        self._pools, self._stage, self._described = pools, api["StageName"], api["DefinitionBody"]
        self._compress_from = api["MinimumCompressionSize"]
        self._limited = limited
        self._buckets = {(it["ResourcePath"].replace("/~1", "/").replace("~1", "/"), it["HttpMethod"]):
                         _Bucket(it["ThrottlingRateLimit"], it["ThrottlingBurstLimit"]) for it in api["MethodSettings"]}
        self._policies: dict[str, tuple[float, dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(256)
        self._server = _Server(("127.0.0.1", 0), self._front())
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/{self._stage}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._workers.shutdown(wait=False)
        for pool in self._pools.values():
            pool.close()

    # ---------------------------------------------------------------- a request

    def _handle(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        request_id = str(uuid.uuid4())
        try:
            return self._answer(method, target, headers, body, request_id)
        except _Refused as refused:
            return self._refuse(refused.args[0], request_id)

    def _answer(self, method: str, target: str, headers: dict[str, str], body: bytes, request_id: str) -> Answer:
        there = urlsplit(target)
        path = there.path.removeprefix(f"/{self._stage}")
        route = path.rstrip("/") or "/"
        operation = self._described["paths"].get(route, {}).get(method.lower())
        if operation is None or path == there.path:
            # with an Authorization header, AWS takes it for a signature of its own
            raise _Refused("DEFAULT_4XX" if "authorization" in headers else "MISSING_AUTHENTICATION_TOKEN")
        if len(body) > _LARGEST_REQUEST:
            raise _Refused("REQUEST_TOO_LARGE")
        bucket = self._buckets.get((route, method)) or self._buckets["/*", "*"]
        if self._limited and not bucket.take():
            raise _Refused("THROTTLED")
        context = {"resourcePath": route, "httpMethod": method, "path": there.path, "stage": self._stage,
                   "requestId": request_id, "identity": {"sourceIp": "127.0.0.1"}}
        if operation.get("security"):
            arn = f"{_API}/{self._stage}/{method}{path}"
            context["authorizer"] = self._authorize(arn, headers.get("authorization", ""))
        pairs = parse_qsl(there.query, keep_blank_values=True)
        many: dict[str, list[str]] = defaultdict(list)
        for name, value in pairs:
            many[name].append(value)
        binary = headers.get("content-type", "") in self._described["x-amazon-apigateway-binary-media-types"]
        text = base64.b64encode(body).decode() if binary else body.decode("utf-8", "replace")
        event = {"resource": route, "path": path, "httpMethod": method, "headers": headers,
                 "multiValueHeaders": {name: [value] for name, value in headers.items()},
                 "queryStringParameters": dict(pairs) or None, "multiValueQueryStringParameters": many or None,
                 "pathParameters": None, "stageVariables": None, "body": text or None,
                 "isBase64Encoded": bool(text and binary), "requestContext": context}
        return self._translate(self._call(operation, event), headers)

    def _pool(self, uri: dict[str, str]) -> Pool:
        match = re.search(r"functions/\$\{(\w+)\.Arn\}", uri["Fn::Sub"])
        assert match
        return self._pools[match[1]]

    def _authorize(self, arn: str, header: str) -> dict[str, str]:
        guard = self._described["securityDefinitions"]["authorize"]["x-amazon-apigateway-authorizer"]
        if not re.fullmatch(guard["identityValidationExpression"], header):
            raise _Refused("UNAUTHORIZED")
        until, policy = self._policies.get(header, (0.0, {}))
        if until <= time.monotonic():
            try:
                policy = self._pool(guard["authorizerUri"]).invoke(
                    {"type": "TOKEN", "methodArn": arn, "authorizationToken": header})
            except Throttled:
                raise _Refused("AUTHORIZER_FAILURE") from None
            except RuntimeError as raised:
                said_no = raised.args == ("Exception: Unauthorized",)
                raise _Refused("UNAUTHORIZED" if said_no else "AUTHORIZER_FAILURE") from None
            self._policies[header] = time.monotonic() + guard["authorizerResultTtlInSeconds"], policy
        effects = {row["Effect"] for row in policy["policyDocument"]["Statement"]
                   for allowed in row["Resource"] if fnmatch.fnmatchcase(arn, allowed)}
        if effects != {"Allow"}:
            raise _Refused("ACCESS_DENIED")
        return {**{name: str(value) for name, value in policy["context"].items()}, "principalId": policy["principalId"]}

    def _call(self, operation: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
        running = self._workers.submit(self._pool(operation["x-amazon-apigateway-integration"]["uri"]).invoke, event)
        try:
            answer = running.result(_SECONDS)
        except TimeoutError:
            raise _Refused("INTEGRATION_TIMEOUT") from None
        except (Throttled, RuntimeError):
            raise _Refused("DEFAULT_5XX") from None
        if len(json.dumps(answer).encode()) > _LARGEST_ANSWER or not isinstance(answer.get("statusCode"), int):
            raise _Refused("DEFAULT_5XX")
        return answer

    def _translate(self, answer: dict[str, Any], sent_headers: dict[str, str]) -> Answer:
        body = (answer.get("body") or "").encode()
        headers = [(f"x-amzn-Remapped-{name}" if name.lower() in _RENAMED else name, str(value))
                   for name, value in answer["headers"].items() if name.lower() not in _DROPPED]
        if len(body) >= self._compress_from and "gzip" in sent_headers.get("accept-encoding", ""):
            body = gzip.compress(body, 6)
            headers.append(("Content-Encoding", "gzip"))
        if not any(name.lower() == "content-type" for name, _ in headers):
            headers.append(("Content-Type", "application/json"))
        return Answer(answer["statusCode"], headers, body)

    def _refuse(self, kind: str, request_id: str) -> Answer:
        response = self._described["x-amazon-apigateway-gateway-responses"][kind]
        headers = [("Content-Type", "application/json")]
        for name, value in response["responseParameters"].items():
            header = name.removeprefix("gatewayresponse.header.")
            if not isinstance(value, str):              # Fn::If HasOrigins: there is none
                value = value["Fn::If"][2]
                if value == {"Ref": "AWS::NoValue"}:
                    continue
            headers.append((header, request_id if value == "context.requestId" else value[1:-1]))
        body = response["responseTemplates"]["application/json"].replace("$context.requestId", request_id)
        return Answer(int(response["statusCode"]), headers, body.encode())

    # ---------------------------------------------------------------- the wire

    def _front(self) -> type[BaseHTTPRequestHandler]:
        gateway = self

        class Front(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = gateway._handle(self.command, self.path, headers, body)
                self.send_response_only(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                if answer.status not in (204, 304):
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD" and answer.status not in (204, 304):
                    self.wfile.write(answer.body)

            def __getattr__(self, name: str) -> Any:            # any method, known or not
                if name.startswith("do_"):
                    return self._serve
                raise AttributeError(name)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Front


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

"""The simulator clouds, each in a process of its own, so that their work is not counted as anybody's.

They check signatures and rates as in the tests; what they answer is written once and kept, so that a slow simulator
does not hide a difference between those who call it. A process ends when its standard input does.
"""

import hashlib
import json
import logging
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Self
from urllib.parse import parse_qsl

from benchmarks.keys import CREDENTIALS, REGION
from benchmarks.measure import ROOT, Round, in_child


class Cloud:
    """A simulator at `url`. `details`: what it printed when it was ready. A context manager that ends it."""

    def __init__(self, kind: str, **options: Any) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", __spec__.name, kind, json.dumps(options)], cwd=ROOT,
                                         text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.details: dict[str, Any] = self._read()
        self.url: str = self.details["url"]

    def calls(self) -> dict[str, int]:
        """How many calls of each operation arrived since this was last asked."""
        assert self._process.stdin
        self._process.stdin.write("calls\n")
        self._process.stdin.flush()
        return self._read()

    def side(self, target: str, **arguments: Any) -> Callable[[], Round]:
        """A side of `in_turn`: one round of `target` in a fresh process, with the calls that arrived here."""
        def measured() -> Round:
            self.calls()
            return {**in_child("benchmarks.measure:work", {"side": target, "arguments": arguments}),
                    "calls": self.calls()}

        return measured

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


# ---------------------------------------------------------------- in the process of its own

def _qcloud(size: int, latency: float = 0.0, limited: bool = True, accounts: int = 0) -> Any:
    """`accounts`: so many more keys that open it, AKIDbenchmark0 and so on."""
    import msgspec

    from chalicelib.parties.qcloud.simulator import Qcloud
    from chalicelib.simulators.fleet import Fleet, Machine

    class Prepared(Qcloud):
        def _row(self, machine: Machine, region: str) -> Any:
            if machine.number not in written:
                written[machine.number] = msgspec.Raw(msgspec.json.encode(super()._row(machine, region)))
            return written[machine.number]

    written: dict[int, msgspec.Raw] = {}
    fleet, keys = Fleet(size), CREDENTIALS["qcloud"]
    ids = [keys["secret_id"], *(f"{keys['secret_id']}{number}" for number in range(accounts))]
    cloud = Prepared(dict.fromkeys(ids, keys["secret_key"]), {REGION["qcloud"]: fleet}, limited=limited,
                     latency=latency)
    for number in range(size):
        cloud._row(fleet[number], REGION["qcloud"])
    return cloud


def _aws(size: int, latency: float = 0.0, limited: bool = True) -> Any:
    from chalicelib.parties.aws.simulator import Aws
    from chalicelib.simulators.fleet import Fleet
    from chalicelib.simulators.server import Call

    class Prepared(Aws):
        """Knows as well what Libcloud does: calls by GET, and asks for elastic addresses, of which there are none."""

        def operation(self, call: Call) -> str:
            return dict(parse_qsl((call.body or call.query.encode()).decode())).get("Action", "?")

        def _answer(self, call: Call, query: dict[str, str]) -> str:
            query = query or dict(parse_qsl(call.query))
            if query.get("Action") == "DescribeAddresses":
                self.check_signature(call)
                return ('<DescribeAddressesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
                        "<addressesSet/></DescribeAddressesResponse>")
            return super()._answer(call, query)

        def _instances(self, query: dict[str, str], *rest: Any) -> str:
            return once(query, lambda: super(Prepared, self)._instances(query, *rest))

        def _volumes(self, query: dict[str, str], *rest: Any) -> str:
            return once(query, lambda: super(Prepared, self)._volumes(query, *rest))

    def once(query: Mapping[str, str], write: Callable[[], str]) -> str:
        name = json.dumps(query, sort_keys=True)
        if name not in written:
            written[name] = write()
        return written[name]

    written: dict[str, str] = {}
    keys = CREDENTIALS["aws"]
    return Prepared({keys["access_key_id"]: keys["secret_access_key"]}, {REGION["aws"]: Fleet(size)},
                    limited=limited, latency=latency)


def _party(party: str, size: int, latency: float = 0.0, limited: bool = False) -> Any:
    """Any party's simulator, by its name; `details` says with which credentials and where."""
    from chalicelib import simulators
    from chalicelib.simulators.faults import Answer
    from chalicelib.simulators.fleet import Fleet
    from chalicelib.simulators.server import Call

    entry = simulators.clouds()[party]
    cloud, credentials = entry.start({entry.region: Fleet(size)}, "benchmarksecret0123456789abcdef", limited=limited,
                                     latency=latency)
    answer, kept = cloud.answer, dict[tuple[str, ...], Answer]()

    def once(call: Call) -> Answer:
        """Checked when it is first asked; the same question is then given the same answer."""
        if call.operation in ("Login", "AssumeRole") or party == "vsphere":     # a session holds what is read next
            return answer(call)
        name = call.operation, call.method, call.path, call.query, call.body.decode("latin-1")
        if name not in kept:
            kept[name] = answer(call)
        return kept[name]

    cloud.answer, cloud.details = once, {"credentials": credentials, "region": entry.region}
    return cloud


class _Dynamodb:
    """moto's server with the table, a user and a token; `details` says which."""

    def __init__(self, table: str, region: str) -> None:
        import boto3
        from moto.server import ThreadedMotoServer

        from chalicelib.access import tokens, users
        from chalicelib.storage.dynamodb import DynamoStore
        from deploy.ministack import TABLE

        logging.getLogger("werkzeug").setLevel(logging.ERROR)   # or each call is a line
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        client = boto3.client("dynamodb", region_name=region, endpoint_url=self.url, aws_access_key_id="benchmark",
                              aws_secret_access_key="benchmark")
        client.create_table(TableName=table, **TABLE)
        store = DynamoStore(table, time.time, client)
        user = users.User(name="benchmark", uid=users.new_uid(), tenants=("*",), created_at=int(time.time()))
        users.add(store, user)
        text, _ = tokens.issue(store, user, tokens.Limits(), 3600, time.time())
        self.details = {"token": text, "token_key": hashlib.sha256(text.encode()).hexdigest(), "user": user.name}
        self.calls: list[Any] = []

    def close(self) -> None:
        self._server.stop()


def _serve(kind: str, options: Mapping[str, Any]) -> None:
    cloud = {"qcloud": _qcloud, "aws": _aws, "party": _party, "dynamodb": _Dynamodb}[kind](**options)
    print(json.dumps({"url": cloud.url, **getattr(cloud, "details", {})}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(Counter(call.operation for call in cloud.calls)), flush=True)
        cloud.calls.clear()
    cloud.close()


if __name__ == "__main__":
    _serve(sys.argv[1], json.loads(sys.argv[2]))

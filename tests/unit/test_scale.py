"""The page on scale: its figures are those of the benchmark, and what it reckons with is what the program does."""

import json
from collections.abc import Iterator
from typing import Any

from benchmarks import load
from tests import ROOT
from tests.fixtures import App


class Counting:
    """A store that counts what DynamoDB would charge: a read 4 KB, a write 1 KB; a list as a whole."""

    def __init__(self, store: Any) -> None:
        self._store, self.reads, self.writes = store, 0, 0

    def get(self, kind: str, key: str) -> Any:
        row = self._store.get(kind, key)
        self.reads += -(-len(row.value) // 4096) if row else 1
        return row

    def list(self, kind: str, prefix: str = "") -> Iterator[Any]:
        rows = list(self._store.list(kind, prefix))
        self.reads += max(1, -(-sum(len(row.value) for _, row in rows) // 4096))
        return iter(rows)

    def put(self, kind: str, key: str, value: bytes, **more: Any) -> None:
        self.writes += -(-len(value) // 1024) or 1
        self._store.put(kind, key, value, **more)

    def delete(self, kind: str, *keys: str) -> None:
        self.writes += len(keys)
        self._store.delete(kind, *keys)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_the_units_of_a_request_are_those_that_it_takes(served: App) -> None:
    from chalicelib.simulators.fleet import Fleet

    cloud: Any = served.clouds["qcloud"]
    cloud.rates.clear()
    cloud.fleets |= {"ap-guangzhou": Fleet(load.SERVERS), "ap-shanghai": Fleet(load.SERVERS, "sh")}
    store = Counting(served.deployment.store)
    object.__setattr__(served.deployment, "store", store)
    found = {}
    for kind, (_, query) in load.KINDS.items():
        query = f"party=qcloud&tenant_id={'7' if kind == 'refused' else '123'}&{query}"
        headers = {"If-None-Match": served.get(query).headers["ETag"]} if kind == "unchanged" else {}
        served.get(query)                   # the first time of all writes more: interest, the first list
        store.reads = store.writes = 0
        assert served.get(query, headers=headers).status_code == {"unchanged": 304, "refused": 403}.get(kind, 200)
        found[kind] = (store.reads, store.writes)      # the authorizer reads from the store that is below
    assert found == load.STORE


def test_the_functions_have_the_memory_that_is_reckoned_with() -> None:
    config = json.loads((ROOT / ".chalice/config.json").read_text())
    own = config["stages"]["prod"]["lambda_functions"]
    assert load.MEMORY["APIHandler"] * 1024 == own["api_handler"]["lambda_memory_size"]
    assert load.MEMORY["Authorize"] * 1024 == own["authorize"].get("lambda_memory_size", config["lambda_memory_size"])

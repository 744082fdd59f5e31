"""What workers show one another of what they did."""

import multiprocessing
import threading
import time
from contextlib import ExitStack

import pytest

from chalicelib.access.tokens import Caller, Token
from chalicelib.access.users import User
from chalicelib.cloud.calls import Call
from chalicelib.fleet import counters as counters_module
from chalicelib.fleet.counters import CALL_SECONDS, REQUEST_SECONDS, Counters, SharedMemory

EVERYTHING = Caller(Token(token_id="", user="eve", uid=""), User(name="eve", uid="", tenants=("*",)))


def call(tenant: str, milliseconds: float, error: str = "") -> Call:
    return Call(tenant, "qcloud", "default", "ap-guangzhou", "list", 0.0, 0.0, milliseconds, error=error)


def test_each_duration_is_in_the_bucket_that_prometheus_means() -> None:
    """An upper bound belongs to its bucket."""
    one = Counters()
    for seconds in (0.0, 0.005, 0.0051, 25.0, 25.1):
        one.add_request("eve", "/x", 200, seconds)
    for milliseconds in (50.0, 51.0, 10_000.0, 11_000.0):
        one.add_call(call("1", milliseconds))
    assert one.requests(EVERYTHING).durations == [2, 1, *[0] * (len(REQUEST_SECONDS) - 3), 1, 1]
    assert one.calls(EVERYTHING)["qcloud"].durations == [1, 1, *[0] * (len(CALL_SECONDS) - 3), 1, 1]
    assert one.calls(EVERYTHING)["qcloud"].seconds == pytest.approx(21.101)


def test_every_worker_counts_for_all(stack: ExitStack) -> None:
    shared = SharedMemory(3)
    workers = [Counters(shared, number) for number in range(3)]
    for worker in workers:
        stack.callback(worker.close)
    for number, worker in enumerate(workers):
        for _ in range(number + 1):
            worker.add_request("eve", "/x", 200, 0.1)
            worker.add_call(call(f"tenant-{number}", 10.0, "party_denied"))
        assert worker.requests(EVERYTHING).count == {("/x", 200): (1, 3, 6)[number]}
        assert worker.calls(EVERYTHING)["qcloud"].count == {"party_denied": (1, 3, 6)[number]}
    narrow = Caller(Token(token_id="", user="bob", uid=""), User(name="bob", uid="", tenants=("tenant-1",)))
    assert workers[2].calls(narrow)["qcloud"].count == {"party_denied": 2}
    assert workers[2].requests(narrow).count == {}


@pytest.mark.slow
def test_counts_that_are_read_while_they_are_written_are_whole() -> None:
    """A fork writes without a pause: what is read is one of its texts, never half of two."""
    shared = SharedMemory(2)
    texts = [bytes([letter]) * size for letter, size in ((65, 400_000), (66, 300_000), (67, 10))]
    stop = multiprocessing.get_context("fork").Event()

    def write() -> None:
        while not stop.is_set():
            for text in texts:
                shared.write(1, text)

    process = multiprocessing.get_context("fork").Process(target=write, daemon=True)
    process.start()
    contents, ends = set[bytes](), time.monotonic() + 60
    try:
        while not contents.issuperset(texts):
            contents |= {shared.read(1) for _ in range(50)} - {b""}             # before the fork has begun
            assert contents <= {*texts}
            assert time.monotonic() < ends
    finally:
        stop.set()
        process.join(20)


def test_counts_too_large_to_be_shown_are_logged_and_answers_go_on(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stack: ExitStack) -> None:
    monkeypatch.setattr(counters_module, "_PART", 300)
    shared = SharedMemory(2)
    one, two = Counters(shared, 0), Counters(shared, 1)
    for worker in (one, two):
        stack.callback(worker.close)
    two.add_request("eve", "/x", 200, 0.1)
    assert two.requests(EVERYTHING).count == {("/x", 200): 1}
    for number in range(99):
        one.add_request(f"user-{number}", "/x", 200, 0.1)
    assert one.requests(EVERYTHING).count == {("/x", 200): 100}
    assert two.requests(EVERYTHING).count == {("/x", 200): 1}
    assert "failure" in caplog.messages


def test_threads_lose_no_count() -> None:
    one = Counters()

    def work() -> None:
        for _ in range(2000):
            one.add_request("eve", "/x", 200, 0.1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one.requests(EVERYTHING).count == {("/x", 200): 16_000}
    assert sum(one.requests(EVERYTHING).durations) == 16_000

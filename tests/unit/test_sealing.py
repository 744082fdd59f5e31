"""Sealing: opens under the same context and key alone, with a file and with KMS."""

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from chalicelib.access.sealing import KmsSealer, LocalSealer, Sealer, open_sealer
from chalicelib.errors import Internal, InvalidParameter, SettingsError
from tests.canaries import secret
from tests.unit.test_stores import AWS

HERE = {"tenant": "123", "party": "qcloud", "purpose": "credentials"}


@pytest.fixture(params=["file", "moto", "ministack"])
def sealer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sealer]:
    if request.param == "file":
        yield LocalSealer.of_file(tmp_path / "key")
    elif request.param == "moto":
        with mock_aws():
            client = boto3.client("kms", **AWS)
            yield KmsSealer(client.create_key()["KeyMetadata"]["KeyId"], client)
    else:
        client = boto3.client("kms", endpoint_url=request.getfixturevalue("server_url"), **AWS)
        yield KmsSealer(client.create_key()["KeyMetadata"]["KeyId"], client)


def test_opens_where_it_was_sealed_and_nowhere_else(sealer: Sealer) -> None:
    plain = secret("sealed").encode()
    sealed = sealer.seal(plain, HERE)
    assert sealer.open(sealed, HERE) == plain
    assert sealer.open(sealed, dict(reversed(HERE.items()))) == plain
    assert plain not in sealed
    assert sealer.seal(plain, HERE) != sealed
    for other in ({**HERE, "tenant": "124"}, {**HERE, "party": "aws"}, {**HERE, "purpose": "x"},
                  {"tenant": "123", "party": "qcloud"}, {**HERE, "more": "1"}):
        with pytest.raises(Internal, match="belong to another account"):
            sealer.open(sealed, other)


def test_a_changed_byte_does_not_open(sealer: Sealer, request: pytest.FixtureRequest) -> None:
    sealed = sealer.seal(b"plain", HERE)
    last = [] if "ministack" in request.node.name else [sealed[:-1] + bytes([sealed[-1] ^ 1])]      # it does not look
    for changed in (*last, b"\x07" + sealed[1:], b"", sealed[:1], b"garbage"):
        with pytest.raises(Internal):
            sealer.open(changed, HERE)


def test_another_key_says_so(tmp_path: Path) -> None:
    sealed = LocalSealer.of_file(tmp_path / "one").seal(b"plain", HERE)
    with pytest.raises(Internal, match="another key"):
        LocalSealer.of_file(tmp_path / "two").open(sealed, HERE)


def test_kms_takes_no_more_than_it_can_seal() -> None:
    with mock_aws():
        client = boto3.client("kms", **AWS)
        sealer = KmsSealer(client.create_key()["KeyMetadata"]["KeyId"], client)
        with pytest.raises(InvalidParameter, match="4096"):
            sealer.seal(b"x" * 4097, HERE)


def test_the_key_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "below" / "key"
    old = os.umask(0)
    try:
        sealed = open_sealer(f"file:{path}").seal(b"plain", HERE)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert open_sealer(f"file:{path}").open(sealed, HERE) == b"plain"
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        open_sealer(f"file:{path}")


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 44, b"\xff" * 44, b"QUJD"])
def test_a_file_that_holds_no_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="does not hold a key"):
        open_sealer(f"file:{path}")


def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(SettingsError, match="cannot be used"):
        open_sealer("file:/proc/nowhere/key")
    with pytest.raises(SettingsError, match="kms"):
        open_sealer("")


def _first_use(path: str, start: float) -> None:
    LocalSealer.of_file(Path(path)).seal(b"x", HERE)


@pytest.mark.slow
def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_first_use, args=(f"{tmp_path}/k/key", 0.0)) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert [path.name for path in (tmp_path / "k").iterdir()] == ["key"]

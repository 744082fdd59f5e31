"""An account's row that somebody damaged in the store: a clear error, and the way out that it names works."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chalicelib import cli
from chalicelib.access import accounts
from chalicelib.cli import output
from chalicelib.errors import Internal
from chalicelib.fleet import schedule
from chalicelib.model import Source
from tests.canaries import secret

KEYS = {"secret_id": "AKIDdamaged", "secret_key": secret("damaged")}
PLACE = ["123", "qcloud"]


@pytest.fixture(autouse=True)
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for name in ("TWOCLOUD_STORE", "TWOCLOUD_KEY"):
        monkeypatch.delenv(name, raising=False)
    output.deployment.cache_clear()
    put()
    yield
    output.deployment.cache_clear()


def put(*more: str) -> None:
    Path("keys.json").write_bytes(msgspec.json.encode(KEYS))
    assert cli.main(["account", "put", *PLACE, "--credentials-file", "keys.json", *more]) == 0
    Path("keys.json").unlink()


def damage(how: str, field: str = "", value: Any = None) -> None:
    with closing(sqlite3.connect(".twocloud/twocloud.db")) as thief:
        (text,), = thief.execute("SELECT value FROM entry WHERE kind = 'account'").fetchall()
        row = msgspec.json.encode({**msgspec.json.decode(text), field: value})
        made = {"garbage": b"\xff{", "empty": b"", "list": b"[]"}.get(how, row)
        thief.execute("UPDATE entry SET value = ? WHERE kind = 'account'", (made,))
        thief.commit()


@pytest.mark.parametrize("way_out", ["replace", "remove"])
@pytest.mark.parametrize("how", [("garbage",), ("empty",), ("list",), *(("field", name, value) for name, value in (
    ("tenant_id", "9"), ("party", "aws"), ("sealed", 5), ("revision", 7), ("deep", None), ("regions", "gz"),
    ("endpoint", 1),
    ("created_at", "x"), ("bound", 2)))], ids=str)
def test_a_damaged_row_names_itself_and_can_be_put_again_or_removed(how: tuple[Any, ...], way_out: str,
                                                                    capsys: pytest.CaptureFixture[str]) -> None:
    damage(*how)
    for line in (["list"], ["show", *PLACE], ["check", *PLACE], ["reseal"]):
        capsys.readouterr()
        assert cli.main(["account", *line]) == 5
        shown = capsys.readouterr().err
        assert "Account row 123/qcloud in the store" in shown, shown
        assert "--replace" in shown, shown
    if way_out == "replace":
        put("--replace")
        assert cli.main(["account", "list"]) == 0
    else:
        assert cli.main(["account", "remove", *PLACE]) == 0
        assert cli.main(["account", "remove", *PLACE]) == 4


def test_the_schedule_goes_on_for_all_other_accounts() -> None:
    damage("field", "regions", 5)
    Path("keys.json").write_bytes(msgspec.json.encode(KEYS))
    assert cli.main(["account", "put", "456", "qcloud", "--region", "ap-beijing", "--credentials-file",
                     "keys.json"]) == 0
    Path("keys.json").unlink()
    with pytest.raises(Internal):
        accounts.every(output.deployment().store)
    assert list(schedule.known(output.deployment())) == [Source("456", "qcloud", "ap-beijing")]

"""PostgreSQL servers of the tests' own; a test that needs what is not on this machine is skipped, by name."""

from typing import Any

import pytest

from deploy import postgres


class Postgres(postgres.Postgres):
    def __init__(self, *settings: str, **more: Any) -> None:
        try:
            super().__init__(*settings, **more)
        except (FileNotFoundError, PermissionError) as problem:
            pytest.skip(f"not on this machine: {problem}")

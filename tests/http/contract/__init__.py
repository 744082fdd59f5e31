"""The cases of the contract, by what they are about; `tests/http/test_contract.py` runs them."""

import pkgutil

import pytest

MODULES = [f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)]
pytest.register_assert_rewrite(*MODULES)    # so that a case that fails shows its values

"""Names of earlier versions, which pickles and saves hold, still mean something."""

from __future__ import annotations

import importlib
import sys

import pytest

from moirai_moe_forecaster.moved import MOVED


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_name_is_the_module_of_the_new_one(old: str, new: str) -> None:
    if new.startswith("adapters.darts"):
        pytest.importorskip("darts", reason="needs the extra `darts`")
    module = importlib.import_module(f"moirai_moe_forecaster.{new}")
    assert importlib.import_module(f"moirai_moe_forecaster.{old}") is module
    assert module.__name__ == module.__spec__.name == f"moirai_moe_forecaster.{new}"
    assert sys.modules[f"moirai_moe_forecaster.{old}"] is module


def test_no_other_name_is_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"adapters\.nothing"):
        importlib.import_module("moirai_moe_forecaster.adapters.nothing")

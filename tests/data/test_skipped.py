"""Series that are left out take their own covariates along, whatever holds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from moirai_moe_forecaster import backtest
from moirai_moe_forecaster.data.series import read_series
from moirai_moe_forecaster.errors import InvalidInputError

TIME = 20


def last(contexts: Any, horizon: int, season: int, levels: Any) -> np.ndarray:
    return np.full((len(contexts), len(levels), horizon), 1.0)


def several(kind: str, keys: list[Any], bad: int | None, start: float) -> Any:
    """Series of constants start, start + 1, ...; one of them infinite."""
    values = [np.full(TIME, start + number) for number in range(len(keys))]
    if bad is not None:
        values[bad] = values[bad] * np.inf
    if kind == "list":
        return values
    return pd.concat([pd.Series(part) for part in values], keys=keys)


@pytest.mark.parametrize("keys", [["a", "b", "c"], [2, 0, 1]])
@pytest.mark.parametrize("y_kind", ["list", "panel"])
@pytest.mark.parametrize("x_kind", ["list", "panel"])
@pytest.mark.parametrize("side", ["y", "X"])
def test_covariates_stay_with_their_series(
    keys: list[Any], y_kind: str, x_kind: str, side: str
) -> None:
    for bad in range(3):
        y = several(y_kind, keys, bad if side == "y" else None, 1.0)
        X = several(x_kind, keys, bad if side == "X" else None, 11.0)
        skipped: dict[Any, str] = {}
        batch = read_series(y, 0, X, skipped=skipped)
        assert [float(part.past[0, 0] - part.target[0, 0]) for part in batch.series] == [10.0] * 2
        assert set(skipped) == {keys[bad] if y_kind == "panel" else bad}
        table = backtest(last, y, horizon=2, X=X, on_error="skip")
        assert len(table) == 2
        assert len(table.attrs["skipped"]) == 1
        with pytest.raises(InvalidInputError, match="infinite"):
            read_series(y, 0, X)


def test_a_table_of_scores_can_be_written(tmp_path: Any) -> None:
    pytest.importorskip("pyarrow")
    for keys in ([2, 0, 1], [("a", 1), ("b", 2), ("c", 3)]):
        y = several("panel", keys, 1, 1.0)
        table = backtest(last, y, horizon=2, on_error="skip")
        table.assign(series=table["series"].astype(str)).to_parquet(tmp_path / "scores.parquet")
        assert len(table.attrs["skipped"]) == 1

"""skpro's own checks of our distribution, and what they do not look at."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from skpro.metrics import CRPS, SquaredDistrLoss
from skpro.utils import check_estimator

from moirai_moe_forecaster.adapters.sktime.distribution import ForecastDistribution
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.quantile_grid import NODE_LEVELS, NODE_SCORES
from work import calls


def test_skpro_conformance() -> None:
    results = check_estimator(ForecastDistribution, raise_exceptions=True, verbose=False)
    assert len(results) > 50
    assert all(result == "PASSED" for result in results.values())


def distribution(rows: int = 6, random_state: int | None = 0) -> ForecastDistribution:
    location = np.arange(rows, dtype=float)[:, None, None] + np.array([0.0, 100.0])[:, None]
    ids = pd.MultiIndex.from_product([["a", "b"], range(rows // 2)], names=["id", "t"])
    return ForecastDistribution(
        location + 2 * NODE_SCORES, random_state=random_state, index=ids, columns=["u", "v"]
    )


def test_parts_of_panels() -> None:
    whole = distribution()
    means = whole.mean()
    pd.testing.assert_frame_equal(whole.loc[["b"]].mean(), means.loc[["b"]])
    pd.testing.assert_frame_equal(
        whole.loc[[("a", 1), ("b", 2)], ["v"]].mean(), means.iloc[[1, 5], [1]]
    )
    pd.testing.assert_frame_equal(whole.iloc[[3, 0], [1, 0]].mean(), means.iloc[[3, 0], [1, 0]])
    assert whole.iat[4, 1].mean() == pytest.approx(means.iat[4, 1])
    assert whole.iat[4, 1].ppf(0.9) == pytest.approx(whole.quantile(0.9).iat[4, 1])


@pytest.mark.parametrize(
    "key",
    [
        pd.Period("2005-02"),
        "2005-02",
        [pd.Period("2005-03"), pd.Period("2005-01")],
        slice(pd.Period("2005-02"), None),
        np.array([True, False, True]),
        pd.PeriodIndex(["2005-03"], freq="M"),
    ],
    ids=lambda key: type(key).__name__,
)
def test_parts_are_those_of_pandas(key: object) -> None:
    months = pd.period_range("2005-01", periods=3, freq="M")
    values = np.arange(6.0).reshape(3, 2, 1) + NODE_SCORES
    whole = ForecastDistribution(values, index=months, columns=["u", "v"])
    means = whole.mean()
    for rows, columns in ((key, slice(None)), (key, ["v"])):
        got, expected = whole.loc[rows, columns].mean(), means.loc[rows, columns]
        np.testing.assert_allclose(np.ravel(got), np.ravel(expected))
    np.testing.assert_allclose(whole.iloc[1:, :1].mean(), means.iloc[1:, :1])
    np.testing.assert_allclose(whole.iloc[[True, False, True]].mean(), means.iloc[[0, 2]])
    assert whole.at[months[1], "v"].mean() == pytest.approx(means.at[months[1], "v"])


def test_labels_that_are_not_there_are_refused() -> None:
    whole = distribution()
    months = pd.period_range("2005-01", periods=6, freq="M")
    flat = ForecastDistribution(whole.values, index=months, columns=["u", "v"])
    for get in (
        lambda: flat.loc[[months[-1] + 1]],
        lambda: flat.loc[months + 1],
        lambda: flat.loc[:, ["w"]],
        lambda: flat.at[months[-1] + 1, "u"],
        lambda: whole.loc[["c"]],
        lambda: whole.loc[[("a", 9)], ["u"]],
        lambda: whole.loc[pd.MultiIndex.from_tuples([("a", 9)])],
    ):
        with pytest.raises(KeyError):
            get()
    with pytest.raises(IndexError):
        flat.iloc[[6]]


def test_samples_follow_the_ranks() -> None:
    opposite = np.stack((np.arange(50), 49 - np.arange(50)))[:, None]
    nodes = np.broadcast_to(NODE_SCORES, (2, 1, len(NODE_LEVELS)))
    pair = ForecastDistribution(nodes, opposite, random_state=1)
    drawn = pair.sample(4000).to_numpy().reshape(4000, 2)
    assert np.corrcoef(drawn.T)[0, 1] < -0.95
    np.testing.assert_allclose(drawn.std(0), 1, atol=0.05)
    np.testing.assert_allclose(pair.iloc[[1]].sample(4000).to_numpy().std(), 1, atol=0.05)
    alone = ForecastDistribution(nodes, random_state=1).sample(4000).to_numpy().reshape(4000, 2)
    assert abs(np.corrcoef(alone.T)[0, 1]) < 0.1


def test_random_state() -> None:
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one, same, fresh = distribution(), distribution(), distribution(random_state=None)
    first = one.sample()
    pd.testing.assert_frame_equal(same.sample(), first)
    assert not np.allclose(one.sample(), first)
    assert not np.allclose(fresh.sample(), first)
    # parts go on with the generator of the whole
    assert not np.allclose(one.iloc[[0]].sample(), one.iloc[[0]].sample())
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_copies_are_equal() -> None:
    one = distribution()
    for copied in (copy.deepcopy(one), pickle.loads(pickle.dumps(one)), one.clone()):
        pd.testing.assert_frame_equal(copied.mean(), one.mean())
        pd.testing.assert_frame_equal(copied.sample(2), copy.deepcopy(one).sample(2))


def test_crps_is_that_of_a_normal_distribution() -> None:
    from skpro.distributions import Normal

    ours = distribution()
    truth = ours.mean() + 1.5
    # skpro's own distributions cannot be scored on panels
    normal = Normal(ours.mean().to_numpy(), 2, columns=ours.columns)
    expected = CRPS()(truth.reset_index(drop=True), normal)
    assert CRPS()(truth, ours) == pytest.approx(expected, rel=1e-6)


def test_density_norms_of_every_row() -> None:
    norms = distribution().pdfnorm()
    pd.testing.assert_index_equal(norms.index, distribution().index)
    # of a normal distribution: 1 / (2 sd sqrt(pi))
    np.testing.assert_allclose(norms, 1 / (4 * np.sqrt(np.pi)), rtol=1e-9)
    assert distribution().iat[0, 1].pdfnorm() == pytest.approx(norms.iat[0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = SquaredDistrLoss().evaluate_by_index(distribution().mean(), distribution())
    peak = 1 / (2 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(loss.to_numpy(), norms.iat[0, 0] - 2 * peak, rtol=1e-6)


def test_twelve_thousand_rows_are_computed_at_once() -> None:
    def read(rows: int) -> None:
        wide = ForecastDistribution(np.arange(float(rows))[:, None, None] + NODE_SCORES)
        wide.quantile([0.1, 0.5, 0.9])
        wide.var()

    assert calls(lambda: read(12_000)) == calls(lambda: read(12))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"shape \(3, 129\); expected \(129,\) or"):
        ForecastDistribution(np.zeros((3, len(NODE_LEVELS))))

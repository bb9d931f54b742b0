"""The report holds the choices of the network's routers, and counts them right."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from moirai_moe_forecaster.data.series import read_series
from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.inference.prompt import make_prompt
from moirai_moe_forecaster.reports.routing import RoutingReport
from tiny_network import OFFICIAL_CONVENTIONS, tiny_network
from work import calls


def walk(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).cumsum(0)


@pytest.fixture(scope="module")
def pipeline() -> MoiraiMoEPipeline:
    return MoiraiMoEPipeline(tiny_network())


@pytest.fixture(scope="module")
def report(pipeline: MoiraiMoEPipeline) -> RoutingReport:
    series = [walk(100), walk(20, 3), walk(33), walk(90, seed=1)]
    return pipeline.routing(series).with_labels(kind_of=["a", "b", "a", "b"])


def made(experts: list[list[int]], groups: list[str], num_experts: int = 4) -> RoutingReport:
    """A report of one layer in which every token has two experts of weights 0.75 and 0.25."""
    chosen = np.array([experts], dtype=np.int16)
    weights = np.broadcast_to(np.array([0.75, 0.25], dtype=np.float32), chosen.shape)
    tokens = pd.DataFrame({"series": range(len(groups)), "variate": 0, "kind": "target"})
    return RoutingReport(tokens.assign(patch=0, group=groups), chosen, weights, num_experts)


@pytest.mark.parametrize("conventions", [{}, OFFICIAL_CONVENTIONS])
def test_choices_are_those_of_the_network(conventions: dict[str, object]) -> None:
    pipeline = MoiraiMoEPipeline(tiny_network(**conventions))
    y = walk(70, 2)
    prompt = make_prompt(read_series(y, 0).series, 0, pipeline.config, 512)
    with torch.inference_mode():
        routings = pipeline.network.encode(prompt.given()).routings
    report = pipeline.routing(y)
    assert list(report.tokens["variate"]) == [0] * 5 + [1] * 5
    assert list(report.tokens["patch"]) == [0, 1, 2, 3, 4] * 2
    for layer, routing in enumerate(routings):
        np.testing.assert_array_equal(report.experts[layer], routing.experts)
        np.testing.assert_allclose(report.weights[layer], routing.weights)


def test_tokens_say_whose_they_are(report: RoutingReport) -> None:
    counts = report.tokens.groupby(["series", "variate"]).size()
    assert counts.to_dict() == {
        (0, 0): 7,
        **{(1, variate): 2 for variate in range(3)},
        (2, 0): 3,
        (3, 0): 6,
    }
    assert repr(report) == "RoutingReport(series=4, tokens=22, layers=2, experts=4, per_token=2)"


def test_covariates_have_their_kinds(pipeline: MoiraiMoEPipeline) -> None:
    report = pipeline.routing(
        walk(64), past_covariates=walk(64, 2), future_covariates=walk(96, seed=2), horizon=32
    )
    kinds = report.tokens.groupby(["variate", "kind"]).size()
    assert kinds.to_dict() == {
        (0, "target"): 4,
        (1, "past"): 4,
        (2, "past"): 4,
        (3, "known ahead"): 5,  # shifted by the one patch that a pass predicts
    }


def test_instances_of_a_panel_keep_their_names(pipeline: MoiraiMoEPipeline) -> None:
    index = pd.MultiIndex.from_product([["x", "y"], range(40)])
    report = pipeline.routing(pd.Series(walk(80), index=index))
    assert list(report.tokens["series"]) == ["x"] * 3 + ["y"] * 3


def test_a_series_is_routed_alike_in_any_batch(
    pipeline: MoiraiMoEPipeline, report: RoutingReport
) -> None:
    alone = pipeline.routing(walk(90, seed=1))
    own = (report.tokens["series"] == 3).to_numpy()
    np.testing.assert_array_equal(report.experts[:, own], alone.experts)


def test_choices_have_a_row_for_each(report: RoutingReport) -> None:
    choices = report.choices()
    assert len(choices) == report.experts.size
    row = choices.iloc[-1]
    assert (row["layer"], row["series"], row["patch"], row["rank"]) == (1, 3, 5, 1)
    assert row["expert"] == report.experts[1, -1, 1]
    assert np.isclose(choices["weight"].sum(), 2 * 22)


def test_load_counts_choices_and_weights() -> None:
    report = made([[0, 1], [0, 2], [3, 0]], ["a", "a", "b"])
    load = report.load()
    np.testing.assert_allclose(load["share"], [3 / 6, 1 / 6, 1 / 6, 1 / 6])
    np.testing.assert_allclose(load["weight"], np.array([1.75, 0.25, 0.25, 0.75]) / 3)
    by_group = report.load("group")
    assert list(by_group.columns) == ["group", "layer", "expert", "share", "weight"]
    np.testing.assert_allclose(by_group["share"], [0.5, 0.25, 0.25, 0, 0.5, 0, 0, 0.5])


def test_entropy_tells_how_many_experts_are_in_use() -> None:
    even = made([[0, 1], [2, 3]], ["a", "b"])
    assert even.entropy()["entropy"].item() == pytest.approx(2)
    assert even.entropy()["effective_experts"].item() == pytest.approx(4)
    assert list(even.entropy("group")["effective_experts"]) == pytest.approx([2, 2])


def test_agreement_is_what_groups_have_in_common() -> None:
    groups = ["a", "b", "c"]
    report = made([[0, 1], [1, 0], [1, 2]], groups)
    table = report.agreement("group").set_index(["first", "second"])["agreement"]
    assert table.to_dict() == {("a", "b"): 1.0, ("a", "c"): 0.5, ("b", "c"): 0.5}


def test_series_without_a_label_are_a_group(report: RoutingReport) -> None:
    labelled = report.with_labels(group=["a", None, "a", None])
    for table in (labelled.load("group"), labelled.entropy("group")):
        assert [str(group) for group in table["group"].unique()] == ["a", "nan"]
    np.testing.assert_allclose(
        labelled.entropy("group")["entropy"], report.entropy("kind_of")["entropy"]
    )


def test_labels_belong_to_series_in_order(report: RoutingReport) -> None:
    labels = report.tokens.groupby("series")["kind_of"].first()
    assert list(labels) == ["a", "b", "a", "b"]
    with pytest.raises(InvalidInputError, match="has 2 values; expected 4"):
        report.with_labels(kind_of=["a", "b"])
    for taken in ("series", "layer", "share", "entropy"):
        with pytest.raises(InvalidInputError, match=f"may not be called '{taken}'"):
            report.with_labels(**{taken: [1, 2, 3, 4]})


def test_bad_groups_are_named(report: RoutingReport) -> None:
    with pytest.raises(InvalidInputError, match="unknown column 'region'"):
        report.load("region")
    with pytest.raises(InvalidInputError, match="agreement needs two groups"):
        report.with_labels(same=["a"] * 4).agreement("same")


def test_forecasts_do_not_change(pipeline: MoiraiMoEPipeline) -> None:
    y = walk(100)
    before = pipeline.predict(y, 40, random_state=0).mean
    pipeline.routing(y)
    np.testing.assert_array_equal(pipeline.predict(y, 40, random_state=0).mean, before)


def test_padding_is_not_reported(pipeline: MoiraiMoEPipeline) -> None:
    # 8 and 9 patches go through the network in one pass
    series = [walk(120), walk(144, seed=1)]
    report = pipeline.routing(series)
    assert list(report.tokens["patch"]) == [*range(8), *range(9)]
    alone = [pipeline.routing(y).experts for y in series]
    np.testing.assert_array_equal(report.experts, np.concatenate(alone, 1))


def two_patches_each(count: int) -> RoutingReport:
    """A report on many series, with experts chosen at random in four layers."""
    tokens = pd.DataFrame({"series": np.repeat(np.arange(count), 2)})
    experts = np.random.default_rng(0).integers(0, 8, (4, 2 * count, 2)).astype(np.int16)
    return RoutingReport(tokens, experts, np.full(experts.shape, 0.5, np.float32), 8)


def test_loads_of_many_groups_are_counted_all_at_once() -> None:
    few, report = two_patches_each(20), two_patches_each(20_000)
    load = report.load("series")
    assert calls(lambda: report.load("series")) == calls(lambda: few.load("series"))
    assert len(load) == 20_000 * 4 * 8
    own = load[(load["series"] == 123) & (load["layer"] == 2)]
    expected = np.bincount(report.experts[2, 246:248].ravel(), minlength=8) / 4
    np.testing.assert_allclose(own["share"], expected)


def test_many_groups_are_compared_a_row_at_once() -> None:
    report = two_patches_each(600)
    pairs = report.agreement("series")
    # there are 180,000 pairs in each of four layers; 14 were measured
    assert calls(lambda: report.agreement("series")) < 20 * 600
    assert len(pairs) == 4 * 600 * 599 // 2
    load = report.load("series").set_index(["layer", "series"])["share"].sort_index()
    for row in pairs.sample(20, random_state=0).itertuples():
        shares = (load[row.layer, row.first], load[row.layer, row.second])
        assert row.agreement == pytest.approx(np.minimum(*map(np.asarray, shares)).sum())

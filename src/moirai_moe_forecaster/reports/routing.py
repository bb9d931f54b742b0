"""Which experts the tokens of series were sent to: the paper's analysis (arXiv 2410.10469, 4.3)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.encode import contexts, encoded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

COLUMNS = ("series", "variate", "kind", "patch")
# what the tables call their own columns
TAKEN = {*COLUMNS, "layer", "rank", "expert", "weight", "share", "entropy", "effective_experts"}


class RoutingReport:
    """The experts and weights that every token of some series got in every layer.

    `MoiraiMoEPipeline.routing` makes it.

    Parameters
    ----------
    tokens : DataFrame, one row per token
        The columns ``series`` (key of a panel's instance, else position), ``variate`` (targets
        first, then past covariates, then those known ahead), ``kind`` ("target", "past" or
        "known ahead") and ``patch`` (0 is the oldest of the context); labels come behind.
    experts : ndarray of int16, (layer, token, rank)
        Chosen experts, the one with the largest weight first.
    weights : ndarray of float32, (layer, token, rank)
        Their weights, which sum to 1.
    num_experts : int

    Examples
    --------
    >>> import numpy as np
    >>> from moirai_moe_forecaster import MoiraiMoEPipeline
    >>> rng = np.random.default_rng(0)
    >>> series = [np.sin(np.arange(200) / 4), rng.normal(size=200), rng.normal(size=160)]
    >>> report = MoiraiMoEPipeline.from_pretrained().routing(series)
    >>> report = report.with_labels(shape=["wave", "noise", "noise"])
    >>> report.agreement(by="shape").columns.tolist()
    ['layer', 'first', 'second', 'agreement']
    """

    def __init__(
        self,
        tokens: pd.DataFrame,
        experts: NDArray[np.int16],
        weights: NDArray[np.float32],
        num_experts: int,
    ) -> None:
        self.tokens = tokens
        self.experts = experts
        self.weights = weights
        self.num_experts = num_experts

    def __repr__(self) -> str:
        layers, tokens, per_token = self.experts.shape
        return (
            f"RoutingReport(series={self.tokens['series'].nunique()}, tokens={tokens}, "
            f"layers={layers}, experts={self.num_experts}, per_token={per_token})"
        )

    @property
    def num_layers(self) -> int:
        """Number of layers, the first of which is 0."""
        return len(self.experts)

    def with_labels(self, **labels: Sequence[Hashable]) -> RoutingReport:
        """Return a report whose tokens have further columns to group by.

        Parameters
        ----------
        **labels
            One value per series, in the order in which they were given to `routing`.

        Raises
        ------
        InvalidInputError
            If there are not as many values as series, or a name is that of a column of the tables.
        """
        series = self.tokens["series"].unique()
        tokens = self.tokens
        for name, values in labels.items():
            if len(values) != len(series):
                raise InvalidInputError(
                    f"label {name!r} has {len(values)} values; expected {len(series)}, one per "
                    "series"
                )
            if name in TAKEN:
                raise InvalidInputError(
                    f"a label may not be called {name!r}, as a column of the report is; rename it"
                )
            known = dict(zip(series, values, strict=True))
            tokens = tokens.assign(**{name: tokens["series"].map(known)})
        return RoutingReport(tokens, self.experts, self.weights, self.num_experts)

    def choices(self) -> pd.DataFrame:
        """Every choice: one row per layer, token and rank.

        Returns
        -------
        DataFrame
            ``layer``, the columns of `tokens`, ``rank`` (0 has the largest weight), ``expert``,
            ``weight``.
        """
        layers, tokens, ranks = self.experts.shape
        layer, token, rank = (part.ravel() for part in np.indices((layers, tokens, ranks)))
        table = self.tokens.take(token).reset_index(drop=True)
        table.insert(0, "layer", layer)
        return table.assign(rank=rank, expert=self.experts.ravel(), weight=self.weights.ravel())

    def load(self, by: str | None = None) -> pd.DataFrame:
        """How choices are spread over experts: the paper's allocation.

        Parameters
        ----------
        by : str, optional
            Column of `tokens` whose values are looked at one by one; None takes all together.

        Returns
        -------
        DataFrame
            The group, if any, ``layer``, ``expert``, ``share`` (of the group's choices in that
            layer; 1 / num_experts if balanced) and ``weight`` (share of the weights).
        """
        groups, code = self._groups(by)
        shares, weights = self._shares(code), self._shares(code, weighted=True)
        index = pd.MultiIndex.from_product(
            [groups, range(self.num_layers), range(self.num_experts)],
            names=[by or "all", "layer", "expert"],
        )
        table = pd.DataFrame(
            {"share": np.ravel(shares), "weight": np.ravel(weights)}, index=index
        ).reset_index()
        return table if by else table.drop(columns="all")

    def entropy(self, by: str | None = None) -> pd.DataFrame:
        """How evenly choices are spread.

        Parameters
        ----------
        by : str, optional
            As for `load`.

        Returns
        -------
        DataFrame
            The group, if any, ``layer``, ``entropy`` of the shares in bits, and
            ``effective_experts``: how many experts, equally loaded, have that entropy.
        """
        load = self.load(by)
        keys = [by, "layer"] if by else ["layer"]
        terms = -load["share"] * np.log2(load["share"].where(load["share"] > 0, 1.0))
        groups = terms.groupby([load[key] for key in keys], sort=False, dropna=False)
        table = groups.sum().rename("entropy")
        frame = table.reset_index()
        return frame.assign(effective_experts=2.0 ** frame["entropy"])

    def agreement(self, by: str) -> pd.DataFrame:
        """How alike two groups choose: the part of their choices that they have in common.

        Parameters
        ----------
        by : str
            Column of `tokens` that makes the groups.

        Returns
        -------
        DataFrame
            ``layer``, ``first``, ``second`` and ``agreement``: the sum over experts of the smaller
            of the two groups' shares, 1 minus their total variation distance. 1 is the same
            allocation; 0 has no expert in common. Groups of few tokens agree less by chance.

        Raises
        ------
        InvalidInputError
            If there are fewer than two groups.
        """
        groups, code = self._groups(by)
        if len(groups) < 2:
            raise InvalidInputError(f"all tokens have the same {by!r}; agreement needs two groups")
        shares = self._shares(code)
        first, second = np.triu_indices(len(groups), 1)
        # one group against all later ones at a time, as pairs are many
        common = [
            np.minimum(shares[group, layer], shares[group + 1 :, layer]).sum(1)
            for layer in range(self.num_layers)
            for group in range(len(groups))
        ]
        names = pd.Index(groups, tupleize_cols=False)
        return pd.DataFrame(
            {
                "layer": np.repeat(np.arange(self.num_layers), len(first)),
                "first": names.take(np.tile(first, self.num_layers)),
                "second": names.take(np.tile(second, self.num_layers)),
                "agreement": np.concatenate(common),
            }
        )

    def plot(self, by: str | None = None, **options: Any) -> list[Axes]:
        """Draw allocations; `moirai_moe_forecaster.plotting.plot_routing` has the options."""
        from moirai_moe_forecaster.plotting import plot_routing

        return plot_routing(self, by, **options)

    def _groups(self, by: str | None) -> tuple[list[Hashable], NDArray[np.intp]]:
        """Groups in the order of their first tokens, and the group of every token."""
        if by is None:
            return ["all"], np.zeros(len(self.tokens), dtype=np.intp)
        if by not in self.tokens:
            raise InvalidInputError(
                f"unknown column {by!r}; choose one of {list(self.tokens)}, or add it with "
                "with_labels"
            )
        code, groups = pd.factorize(self.tokens[by], use_na_sentinel=False)
        return [*groups], code

    def _shares(self, code: NDArray[np.intp], *, weighted: bool = False) -> NDArray[np.float64]:
        """Shares of experts in the choices of every group, (group, layer, expert)."""
        shape = (int(code.max()) + 1, self.num_layers, self.num_experts)
        layer = np.arange(self.num_layers)[:, None, None]
        cell = np.ravel_multi_index((code[:, None], layer, self.experts), shape)
        weights = self.weights.ravel() if weighted else None
        counts = np.bincount(cell.ravel(), weights, np.prod(shape)).reshape(shape)
        return counts / counts.sum(-1, keepdims=True)


def make_report(
    pipeline: MoiraiMoEPipeline,
    y: Any,
    covariates: tuple[Any, Any],
    horizon: int,
    context_length: int | None,
    *,
    progress: bool,
) -> RoutingReport:
    """Run the network over all contexts and keep the choices of its routers."""
    batch, load = contexts(pipeline, y, covariates, horizon, context_length)
    tables: list[pd.DataFrame] = []
    experts: list[NDArray[np.int64]] = []
    weights: list[NDArray[np.float32]] = []
    for tokens, output in encoded(pipeline, batch, load, progress=progress):
        tables.append(pd.DataFrame({name: getattr(tokens, name) for name in COLUMNS}))
        layers = output.routings
        experts.append(torch.stack([r.experts for r in layers]).cpu().numpy()[:, tokens.place])
        weights.append(torch.stack([r.weights for r in layers]).cpu().numpy()[:, tokens.place])
    table = pd.concat(tables, ignore_index=True)
    order = np.argsort(table["series"].to_numpy(), kind="stable")
    table = table.take(order).reset_index(drop=True)
    names = pd.Series(batch.names, dtype=object).infer_objects()
    table["series"] = names.take(table["series"].to_numpy()).to_numpy()
    return RoutingReport(
        table,
        np.concatenate(experts, 1)[:, order].astype(np.int16),
        np.concatenate(weights, 1)[:, order].astype(np.float32),
        pipeline.config.num_experts,
    )

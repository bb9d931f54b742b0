"""What a fine-tuning did, in numbers: weights that were trained, scores before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moirai_moe_forecaster.tuning.validation import Evaluation


@dataclass(frozen=True, kw_only=True)
class TuningReport:
    """Result of `MoiraiMoEPipeline.fine_tune`.

    Attributes
    ----------
    mode : str
    trained : list of str
        Names of the weights that were trained.
    trained_parameters, parameters : int
        Numbers that were trained, and in the whole network.
    steps, best_step : int
        Steps that were taken, and the one whose weights were kept; 0 are the zero-shot ones.
    share : float
        How far the kept weights are from zero-shot (0) to those of the best step (1).
    refitted : bool
        Whether as many steps were taken anew with the held-out windows among the data. The scores
        are those before that.
    windows, horizon : int
        Held-out windows, and points of each.
    seconds : float
    reason : str
        Why training ended.
    history : tuple of Evaluation
        Scores on the held-out windows, zero-shot first; empty without validation.
    after : Evaluation or None
        Scores of the weights that were kept.
    losses : tuple of float
        Mean training loss between two evaluations.
    skipped : tuple of pairs of str
        Names of series that were left out, and why.
    """

    mode: str
    trained: list[str]
    trained_parameters: int
    parameters: int
    steps: int
    best_step: int
    share: float
    refitted: bool
    windows: int
    horizon: int
    seconds: float
    reason: str
    history: tuple[Evaluation, ...]
    after: Evaluation | None
    losses: tuple[float, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def before(self) -> Evaluation | None:
        """Scores of the zero-shot weights."""
        return self.history[0] if self.history else None

    @property
    def improved(self) -> bool:
        """Whether other weights than the zero-shot ones were kept."""
        return self.best_step > 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "history": [evaluation.to_dict() for evaluation in self.history],
            "after": None if self.after is None else self.after.to_dict(),
            "losses": list(self.losses),
            "skipped": dict(self.skipped),
        }

    def __str__(self) -> str:
        share = self.trained_parameters / self.parameters
        lines = [
            f"mode {self.mode}: {self.trained_parameters:,} of {self.parameters:,} parameters "
            f"({share:.2%}), {self.steps} steps in {self.seconds / 60:.1f} minutes; {self.reason}"
        ]
        if self.before is None or self.after is None:
            return f"{lines[0]}\nnothing was held out, so nothing is known about forecasts"
        kept = f"kept: the weights of step {self.best_step}"
        if self.share < 1:
            way = f"{self.share:.0%} of the way from zero-shot to"
            kept = f"kept: {way} the weights of step {self.best_step}"
        if not self.improved:
            kept = "kept: the zero-shot weights, as validation did not improve"
        if self.refitted:
            kept += ", taken anew on all data"
        lines += [kept, "", f"{f'{self.windows} windows of {self.horizon}':<24}  before   after"]
        rows = [("WQL", self.before.wql, self.after.wql)]
        rows.append(("scaled quantile loss", self.before.scaled, self.after.scaled))
        lines += [f"{name:<24}{one:>8.4f}{two:>8.4f}" for name, one, two in rows]
        for percent, one in self.before.coverage.items():
            two = self.after.coverage[percent]
            lines.append(f"{f'inside {percent} % interval':<24}{one:>8.1%}{two:>8.1%}")
        return "\n".join(lines)

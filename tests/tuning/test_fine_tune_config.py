"""The keywords of `fine_tune` are the fields of its configuration."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from moirai_moe_forecaster.errors import InvalidInputError
from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline
from moirai_moe_forecaster.tuning.fine_tune_config import FineTuneConfig
from moirai_moe_forecaster.tuning.lora import LoraConfig


def test_the_pipeline_takes_every_field_with_its_default() -> None:
    parameters = inspect.signature(MoiraiMoEPipeline.fine_tune).parameters
    data = {"self", "y", "past_covariates", "future_covariates"}
    taken = {name: p.default for name, p in parameters.items() if name not in data}
    assert taken == {field.name: field.default for field in fields(FineTuneConfig)}


def test_lists_and_mappings_are_read_once_and_never_change() -> None:
    config = FineTuneConfig(freeze="embedding.*", callbacks=iter([print]), lora={"r": 3})
    assert config.freeze == ("embedding.*",)
    assert config.callbacks == (print,)
    assert config.adapters == LoraConfig(rank=3)
    assert replace(config, max_steps=5).callbacks == (print,)
    with pytest.raises(FrozenInstanceError):
        config.max_steps = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"horizon": 0}, "horizon"),
        ({"patience": 0}, "patience"),
        ({"lora": 3}, "lora must be a LoraConfig or a mapping"),
        ({"resume": True}, "resume=True needs the output folder"),
    ],
)
def test_what_no_run_could_use_is_refused_before_any_data_are_read(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        FineTuneConfig(**given)

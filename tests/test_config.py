from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from moirai_moe_forecaster.config import MAY_BE_NONE, OFFICIAL_MIXTURE, ModelConfig, TrainConfig
from moirai_moe_forecaster.errors import ConfigError
from tiny_network import tiny_config

OTHER_VALUES: dict[str, Any] = {
    "d_model": 64,
    "d_ff": 8,
    "num_layers": 3,
    "num_heads": 4,
    "num_experts": 6,
    "experts_per_token": 1,
    "patch_size": 8,
    "max_seq_len": 9,
    "router": "centroid",
    "centroid_choice": "farthest",
    "mixture": ("log_normal", "student_t"),
    "observed_mask_input": False,
    "shift_known_future": False,
    "output_patches": 4,
    "scale_rule": "absolute",
    "time_index": "observed",
    "mirror_up_to": 64,
    "find_seasons": True,
    "fill_gaps": True,
    "drop_outliers": True,
    "own_distribution": True,
    "dependence_share": 0.5,
    "dependence_growth": 0.3,
    "dependence_decay": 0.9,
    "dependence_walk": 0.8,
    "beyond_pass": "hidden",
    "reference_periods": 2,
    "exchange_channels": 8,
}
INTEGERS = [field.name for field in fields(ModelConfig) if field.type == "int"]
BOOLEANS = [field.name for field in fields(ModelConfig) if field.type == "bool"]
CHOICES = ["router", "centroid_choice", "scale_rule", "time_index", "beyond_pass"]
SHARES = ["dependence_share", "dependence_growth", "dependence_decay", "dependence_walk"]


def test_every_field_is_covered_here() -> None:
    names = {field.name for field in fields(ModelConfig)}
    assert names == OTHER_VALUES.keys() == {*INTEGERS, *BOOLEANS, *CHOICES, *SHARES, "mixture"}


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_every_field_survives_json(name: str) -> None:
    config = tiny_config(**{name: OTHER_VALUES[name]})
    assert config != tiny_config()
    again = ModelConfig.from_json(config.to_json())
    assert again == config
    assert getattr(again, name) == OTHER_VALUES[name]
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_configurations_are_values() -> None:
    config = tiny_config()
    assert hash(config) == hash(tiny_config())
    assert tiny_config(mixture=["student_t"]).mixture == ("student_t",)
    with pytest.raises(FrozenInstanceError):
        config.d_model = 64  # type: ignore[misc]


@pytest.mark.parametrize("name", sorted(set(INTEGERS) - set(MAY_BE_NONE)))
def test_integers_are_not_zero(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be an integer of at least 1, got 0"):
        tiny_config(**{name: 0})


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("value", [-1, 2.0, "2", True, None, [2]])
def test_integers_are_positive_integers(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        tiny_config(**{name: value})


@pytest.mark.parametrize("name", BOOLEANS)
@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_booleans_are_booleans(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        tiny_config(**{name: value})


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ["other", "", None, 1, ["linear"]])
def test_choices_are_among_the_known(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        tiny_config(**{name: value})


@pytest.mark.parametrize(
    "value", [(), ("normal",), "student_t", (1,), ("student_t", None), None, 3]
)
def test_a_mixture_names_known_components(value: Any) -> None:
    with pytest.raises(ConfigError, match="mixture"):
        tiny_config(mixture=value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 36, "num_heads": 5}, "multiple of num_heads"),
        ({"d_model": 12, "num_heads": 2}, "multiple of 4"),
        ({"num_experts": 2, "experts_per_token": 3}, "experts_per_token"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(**changes)


def test_an_unknown_or_missing_field_is_named() -> None:
    values = tiny_config().to_dict()
    with pytest.raises(ConfigError, match="dropout"):
        ModelConfig.from_dict({**values, "dropout": 0.1})
    del values["d_ff"]
    with pytest.raises(ConfigError, match="d_ff"):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize("text", ["", "{", "null", "5", "[1]", '"text"'])
def test_text_that_describes_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        ModelConfig.from_json(text)


@pytest.mark.parametrize(
    ("size", "expected"),
    [("small", (384, 512, 6, 6, 32, 2)), ("base", (768, 1024, 12, 12, 32, 2))],
)
def test_published_sizes(size: Any, expected: tuple[int, ...]) -> None:
    names = ("d_model", "d_ff", "num_layers", "num_heads", "num_experts", "experts_per_token")
    for config in (ModelConfig.official(size), ModelConfig.preset(size)):
        assert tuple(getattr(config, name) for name in names) == expected
        assert (config.patch_size, config.max_seq_len, config.head_dim) == (16, 512, 64)


def test_official_conventions() -> None:
    config = ModelConfig.official(num_layers=2)
    assert config.num_layers == 2
    assert config.mixture == OFFICIAL_MIXTURE
    assert (config.router, config.centroid_choice) == ("centroid", "farthest")
    assert (config.scale_rule, config.time_index) == ("absolute", "observed")
    assert (config.observed_mask_input, config.shift_known_future) == (False, False)
    assert config.output_patches == 1


def test_unknown_sizes_and_presets_are_refused() -> None:
    with pytest.raises(ConfigError, match="huge"):
        ModelConfig.official("huge")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="huge"):
        ModelConfig.preset("huge")  # type: ignore[arg-type]


def test_training_survives_json() -> None:
    config = TrainConfig(steps=10, betas=(0.8, 0.9), prefix_share=(0.2, 0.3), seed=0)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("steps", value) for value in (0, -1, 1.5, True, "10")],
        ("batch_rows", 0),
        ("row_tokens", 0),
        ("row_tokens", 1),
        ("seed", -1),
        ("seed", 0.5),
        ("synthetic_share", 1.1),
        ("synthetic_share", -0.1),
        ("synthetic_share", float("nan")),
        ("synthetic_share", "half"),
        ("decay_share", 2),
        ("coupled_share", 0.9),
        ("related_share", 0.9),
        ("series_balance", 1.5),
        ("synthetic_pool", 0),
        ("prefix_share", (0.5, 1.5)),
        ("prefix_share", (0.7, 0.1)),
        ("min_points", 5000),
        *[("learning_rate", value) for value in (0.0, -1e-3, float("nan"), "fast")],
        ("clip_norm", 0.0),
        ("weight_decay", -0.1),
        ("balance_weight", -0.1),
        ("betas", (0.9, 1.0)),
        ("betas", (0.9,)),
    ],
)
def test_training_numbers_out_of_range_are_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        TrainConfig(**{"steps": 10, name: value})


def test_an_unknown_or_missing_training_field_is_named() -> None:
    with pytest.raises(ConfigError, match="epochs"):
        TrainConfig.from_dict({"steps": 3, "epochs": 3})
    with pytest.raises(ConfigError, match="steps"):
        TrainConfig.from_dict({})


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("value", [-0.1, 1, True, "0.5", float("nan")])
def test_shares_are_numbers_below_one(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        tiny_config(**{name: value})


@pytest.mark.parametrize("name", ["dependence_share", "dependence_growth", "dependence_walk"])
def test_counts_cannot_depend_on_each_other(name: str) -> None:
    with pytest.raises(ConfigError, match="counts"):
        tiny_config(mixture=("student_t", "negative_binomial"), **{name: 0.5})

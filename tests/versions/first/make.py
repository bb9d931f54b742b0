"""Make the files of this folder, with the version of the package that they are kept from.

git worktree add --detach FOLDER 67305e2
cd $(mktemp -d)
PYTHONPATH=FOLDER/src:CHECKOUT/tests/versions python CHECKOUT/tests/versions/first/make.py OUTPUT
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from darts import TimeSeries
from darts.utils.likelihood_models.torch import QuantileRegression

from moirai_moe_forecaster import (
    ModelConfig,
    MoiraiMoE,
    MoiraiMoEForecaster,
    MoiraiMoEModel,
    MoiraiMoEPipeline,
    pretrain,
)
from versions.kept_forecasts import (
    FORECASTS,
    HORIZON,
    LEVELS,
    NATIVE,
    OFFICIAL,
    OFFICIAL_SIZES,
    SIZES,
    TRAINING,
    TUNING,
    corpus,
    months,
    waves,
)

BRIEF = {"max_steps": 2, "learning_rate": 1e-2, "batch_size": 2, "progress": False}
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


def random_network(**changes: Any) -> MoiraiMoE:
    """A network in which every parameter matters, of round numbers, which a zip file holds well."""
    torch.manual_seed(0)
    network = MoiraiMoE(ModelConfig(**SIZES | changes))
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            spread = 1.0 if name.endswith(("centroids", "variate_bias", "known_future")) else 0.1
            tensor.add_(spread * torch.randn_like(tensor)).mul_(8).round_().div_(8)
    return network.eval()


def store(value: Any, file: str) -> None:
    """Write a pickle."""
    Path(file).write_bytes(pickle.dumps(value))


def make_checkpoints() -> None:
    """Checkpoints, adapters, a run of fine-tuning that was stopped, and pickles."""
    native = MoiraiMoEPipeline(random_network(**NATIVE))
    native.save_pretrained("native")
    official = MoiraiMoEPipeline(random_network(**OFFICIAL, **OFFICIAL_SIZES))
    official.save_pretrained("official", layout="official")
    shutil.make_archive("official", "zip", "official")
    shutil.rmtree("official")
    native = MoiraiMoEPipeline.from_pretrained("native")
    lora = {"mode": "lora", "lora": {"rank": 1}, "max_steps": 2}
    native.fine_tune(waves(90, 2), **TUNING | lora).save_adapters("adapters")
    bundled = MoiraiMoEPipeline.from_pretrained()
    lora["lora"] = {"rank": 1, "targets": ["attention"]}
    bundled.fine_tune(waves(90, 2), **TUNING | lora).save_adapters("adapters_of_bundled")
    native.fine_tune(waves(90, 2), max_steps=8, output="fine_tuning", minutes=0, **TUNING)
    Path("fine_tuning/metrics.jsonl").unlink(missing_ok=True)
    store(native, "pipeline.pickle")
    options = {"num_paths": 8, "num_samples": 3, "random_state": 0}
    store(native.predict(waves(), HORIZON, **options), "forecast.pickle")
    store(native.routing(waves(60, 2)), "routing.pickle")


def make_pretraining() -> None:
    """A run that was stopped after a step, without its metrics."""
    pretrain(ModelConfig(**SIZES), TRAINING, corpus(), "pretraining", minutes=0, progress=False)
    Path("pretraining/metrics.jsonl").unlink(missing_ok=True)


def make_sktime() -> None:
    """Fitted forecasters: their contexts alone, or with weights of their own."""
    tiny = {"config": SIZES | {"find_seasons": True}, "num_paths": 8, "random_state": 0}
    store(MoiraiMoEForecaster(random_state=0).fit(months()), "sktime_zero_shot.pickle")
    fitted = MoiraiMoEForecaster(**tiny).fit(months(2))
    store(fitted, "sktime_random.pickle")
    fitted.save("sktime_saved")
    tuned = MoiraiMoEForecaster(**tiny, fit_strategy="minimal", training_args=BRIEF)
    store(tuned.fit(months(2)), "sktime_tuned.pickle")
    store(fitted.predict_proba([20]), "sktime_distribution.pickle")


def make_darts() -> None:
    """Saved models: of a checkpoint as it is, and with trained adapters."""
    series = TimeSeries.from_values(waves(60, 2).astype(np.float32))
    options = {
        "local_dir": "native",
        "likelihood": QuantileRegression(LEVELS),
        "pl_trainer_kwargs": QUIET,
        "random_state": 0,
    }
    MoiraiMoEModel(48, 12, **options).fit(series).save("darts_zero_shot.pt")
    tuning = {"enable_finetuning": {"lora": {"rank": 1, "targets": ["attention"]}}, "n_epochs": 1}
    tuned = MoiraiMoEModel(24, 12, **options, **tuning).fit(series)
    tuned.save("darts_lora.pt")
    store(tuned, "darts_lora.pickle")


def main(folder: Path) -> None:
    """Make everything, and the numbers that it forecasts."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    make_checkpoints()
    make_pretraining()
    make_sktime()
    make_darts()
    weights = files("moirai_moe_forecaster") / "weights" / "model.safetensors"
    numbers = {name: forecast(Path()) for name, forecast in FORECASTS.items()}
    expected = {
        "bundled": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "forecasts": {name: np.round(n, 4).tolist() for name, n in numbers.items()},
    }
    Path("expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

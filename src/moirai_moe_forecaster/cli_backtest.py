"""The command ``moirai-moe backtest``."""

# like cli.py, this imports torch and pandas only when the command runs, so that --help answers
from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moirai_moe_forecaster.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    import pandas as pd

ID, TIMESTAMP, TARGET = "item_id", "timestamp", "target"
FORMATS = (".csv", ".parquet")
MODEL, NAIVE = "Moirai-MoE", "seasonal naive"
DEFAULT_PEER = "AutoETS"
EPILOG = """
    The data has one row per time, with a column of values and, where there are several series,
    one of ids. Each window is forecast from all that came before it. Scores are pooled over all
    windows of all series; the output has them one by one.

    examples:
      moirai-moe backtest data.csv --horizon 24
      moirai-moe backtest sales.parquet --horizon 28 --windows 4 --seasonality 7 \\
          --id store --timestamp date --target sales -o scores.csv
      moirai-moe backtest data.csv --horizon 24 --metrics MASE WQL CRPS coverage --peers
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("data", type=_table_path, metavar="DATA", help="a .csv or .parquet file")
    parser.add_argument("--horizon", type=int, required=True, metavar="H", help="steps ahead")
    parser.add_argument(
        "--windows", type=int, default=1, metavar="N", help="windows per series (default: 1)"
    )
    parser.add_argument(
        "--step", type=int, metavar="N", help="steps between windows (default: the horizon)"
    )
    parser.add_argument(
        "--id", metavar="COLUMN", help=f"column of ids (default: {ID}, if there is one)"
    )
    parser.add_argument(
        "--timestamp",
        metavar="COLUMN",
        help=f"column of times (default: {TIMESTAMP}, if there is one; else rows in order)",
    )
    parser.add_argument(
        "--target", default=TARGET, metavar="COLUMN", help=f"column of values (default: {TARGET})"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=["MASE", "WQL"],
        metavar="NAME",
        help="MASE, RMSSE, MAE, RMSE, WQL, CRPS, coverage (default: MASE WQL)",
    )
    parser.add_argument(
        "--levels",
        type=float,
        nargs="+",
        metavar="Q",
        help="quantile levels of WQL (default: 0.1 to 0.9)",
    )
    parser.add_argument(
        "--seasonality", type=int, metavar="M", help="season in steps (default: the frequency's)"
    )
    parser.add_argument(
        "--peers",
        nargs="*",
        metavar="NAME",
        help=f"also run models of statsforecast (without a name: {DEFAULT_PEER})",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=_table_path,
        metavar="FILE",
        help="scores by window, .csv or .parquet",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> None:
    """Backtest, print the pooled scores, and write those of every window."""
    y = read_table(arguments.data, arguments.id, arguments.timestamp, arguments.target)
    import pandas as pd
    from tqdm.auto import tqdm

    from moirai_moe_forecaster.evaluation.backtest import backtest
    from moirai_moe_forecaster.evaluation.forecasters import naive_quantiles
    from moirai_moe_forecaster.evaluation.metrics import LEVELS
    from moirai_moe_forecaster.evaluation.peers import Peer
    from moirai_moe_forecaster.inference.pipeline import MoiraiMoEPipeline

    peers = [DEFAULT_PEER] if arguments.peers == [] else arguments.peers or []
    # seasonal naive goes first: what is wrong with data or arguments shows before a model is loaded
    forecasters: dict[str, Any] = {NAIVE: naive_quantiles, MODEL: None}
    forecasters |= {name: Peer(name) for name in peers}
    results, seconds = {}, {}
    for name, known in tqdm(forecasters.items(), disable=arguments.quiet, unit="model"):
        forecaster = known or MoiraiMoEPipeline.from_pretrained(arguments.model)
        started = time.perf_counter()
        results[name] = backtest(
            forecaster,
            y,
            horizon=arguments.horizon,
            windows=arguments.windows,
            step=arguments.step,
            metrics=arguments.metrics,
            quantile_levels=arguments.levels or LEVELS,
            seasonality=arguments.seasonality,
        )
        seconds[name] = time.perf_counter() - started
    _print_scores(results, seconds)
    if arguments.output is not None:
        parts = [result.assign(model=name) for name, result in results.items()]
        table = pd.concat(parts, ignore_index=True)
        _write(table[["model", *(name for name in table if name != "model")]], arguments.output)


def read_table(
    file: Path, id_column: str | None, timestamp_column: str | None, target: str
) -> pd.Series[float]:
    """Read a long table into one series, or a panel where there is a column of ids.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, a column is missing, or a time is no time or occurs twice.
    MissingExtraError
        If it is a parquet file and pyarrow is not installed.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(file) if file.suffix == ".csv" else pd.read_parquet(file)
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train", f"reading {file}") from error
    except ValueError as error:
        raise InvalidInputError(f"{file} cannot be read: {error}") from error
    asked = [target, *(name for name in (id_column, timestamp_column) if name)]
    if absent := [name for name in asked if name not in frame.columns]:
        raise InvalidInputError(
            f"{file} has no columns {absent}; it has {list(frame.columns)}: "
            "choose with --id, --timestamp and --target"
        )
    identifier = id_column or (ID if ID in frame.columns else None)
    timestamp = timestamp_column or (TIMESTAMP if TIMESTAMP in frame.columns else None)
    keys = [name for name in (identifier, timestamp) if name]
    if timestamp:
        try:
            frame[timestamp] = pd.to_datetime(frame[timestamp])
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"column {timestamp!r} must hold times: {error}") from error
        frame = frame.sort_values(keys, kind="stable")
        if (twice := frame.duplicated(keys)).any():
            where = " and ".join(str(frame.loc[twice, name].iloc[0]) for name in keys)
            raise InvalidInputError(f"{file} has two rows for {where}; expected one each")
    elif identifier:
        frame["step"] = frame.groupby(identifier, sort=False).cumcount()
        keys.append("step")
    values: pd.Series[float] = frame.set_index(keys)[target] if keys else frame[target]
    return values


def _print_scores(results: dict[str, pd.DataFrame], seconds: dict[str, float]) -> None:
    import pandas as pd

    from moirai_moe_forecaster.evaluation.comparison import ERRORS, frame_terms
    from moirai_moe_forecaster.evaluation.metrics import relative

    first = results[NAIVE]
    metrics = list(first.columns[list(first.columns).index("abs_test") + 1 :])
    pooled = {
        name: {metric: frame_terms(result, metric).pooled() for metric in metrics}
        for name, result in results.items()
    }
    rows = [
        scores
        | {f"relative {m}": relative(scores[m], pooled[NAIVE][m]) for m in metrics if m in ERRORS}
        | {"seconds": seconds[name]}
        for name, scores in pooled.items()
    ]
    print(f"{first['series'].nunique()} series, {len(first)} windows\n")
    print(pd.DataFrame(rows, index=list(results)).to_string(float_format=lambda x: f"{x:.4g}"))


def _write(table: pd.DataFrame, path: Path) -> None:
    """Write the table whole or not at all."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.astype({"series": str}).to_parquet(temporary, index=False)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"\nscores by window: {path.resolve()}")


def _table_path(text: str) -> Path:
    path = Path(text)
    if path.suffix not in FORMATS:
        raise argparse.ArgumentTypeError(
            f"the file's ending must be one of {', '.join(FORMATS)}, got {text!r}"
        )
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"the folder {str(path.parent)!r} does not exist")
    return path

"""Make every table of docs/benchmarks.md that a script makes anew, for the bundled checkpoint.

    python examples/benchmarks/all.py [--eval FOLDER] [--published FOLDER] [--corpus FOLDER]
        [--validation FOLDER] [--paper FOLDER] [--reference PYTHON] [--output FOLDER]
        [--only NAME ...] [--list] [--again]

Each table is a file ``OUTPUT/CHECKPOINT/NAME.md`` that begins with its date, the checkpoint and the
command. What is there for this checkpoint, this version of the package and of the script stays, so
that the same command goes on where it was interrupted; scripts that store results go on within
their table too. Tables whose data or extras are absent are skipped. A change of the code that
neither the version nor the checkpoint's configuration shows needs ``--again``.
"""

# %%
from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import shlex
import shutil
import string
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from moirai_moe_forecaster import __version__

SCRIPTS = Path(__file__).parent
ROOT = SCRIPTS.parents[1]
WEIGHTS = Path(str(files("moirai_moe_forecaster"))) / "weights"
CORPUS = "{corpus} --corpus docs/bundled_corpus.json"
FINE_TUNED = (
    "nn5 monash_tourism_quarterly monash_hospital m4_hourly monash_m1_monthly monash_m1_quarterly "
    "monash_nn5_weekly"
)
# arguments of this command that others are made of
GIVEN = {
    "eval": "folder of benchmark sets, as evaluate.py takes it",
    "published": "folder of published scores, as evaluate.py takes it",
    "corpus": "folder of the training corpus",
    "validation": "folder of validation sources, as validation.py takes it",
    "paper": "folder of the paper's sets, as paper_protocols.py takes it",
    "reference": "python that has uni2ts, to time beside ours",
}


class Table(NamedTuple):
    """How a table is made.

    Attributes
    ----------
    section : str
        Heading of docs/benchmarks.md under which it stands; nothing if it stands elsewhere.
    command : str
        Script and arguments. ``{eval}`` and the like are what this command was given as
        ``--eval``, ``{results}`` is a folder for the script to keep results in.
    extras : str
        Modules it needs beyond the package's own.
    """

    section: str
    command: str
    extras: str = ""

    @property
    def script(self) -> Path:
        """Path of the script."""
        return SCRIPTS / self.command.split()[0]

    @property
    def given(self) -> list[str]:
        """Arguments of this command that it needs."""
        fields = [field for _, field, *_ in string.Formatter().parse(self.command) if field]
        return [field for field in dict.fromkeys(fields) if field != "results"]


# the quick ones first
TABLES = {
    "quality": Table("Quality", "evaluate.py {eval} --output {results}", "pyarrow"),
    "published": Table(
        "Quality", "evaluate.py {eval} --published {published} --output {results}", "pyarrow"
    ),
    "by-horizon": Table("Quality", "by_horizon.py {eval}", "pyarrow"),
    "sums": Table("Sums over the horizon", "sums.py {eval}", "pyarrow"),
    "bfloat16": Table("bfloat16", "precision.py {eval}", "pyarrow"),
    "startup": Table("Start-up", "startup.py"),
    "cycles": Table("Cycles without a formula", "cycles.py"),
    "covariates": Table("Covariates", "covariates.py {corpus}", "pyarrow"),
    "sktime": Table("Through sktime", "sktime_forecaster.py"),
    "frames": Table("Long DataFrames", "frames.py"),
    "routing": Table(
        "Routing", "routing.py {corpus} --output {results}/routing.png", "matplotlib pyarrow"
    ),
    "periods": Table("Periods", "periods.py {corpus} --peers", "pyarrow statsmodels darts"),
    "held-out": Table("Choices", f"held_out.py {CORPUS}", "pyarrow"),
    "long-horizon": Table("Long horizons", f"long_horizon.py {CORPUS}", "pyarrow"),
    "validation": Table(
        "Validation sources",
        "validation.py {validation} --options '{{\"season_length\": null}}' '{{}}' "
        "--output {results}",
        "pyarrow",
    ),
    "views": Table("What cycles cost", "views.py {validation} --threads 2", "pyarrow"),
    "edges": Table("Edges of the data", "edges.py {validation} --series 5", "pyarrow"),
    "darts": Table("Samples through Darts", "darts_samples.py", "darts"),
    "many-series": Table("Many series", "many_series.py --threads 2"),
    "step-2": Table("Speed", "training_step.py --threads 2 --precision float32"),
    "step-1": Table("Speed", "training_step.py --threads 1 --precision float32"),
    "step-bfloat16": Table("Speed", "training_step.py --threads 2 --precision bfloat16"),
    "fine-tune": Table(
        "Fine-tuning",
        f"fine_tune.py {{eval}} --sets {FINE_TUNED} --modes lora full --output {{results}}/one",
        "pyarrow",
    ),
    "fine-tune-pattern": Table("Fine-tuning", "fine_tune.py {eval} --pattern", "pyarrow"),
    "fine-tune-windows": Table(
        "Fine-tuning",
        f"fine_tune.py {{eval}} --sets {FINE_TUNED} --modes lora --windows 3 "
        "--output {results}/three",
        "pyarrow",
    ),
    "paper": Table("", "paper_protocols.py {paper} --output {results}", "pyarrow"),
    "speed": Table("Speed", "inference.py --threads 2 --reference {reference}"),
    "paths": Table("Paths", "paths.py --reference 4000"),
    "when-not": Table(
        "",
        "when_not_to_use.py {corpus} {validation} --output {results}",
        "pyarrow statsforecast",
    ),
    "peers": Table(
        "Quality",
        "evaluate.py {eval} --peers AutoETS AutoTheta --output {results}",
        "pyarrow statsforecast",
    ),
    "gating": Table(
        "Gating",
        "ablation.py --data {corpus} --eval {eval} --output {results} --steps 1000 "
        "--corpus docs/bundled_corpus.json",
        "pyarrow",
    ),
}


# %%
def digest(*parts: bytes) -> str:
    """A few characters that tell contents apart."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:8]


def stamp(table: Table, checkpoint: str) -> str:
    """First line of a table's file: it stays as long as this is the same."""
    made_by = digest(
        table.script.read_bytes(),
        table.command.encode(),
        (WEIGHTS / "config.json").read_bytes(),
    )
    return f"<!-- checkpoint {checkpoint}, version {__version__}, script {made_by} -->"


def missing(table: Table, given: Mapping[str, Path | None]) -> str:
    """Data and extras that a table needs and that are not here, or nothing."""
    modules = [name for name in table.extras.split() if find_spec(name) is None]
    return ", ".join([*(f"--{name}" for name in table.given if given[name] is None), *modules])


def state(table: Table, file: Path, first_line: str, given: Mapping[str, Path | None]) -> str:
    """Whether a table is there, cannot be made, or is to be made."""
    if file.is_file() and file.read_text(encoding="utf-8").startswith(first_line):
        return "there"
    absent = missing(table, given)
    return f"skipped, needs {absent}" if absent else "to be made"


def results_folder(table: Table, folder: Path) -> Path:
    """Where a script keeps its results; tables of one script share it."""
    script = table.script
    return folder / "results" / f"{script.stem}-{digest(script.read_bytes())}"


def make(table: Table, file: Path, first_line: str, given: Mapping[str, Path | None]) -> bool:
    """Run a script, and keep what it prints if it succeeds."""
    results = results_folder(table, file.parent)
    results.mkdir(parents=True, exist_ok=True)
    shown = shlex.split(table.command.format(results="RESULTS", **{k: k.upper() for k in GIVEN}))
    typed = shlex.split(table.command)
    arguments = [part.format(results=results, **given) for part in typed[1:]]
    temporary = file.with_name(f".{os.getpid()}-{file.name}")
    with temporary.open("w", encoding="utf-8") as page:
        page.write(f"{first_line}\n{datetime.date.today()}, checkpoint {file.parent.name}:\n\n")
        page.write(f"```bash\npython examples/benchmarks/{' '.join(shown)}\n```\n\n")
        page.flush()
        # paths such as docs/bundled_corpus.json start at the root
        done = subprocess.run([sys.executable, table.script, *arguments], stdout=page, cwd=ROOT)
    if done.returncode:
        temporary.unlink()
        return False
    os.replace(temporary, file)
    return True


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, what in GIVEN.items():
        parser.add_argument(f"--{name}", type=Path, help=what)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--only", nargs="+", choices=TABLES, metavar="NAME", help="these tables")
    parser.add_argument("--list", action="store_true", help="say what would be done")
    parser.add_argument("--again", action="store_true", help="throw away what is there of them")
    arguments = parser.parse_args()
    for name in GIVEN:
        path = getattr(arguments, name)
        if path is not None and not path.exists():
            parser.error(f"--{name}: there is no {path}")
    return arguments


def main() -> None:
    """Make what is to be made, table by table."""
    arguments = read_arguments()
    # not resolved: a virtual environment's python is a link
    given = {name: getattr(arguments, name) for name in GIVEN}
    given = {name: path and path.absolute() for name, path in given.items()}
    checkpoint = digest((WEIGHTS / "model.safetensors").read_bytes())
    folder = arguments.output.absolute() / checkpoint
    names, failed = arguments.only or list(TABLES), []
    if arguments.again:
        for name in names:
            (folder / f"{name}.md").unlink(missing_ok=True)
            shutil.rmtree(results_folder(TABLES[name], folder), ignore_errors=True)
    for number, name in enumerate(names, 1):
        table, file = TABLES[name], folder / f"{name}.md"
        first_line = stamp(table, checkpoint)
        now = state(table, file, first_line, given)
        print(f"[{number}/{len(names)}] {name} ({table.script.name}): {now}", flush=True)
        if arguments.list or now != "to be made":
            continue
        started = time.monotonic()
        if make(table, file, first_line, given):
            print(f"    {file}, {time.monotonic() - started:.0f} s", flush=True)
        else:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

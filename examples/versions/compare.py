"""Compare two versions of the package: the same inputs at every entry point, and the interface.

    python examples/versions/compare.py OLD NEW [--only ENTRY ...]

OLD and NEW are checkouts of this repository (`git worktree add --detach FOLDER COMMIT`). Each runs
in a process of its own, on one thread, with this Python and its libraries. Both forecast with the
checkpoint of OLD, whose conventions NEW must keep. Differences are relative to the width of the
80 % interval, or to the size of what has none. The exit code is 1 if one is above 1e-6, or a label
or a text differs; changes of signatures and of --help are listed.
"""

# %%
from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import inspect
import io
import os
import pickle
import re
import subprocess
import sys
import tempfile
import traceback
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

LARGEST = 1e-6
SHOWN = 12
Results = dict[str, list[list[Any]]]
PUBLIC = ("", "checkpoint", "errors", "evaluation", "plotting", "cli")
COMMANDS = ("", "demo", "info", "forecast", "backtest", "routing", "finetune", "pretrain")


# %% within the process of a version
def run(file: Path, only: list[str]) -> None:
    """Store what this process' version makes of all inputs, and its interface."""
    import inputs
    import more_inputs  # noqa: F401
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    results: Results = {}
    for name, made in inputs.ENTRIES.items():
        if only and not any(part in name for part in only):
            continue
        results[name] = []
        try:
            for result in made(np.random.default_rng(zlib.crc32(name.encode()))):
                results[name].append([tuple(p) for p in inputs.plain(result)])
        except Exception:
            text = traceback.format_exc()
            print(f"{name}, input {len(results[name])}: {text}", file=sys.stderr)
            results[name].append([(text.splitlines()[-1], np.empty(0), np.empty(0))])
    file.write_bytes(pickle.dumps((results, dict(interface()))))


def interface() -> Iterator[tuple[str, str]]:
    """Signatures and documented parameters of public names, and what --help prints."""
    import moirai_moe_forecaster as package

    for module_name in PUBLIC:
        module = importlib.import_module(f"{package.__name__}.{module_name}".rstrip("."))
        public = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
        ]
        for name in public:
            yield from described(f"{module_name}.{name}".lstrip("."), getattr(module, name))
    for command in COMMANDS:
        with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
            importlib.import_module(f"{package.__name__}.cli").main([*command.split(), "--help"])
        yield f"moirai-moe {command} --help".replace("  ", " "), text.getvalue()


def described(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Lines for a function, or for a class and what it has."""
    if not callable(value):
        yield name, type(value).__name__
        return
    try:
        parameters = [
            f"{one}{' (by keyword)' * (one.kind is one.KEYWORD_ONLY)}".replace("ForwardRef", "")
            for one in inspect.signature(value).parameters.values()
        ]
    except (TypeError, ValueError):
        parameters = []
    # a header of numpydoc is a line that starts "name, name : type"
    documented = re.findall(r"^\s*(\w+(?:, \w+)*) : (.*)$", inspect.getdoc(value) or "", re.M)
    yield name, "\n".join([*parameters, *(": ".join(pair) for pair in documented)])
    if isinstance(value, type):
        ours = [base for base in value.__mro__ if base.__module__.startswith("moirai_moe")]
        for part in sorted({part for base in ours for part in vars(base) if part[0] != "_"}):
            member = inspect.getattr_static(value, part)
            member = getattr(member, "fget", None) or getattr(member, "__func__", member)
            # fields are in the signature
            if callable(member):
                yield from described(f"{name}.{part}", member)


# %% between the two
def largest(old: Any, new: Any) -> float:
    """Largest difference of numbers, in units of their scale; infinite if texts differ."""
    (old_text, a, scale), (new_text, b, _) = old, new
    if old_text != new_text or a.shape != b.shape or a.dtype.kind not in "fiub":
        return 0.0 if old_text == new_text and np.array_equal(a, b) else np.inf
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return np.inf
    # a constant has a width of 0, and floating point a step
    least = np.finfo(np.float32).eps * np.nan_to_num(np.abs(a)) + np.finfo(np.float64).tiny
    with np.errstate(all="ignore"):
        return float(np.nan_to_num(np.abs(a - b) / np.maximum(scale, least)).max(initial=0))


def same(old: Any, new: Any) -> bool:
    """Whether all bits are."""
    return old[0] == new[0] and np.array_equal(old[1], new[1], equal_nan=old[1].dtype.kind == "f")


def compare(old: Results, new: Results) -> bool:
    """Print a line per entry point, and the inputs that differ; return whether all agree."""
    print("| entry point | inputs | bit-equal | largest difference |\n|---|---:|---:|---:|")
    different, counts = [], np.zeros(2, dtype=int)
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name, []), new.get(name, [])
        pairs = [*zip(before, after, strict=False)]
        equal, worst = 0, 0.0 if len(before) == len(after) else np.inf
        for number, (one, other) in enumerate(pairs):
            distance = np.inf
            if len(one) == len(other):
                parts = [*zip(one, other, strict=True)]
                distance = max(largest(*pair) for pair in parts)
                equal += all(same(*pair) for pair in parts)
            worst = max(worst, distance)
            if distance > LARGEST:
                different.append((name, number, distance, text_change(one, other)))
        if len(before) != len(after):
            different.append((name, len(pairs), np.inf, f"{len(before)} results, {len(after)} now"))
        counts += [max(len(before), len(after)), equal]
        print(f"| {name} | {len(before)} | {equal} | {worst:.1e} |".replace("0.0e+00", "0"))
    print(f"| all | {counts[0]} | {counts[1]} | |")
    for name, number, distance, change in different[:SHOWN]:
        print(f"\n{name}, input {number}: {distance:.2e}\n{change}")
    if len(different) > SHOWN:
        print(f"\nand {len(different) - SHOWN} more")
    return not different


def text_change(one: list[Any], other: list[Any]) -> str:
    """What changed in the texts of a result."""
    return changed(*("\n".join(text for text, *_ in parts) for parts in (one, other)))


def changed(old: str, new: str) -> str:
    """Lines that are only in one of two texts."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
    kept = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    return "\n".join(f"    {line[:200]}" for line in kept[:20])


def compare_interfaces(old: dict[str, str], new: dict[str, str]) -> None:
    """List what is gone, new, and different of signatures and help."""
    print("\nInterface:", f"{len(old)} entries, {sum(old[n] == new.get(n) for n in old)} unchanged")
    print("- gone:", ", ".join(sorted(old.keys() - new.keys())) or "nothing")
    print("- new:", ", ".join(sorted(new.keys() - old.keys())) or "nothing")
    for name in old:
        if name in new and old[name] != new[name]:
            print(f"- {name}\n{changed(old[name], new[name])}")


def run_version(checkout: Path, weights: Path, file: Path, only: list[str]) -> None:
    """Run this script with a version of the package."""
    source = checkout.absolute() / "src"
    paths = os.pathsep.join([str(source), str(Path(__file__).parent)])
    found = f"import moirai_moe_forecaster as m; assert m.__file__.startswith({str(source)!r})"
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    environment["CHECKPOINT"] = str(weights.absolute())
    subprocess.run([sys.executable, "-c", found], env=environment, check=True)
    command = [sys.executable, __file__, "--run", str(file), "--only", *only]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)


def main() -> int:
    """Run both versions, one after the other, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="*", type=Path, metavar="OLD NEW")
    parser.add_argument("--only", nargs="*", default=[], metavar="ENTRY", help="parts of names")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.run, arguments.only)
        return 0
    if len(arguments.versions) != 2:
        parser.error("give two checkouts")
    weights = arguments.versions[0] / "src" / "moirai_moe_forecaster" / "weights"
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("old", "new")]
        for checkout, file in zip(arguments.versions, files, strict=True):
            run_version(checkout, weights, file, arguments.only)
        (old, old_interface), (new, new_interface) = (pickle.loads(f.read_bytes()) for f in files)
    agree = compare(old, new)
    compare_interfaces(old_interface, new_interface)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())

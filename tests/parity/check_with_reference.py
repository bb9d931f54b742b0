"""Checks by hand that the reference gives a golden file's numbers for a directory we have saved."""

# Run with the python of an environment that has the reference (uni2ts 2.0.0):
#     python check_with_reference.py CHECKPOINT_DIRECTORY GOLDEN.npz [GOLDEN.npz ...]
# A file that holds inputs only is computed and printed; there is nothing to compare then.

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from make_golden import Arrays, Case, load_reference, outputs

TOLERANCE = 1e-5  # the numbers are equal on one machine; another one may need `--tolerance 1e-3`
IDENTITY = ("seed", "d_model", "weights_sha256")


def difference(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the value or, if that is small, to a tenth of the largest."""
    if got.shape != expected.shape:
        return np.inf
    if not np.issubdtype(expected.dtype, np.floating):
        return 0.0 if np.array_equal(got, expected) else np.inf
    size = np.abs(expected)
    floor = max(float(size.max()) / 10, np.finfo(np.float32).tiny)
    largest = float((np.abs(got - expected) / np.maximum(size, floor)).max())
    return largest if np.isfinite(largest) else np.inf


def worst(got: Arrays, expected: Arrays) -> tuple[str, float]:
    """The array that differs most, over all those expected."""
    differences = {
        name: difference(got[name], values) if name in got else np.inf
        for name, values in expected.items()
    }
    name = max(differences, key=differences.__getitem__)
    return name, differences[name]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="directory in official layout")
    parser.add_argument("files", type=Path, nargs="+", metavar="npz", help="inputs, and outputs")
    parser.add_argument("--store", type=Path, help="directory to write the reference's answers to")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="relative, %(default)s")
    options = parser.parse_args()

    module = load_reference(options.checkpoint)
    failed = False
    for file in options.files:
        with np.load(file) as stored:
            arrays = dict(stored)
        case = Case.from_arrays(arrays)
        got, _ = outputs(module, case)
        if options.store:
            options.store.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(options.store / file.name, **case.inputs(), **got)
        expected = {k: v for k, v in arrays.items() if k not in {*case.inputs(), *IDENTITY}}
        if not expected:
            for name, values in got.items():
                print(f"{name} {values.shape}\n{values}")
            continue
        name, largest = worst(got, expected)
        good = largest <= options.tolerance
        failed |= not good
        print(f"{'same' if good else 'DIFFERS'}: {file.name}: at most {largest:.1e}, in {name}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

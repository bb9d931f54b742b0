"""How much work a function does, counted so that other work on the machine cannot change it."""

from __future__ import annotations

import sys
from collections.abc import Callable


def calls(run: Callable[[], object]) -> int:
    """Number of functions, of Python and of C, that are called; what is done at first is left out.

    What works on whole arrays calls as many for a thousand rows as for ten.
    """
    run()
    count = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count

"""Ending a run between two steps: on SIGTERM, on an interrupt, or after a time."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from moirai_moe_forecaster.errors import InvalidInputError

TIME_IS_UP = 1
TERMINATED = 128 + signal.SIGTERM


class Stop:
    """Collects requests to stop, for as long as the context lasts.

    A second signal ends the process at once, as it would without this. Signals are left alone in
    threads other than the main one, where Python allows no handlers.

    Parameters
    ----------
    minutes : float, optional
        From now until the run shall stop.

    Raises
    ------
    InvalidInputError
        If `minutes` is no number of at least 0.
    """

    def __init__(self, minutes: float | None = None) -> None:
        if minutes is not None and not (isinstance(minutes, int | float) and minutes >= 0):
            raise InvalidInputError(f"minutes must be a number of at least 0, got {minutes!r}")
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self._signal = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._handle(signal.SIGTERM)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._handle(signal.SIGINT)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    @property
    def reason(self) -> int:
        """The number of a signal that came, `TIME_IS_UP`, or 0 while the run may go on."""
        late = self._deadline is not None and time.monotonic() >= self._deadline
        return self._signal or (TIME_IS_UP if late else 0)

    def _handle(self, number: signal.Signals) -> None:
        self._previous[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

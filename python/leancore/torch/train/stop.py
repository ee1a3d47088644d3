"""SIGTERM and SIGINT ask a run to stop at its next step, not at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """A signal stopped the run, and its state was saved; `signal` is the number, 128 + it the exit status."""

    def __init__(self, number: int, where: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} {where}")
        self.signal = number


class Stop:
    """`number` is that of the signal that asked for a stop, 0 until then."""

    def __init__(self) -> None:
        self.number = 0


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within, the first SIGTERM or SIGINT is noted; the same signal once more acts as if nothing had been installed.

    Does nothing outside of the main thread, where Python installs no handlers.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    earlier: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        stop.number = number
        signal.signal(number, earlier[number])

    for caught in (signal.SIGTERM, signal.SIGINT):
        earlier[caught] = signal.signal(caught, note)
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)

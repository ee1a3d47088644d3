"""What the small commands share."""

from __future__ import annotations

import argparse
import sys


def fail(command: str, error: Exception | str) -> int:
    """Print an error as one line, and return the exit status 1."""
    print(f"leancore {command}: error: {error}", file=sys.stderr)
    return 1


def count(text: str) -> int:
    """A number of things, from 1 up; a type for argparse."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number from 1 up")
    return value


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a checkpoint's JSON file, such as runs/NAME/best.json")

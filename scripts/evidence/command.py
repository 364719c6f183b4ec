"""What the commands of this folder have in common: options, progress, and how they end."""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from parts import TUNING_SEED
from running import BenchmarkProgress

from hico_cli.console import progress, raising_on_signals
from hico_core.base.engine import available_cores
from hico_core.base.errors import HicoError


def read_seeds(text: str) -> list[int]:
    """Numbers and ranges of numbers, "1-3,7" -> 1 2 3 7.

    Raises:
        argparse.ArgumentTypeError: something else, or a seed that is named twice or is the one that settings are
            chosen on.

    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if found is None:
            raise argparse.ArgumentTypeError(f"{part!r} is neither a number nor a range such as 1-10")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise argparse.ArgumentTypeError(f"{part!r} ends before it begins")
        seeds += range(first, last + 1)
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise argparse.ArgumentTypeError(f"seed {seed} is named twice; each counts once")
    if TUNING_SEED in seeds:
        raise argparse.ArgumentTypeError(f"seed {TUNING_SEED} is the one on which rates are chosen; begin with 1")
    return seeds


def num_workers(text: str) -> int:
    """A number of processes.

    Raises:
        argparse.ArgumentTypeError: it is none.

    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes, 1 or more")
    return int(text)


def add_options(parser: argparse.ArgumentParser) -> None:
    """--seeds, --workers and --json."""
    parser.add_argument("--seeds", type=read_seeds, default="1-10", help="such as 1-10 or 1,2,5")
    parser.add_argument(
        "--workers",
        type=num_workers,
        default=available_cores(),
        help="trainings at a time, one thread each; default: one per core",
    )
    parser.add_argument("--json", action="store_true", help="for programs")


@contextmanager
def reported(what: str, *, total: int, as_json: bool) -> Iterator[Callable[[BenchmarkProgress], None]]:
    """Progress on stderr: what it yields is called after each cell."""
    with progress(what, total=total, as_json=as_json) as report:
        yield lambda now: report(now.done, f"{now.done}/{now.total} {now.what}", now._asdict())


@contextmanager
def exiting_as_hico(name: str) -> Iterator[None]:
    """End as `hico` does: 1 failed with one line, 130 or 143 stopped."""
    try:
        with raising_on_signals("stopped; the same command continues"):
            yield
    except (HicoError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, HicoError) else 1)

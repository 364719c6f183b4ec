"""Compare HiCo with SimCLR and controls on a small labelled set of real videos, and print all tables.

    python scripts/real_corpus.py CLONE CORPUS
    PYTHONPATH=tests python scripts/evidence/real.py CORPUS OUT [--part PART]... [--seeds 1-10] [--workers N] [--json]

settings: the supervised arm with some settings, on seed 0, which chooses them for all arms. frozen: encoders that are
not trained here. untrimmed: every arm, pretrained on all sessions without their labels. trimmed: HiCo and SimCLR-far
where each clip of a session is a video. supervised: an upper bound. Stopped, the same command continues; OUT may hold
results of several corpora. The tests' folder has the encoder with ImageNet weights, whose packages are those of
development.

Writes OUT/results.parquet, a row for each arm, seed, probe and clip.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark import num_workers, read_seeds
from real_cells import RealCell, RealCorpus, prepare_real, run_real
from real_findings import tables
from real_parts import REAL_PARTS, RealPart, cells_of, read_real
from running import BenchmarkProgress, Experiment, run_cells, write_table

from hico_cli.console import progress, raising_on_signals, result
from hico_core.base.engine import available_cores
from hico_core.base.errors import HicoError


def run_parts(
    folder: Path,
    corpus: RealCorpus,
    parts: Sequence[RealPart],
    *,
    seeds: Sequence[int],
    processes: int,
    as_json: bool,
) -> None:
    """Run all cells of some parts; report on them on stderr.

    Raises:
        HicoError: as `run_cells`.

    """
    corpus.clips()  # what is wrong with them is said before anything begins
    cells: list[RealCell] = [cell for part in parts for cell in cells_of(part, corpus, seeds=seeds)]
    with progress(corpus.name, total=len(cells), as_json=as_json) as report:

        def on_progress(now: BenchmarkProgress) -> None:
            report(now.done, f"{now.done}/{now.total} {now.what}", now._asdict())

        experiment = Experiment(prepare_real, run_real)
        run_cells(folder, cells, experiment, processes=processes, on_progress=on_progress)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and exit as `hico` does: 1 failed with one line, 2 wrong usage, 130 or 143 stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="what scripts/real_corpus.py wrote")
    parser.add_argument("out", type=Path, help="where results go")
    parser.add_argument(
        "--part", action="append", choices=REAL_PARTS, help="may be repeated; default: all but settings"
    )
    parser.add_argument("--seeds", type=read_seeds, default="1-10", help="of weights and draws, such as 1-10 or 1,2,5")
    parser.add_argument("--workers", type=num_workers, help="cells at a time, one thread each; default: one a core")
    parser.add_argument("--json", action="store_true", help="for programs")
    asked = parser.parse_args(arguments)
    try:
        with raising_on_signals("stopped; the same command continues"):
            run_parts(
                asked.out,
                RealCorpus(asked.corpus.absolute()),
                asked.part or [part for part in REAL_PARTS if part != "settings"],
                seeds=asked.seeds,
                processes=asked.workers or available_cores(),
                as_json=asked.json,
            )
        found = read_real(asked.out)
        target = write_table(asked.out, found)
    except (HicoError, OSError) as error:
        print(f"real: {error}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, HicoError) else 1)
    result(f"{tables(found)}\n\n{target}", {"results": str(target), "rows": len(found)}, as_json=asked.json)


if __name__ == "__main__":
    main()

"""Compare HiCo with SimCLR and controls on a small labelled set of real videos, and print all tables.

    python scripts/real_corpus.py CLONE CORPUS
    PYTHONPATH=tests python scripts/evidence/real.py CORPUS OUT [--part PART]... [--seeds 1-10] [--workers N] [--json]

settings: the supervised arm with some settings, on seed 0, which chooses them for all arms. frozen: encoders that are
not trained here. untrimmed: every arm, pretrained on all sessions without their labels. trimmed: HiCo and SimCLR-far
where each clip of a session is a video. supervised: an upper bound. s3dg: untrained, HiCo and SimCLR-far with S3D-G
itself instead of the small encoder, on all sessions. Stopped, the same command continues; OUT may hold results of
several corpora. The tests' folder has the encoder with ImageNet weights, whose packages are those of
development.

Writes OUT/results.parquet, a row for each arm, seed, probe and clip.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from command import add_options, exiting_as_hico, reported
from real_cells import RealCell, RealCorpus, prepare_real, run_real
from real_findings import tables
from real_parts import DEFAULT_PARTS, REAL_PARTS, RealPart, cells_of, read_real
from running import Experiment, run_cells, write_table

from hico_cli.console import result


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
    with reported(corpus.name, total=len(cells), as_json=as_json) as on_progress:
        experiment = Experiment(prepare_real, run_real)
        run_cells(folder, cells, experiment, processes=processes, on_progress=on_progress)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and exit as `hico` does: 1 failed with one line, 2 wrong usage, 130 or 143 stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="what scripts/real_corpus.py wrote")
    parser.add_argument("out", type=Path, help="where results go")
    parser.add_argument(
        "--part", action="append", choices=REAL_PARTS, help="may be repeated; default: all but settings and s3dg"
    )
    add_options(parser)
    asked = parser.parse_args(arguments)
    with exiting_as_hico("real"):
        run_parts(
            asked.out,
            RealCorpus(asked.corpus.absolute()),
            asked.part or DEFAULT_PARTS,
            seeds=asked.seeds,
            processes=asked.workers,
            as_json=asked.json,
        )
        found = read_real(asked.out)
        target = write_table(asked.out, found)
    result(f"{tables(found)}\n\n{target}", {"results": str(target), "rows": len(found)}, as_json=asked.json)


if __name__ == "__main__":
    main()

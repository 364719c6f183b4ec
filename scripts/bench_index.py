"""Cost of building and opening the index of 50,000 videos, 1.5 million rows.

python scripts/bench_index.py
"""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from bench_split import HICO, make_finished_root
from benchmarking import alternate, cost_of_command, report, summary

from hico_core.corpus.workspace.records import read_records

_NUM_VIDEOS = 50_000

# How `hico pretrain` uses the index, and how people use it.
_OPEN_FOR_TRAINING = """
import sys, time
from pathlib import Path
import torch
from hico_core.corpus.index import read_index_table
from hico_core.data.videos import COLUMNS, IndexedVideos
import resource
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
root = Path(sys.argv[1])
videos = IndexedVideos(read_index_table(root, columns=COLUMNS), root=root, subset="train", shortest_seconds=2.2)
assert len(videos.pieces(len(videos) - 1)) == 30
print(len(videos), time.perf_counter() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def main() -> None:
    """Measure, and write docs/measurements/index.json."""
    with tempfile.TemporaryDirectory(prefix="hico-bench-") as name:
        root = Path(name) / "root"
        make_finished_root(root, _NUM_VIDEOS)
        for record in read_records(root):
            for clip in record.clips:
                (root / clip.path).touch()
        built = alternate({"build": partial(cost_of_command, [*HICO, "index", "--root", root])}, rounds=3)
        opened = []
        for _ in range(3):
            command = [sys.executable, "-c", _OPEN_FOR_TRAINING, str(root)]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            opened.append({"videos": int(said[0]), "seconds": float(said[1]), "more MB than before": float(said[2])})
        size = (root / "index.parquet").stat().st_size / 1e6
    report("index", {"rows": 30 * _NUM_VIDEOS, "build": summary(built), "open for training": opened, "MB": size})


if __name__ == "__main__":
    main()

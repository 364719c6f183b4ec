"""Tests whether the loader's memory and open files stay constant over many batches.

    python scripts/bench_soak.py VIDEOS [BATCHES]

Batches are small (one video, clips of 8 frames), so that many of them pass in a few minutes; memory is what the
training process and all its descendants have allocated, shared memory included, in MB.
"""

import os
import sys
import tempfile
from pathlib import Path

import torch
from benchmarking import report

from hico_core.config import AugmentConfig, DataConfig, SamplingConfig
from hico_core.corpus.index import build_index, read_index_table
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import split_videos
from hico_core.corpus.workspace.records import SplitOptions
from hico_core.data.augment import apply_augmentation
from hico_core.data.dataset import ClipDataset
from hico_core.data.loader import read_batches
from hico_core.data.plan import Position, TrainingOrder, plan_steps
from hico_core.data.videos import IndexedVideos


def family() -> list[int]:
    """IDs of this process and all its descendants."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int(entry.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # it has ended
    found = [os.getpid()]
    for process_id in found:
        found += [child for child, parent in parents.items() if parent == process_id]
    return found


def measure() -> dict[str, float]:
    """Current memory and number of open files of these processes."""
    processes = family()
    kilobytes = 0
    for process_id in processes:
        rollup = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()
        # What the processes have allocated; library pages are shared with other programs.
        kilobytes += sum(int(line.split()[1]) for line in rollup if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    files = sum(len(list(Path(f"/proc/{process_id}/fd").iterdir())) for process_id in processes)
    return {"MB": kilobytes / 1024, "processes": len(processes), "open files": files}


def main() -> None:
    """Measure, and write docs/measurements/soak.json."""
    given, num_batches = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    with tempfile.TemporaryDirectory(prefix="hico-bench-") as name:
        root = Path(name)
        split_videos(
            find_sources([str(given)]), root=root, options=SplitOptions(), workers=2, on_event=lambda event: None
        )
        build_index(root)
        videos = IndexedVideos(read_index_table(root), root=root, shortest_seconds=64 / 30)
        dataset = ClipDataset(
            videos, data=DataConfig(num_frames=8), sampling=SamplingConfig(clips_per_video=2), augment=AugmentConfig()
        )
        plans = plan_steps(
            TrainingOrder(
                num_videos=len(videos),
                batch_size=1,
                epochs=num_batches,
                epochs_per_round=10,
                seed=0,
            ),
            max_distance_at=lambda progress: progress,
            start=Position(),
        )
        points = {}
        for number, (_, batch) in enumerate(read_batches(dataset, plans, workers=2, pin_memory=False), start=1):
            apply_augmentation(
                batch.crops_on(torch.device("cpu")), batch.draws, size=64, mean=(0.45,) * 3, std=(0.225,) * 3
            )
            if number == 500 or number % 1000 == 0:
                points[number] = measure()
                print(number, points[number], file=sys.stderr, flush=True)
            if number == num_batches:
                break
    growth = points[num_batches]["MB"] / points[500]["MB"] - 1
    report("soak", {"after batches": points, "growth from 500 to the end": growth})


if __name__ == "__main__":
    main()

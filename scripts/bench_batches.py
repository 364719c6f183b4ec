"""CPU time of a clip between its decoded frames and the training process, in short and in long videos.

    python scripts/bench_batches.py [ROUNDS]

Frames are not decoded: each clip is the same array, as a decoder would return it. The index is synthetic.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from benchmarking import report
from torch import Tensor

from hico_core.config import AugmentConfig, DataConfig, SamplingConfig
from hico_core.data import dataset as dataset_module
from hico_core.data.dataset import ClipDataset, ClipRequest, Sample
from hico_core.data.loader import read_batches
from hico_core.data.plan import Position, TrainingOrder, plan_steps
from hico_core.data.videos import IndexedVideos

WORKERS, VIDEOS_A_STEP = 2, 32
WARM_UP, MEASURED = 12, 24  # steps

# 16 frames of 192 x 341, what `hico split` makes of 16:9.
FRAMES = torch.randint(0, 256, (16, 192, 341, 3), dtype=torch.uint8)


def constant_frames(*arguments: object, **settings: object) -> Tensor:
    """Replaces `read_clip`."""
    return FRAMES


class ConstantFrames(ClipDataset):
    """A data set that decodes nothing."""

    def __getitem__(self, request: ClipRequest) -> Sample:
        """Do everything that follows decoding, as the real data set does."""
        setattr(dataset_module, "read_clip", constant_frames)  # noqa: B010 - in each worker, which has its own copy
        return super().__getitem__(request)


def made_index(*, videos: int, seconds: float) -> IndexedVideos:
    """Index videos whose files do not exist."""
    rows: list[dict[str, Any]] = []
    for video in range(videos):
        for clip in range(round(seconds / 5)):
            rows.append(
                {
                    "video_id": f"v{video:05d}",
                    "clip_index": clip,
                    "subset": "train",
                    "path": f"clips/v{video:05d}/{clip}.mp4",
                    "first_frame": 0,
                    "start_seconds": 5.0 * clip,
                    "end_seconds": 5.0 * (clip + 1),
                    "num_frames": 150,
                    "fps": 30.0,
                    "variable_fps": False,
                    "width": 341,
                    "height": 192,
                    "size_bytes": 100_000,
                    "source": "",
                    "label": None,
                }
            )
    return IndexedVideos(pa.Table.from_pylist(rows), root=Path(tempfile.gettempdir()))


class Milliseconds(NamedTuple):
    """CPU time per clip."""

    training_process: float
    workers: float


def cpu_of(processes: list[int]) -> float:
    """Total CPU seconds of some processes so far."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(videos: IndexedVideos) -> Milliseconds:
    """Read some batches without using them."""
    dataset = ConstantFrames(videos, data=DataConfig(), sampling=SamplingConfig(), augment=AugmentConfig())
    plans = plan_steps(
        TrainingOrder(
            num_videos=len(videos),
            batch_size=VIDEOS_A_STEP,
            epochs=10**6,
            epochs_per_round=10,
            seed=0,
        ),
        max_distance_at=lambda progress: progress,
        start=Position(),
    )
    batches = read_batches(dataset, islice(plans, WARM_UP + MEASURED), workers=WORKERS, pin_memory=False)
    for _ in islice(batches, WARM_UP):
        pass
    workers = [process.pid for process in multiprocessing.active_children() if process.pid is not None]
    own, theirs = time.process_time(), cpu_of(workers)
    clips = 0
    for _, batch in islice(batches, MEASURED - 2 * WORKERS):  # the workers read this far ahead
        clips += len(batch.draws)
    own, theirs = time.process_time() - own, cpu_of(workers) - theirs
    batches.close()
    return Milliseconds(1000 * own / clips, 1000 * theirs / clips)


def main() -> None:
    """Alternate short and long videos."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    lengths = {"videos of 1 minute": 60.0, "videos of 2 hours": 7200.0}
    indexes = {name: made_index(videos=400, seconds=seconds) for name, seconds in lengths.items()}
    found: dict[str, list[Milliseconds]] = {name: [] for name in lengths}
    for _ in range(rounds):
        for name, videos in indexes.items():
            found[name].append(measure(videos))
            print(name, found[name][-1], file=sys.stderr, flush=True)
    report(
        "batches",
        {
            "milliseconds of CPU a clip": {
                name: {
                    field: {
                        "median": median(getattr(row, field) for row in rows),
                        "min": min(getattr(row, field) for row in rows),
                        "max": max(getattr(row, field) for row in rows),
                    }
                    for field in Milliseconds._fields
                }
                for name, rows in found.items()
            }
        },
    )


if __name__ == "__main__":
    main()

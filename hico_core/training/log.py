"""What a run says of itself: metrics.jsonl, a line a step."""

import json
from pathlib import Path
from typing import NamedTuple, TextIO


class StepMetrics(NamedTuple):
    """One line of metrics.jsonl."""

    step: int  # from 1
    epoch: float  # passes over the videos done before the step
    loss: float
    visual: float  # the loss's parts, unweighted
    topical: float | None
    lr: float
    distance: float | None  # largest distance of the near clips' centres, seconds; None: any
    clips_per_second: float
    data_seconds: float  # spent waiting for the step's clips
    step_seconds: float  # of the whole step, waiting included
    bad_videos: int  # different videos that could not be decoded, so far
    embedding_std: float  # mean over dimensions; near 0 when all embeddings are alike (collapse)


class MetricsLog:
    """Appends to metrics.jsonl, each line at once."""

    def __init__(self, path: Path, *, keep_steps: int) -> None:
        """Open for appending; lines after step `keep_steps`, of work that is done again, are dropped."""
        kept: list[str] = []
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            complete = [line for line in lines if line.endswith("}")]
            kept = [line for line in complete if json.loads(line)["step"] <= keep_steps]
        self._file: TextIO = path.open("w", encoding="utf-8", buffering=1)
        self._file.writelines(line + "\n" for line in kept)

    def write(self, metrics: StepMetrics) -> None:
        """Add a step."""
        self._file.write(json.dumps(metrics._asdict()) + "\n")

    def close(self) -> None:
        """No more steps."""
        self._file.close()

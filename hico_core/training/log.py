"""What a run says of itself: metrics.jsonl, a line a step, and the same for TensorBoard."""

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
    effective_rank: float  # directions that the embeddings of the step use
    knn_accuracy: float | None = None  # with the weights before the step; None where it was not measured

    @property
    def waiting(self) -> float:
        """Part of the step's time spent waiting for clips."""
        return self.data_seconds / self.step_seconds


class RunLog:
    """Appends to metrics.jsonl, each line at once, and to TensorBoard's files."""

    def __init__(self, run_dir: Path, *, keep_steps: int) -> None:
        """Open for appending; what was said of steps after `keep_steps`, which are done again, is dropped."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only the first process writes

        path = run_dir / "metrics.jsonl"
        kept: list[str] = []
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            complete = [line for line in lines if line.endswith("}")]
            kept = [line for line in complete if json.loads(line)["step"] <= keep_steps]
        self._file: TextIO = path.open("w", encoding="utf-8", buffering=1)
        self._file.writelines(line + "\n" for line in kept)
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=keep_steps + 1)

    def write(self, metrics: StepMetrics) -> None:
        """Add a step."""
        fields = metrics._asdict()
        self._file.write(json.dumps(fields) + "\n")
        for name, value in {**fields, "waiting": metrics.waiting}.items():
            if value is not None and name != "step":
                self._board.add_scalar(name, value, metrics.step)

    def close(self) -> None:
        """No more steps."""
        self._file.close()
        self._board.close()

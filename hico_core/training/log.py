"""The log of a run: metrics.jsonl, one line per step, and the same for TensorBoard and Weights & Biases."""

import json
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from hico_core.base.errors import require_package
from hico_core.base.files import cut_json_lines, room_error
from hico_core.base.storage import write_text


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """A line of metrics.jsonl."""

    step: int  # counted from 1
    epoch: float  # passes over the videos before this step
    loss: float
    visual: float  # the parts of the loss, unweighted
    topical: float | None
    lr: float
    distance: float | None  # largest distance between the centres of near clips, seconds; None: no limit
    clips_per_second: float
    data_seconds: float  # spent waiting for the step's clips
    step_seconds: float  # of the whole step, waiting included
    bad_videos: int  # number of different videos that could not be decoded so far
    skipped_steps: int  # before this one, because gradients overflowed float16
    embedding_std: float  # mean over dimensions; near 0 if all embeddings are alike (collapse)
    effective_rank: float  # number of directions that the embeddings of the step use
    knn_accuracy: float | None = None  # with the weights before the step; None if not measured


def part_waiting(fields: Mapping[str, float | None]) -> float:
    """Fraction of a step's time spent waiting for clips."""
    waited, whole = fields["data_seconds"], fields["step_seconds"]
    assert waited is not None and whole
    return waited / whole


def require_wandb(project: str | None) -> None:
    """Check that the wandb package is installed if metrics are to be sent.

    Raises:
        UsageError: it is not installed.

    """
    if project is not None:
        require_package("wandb", extra="wandb", wanted_by="train.wandb_project")


class _Board:
    """TensorBoard's file of a run.

    TensorBoard's own writer writes in a thread, which prints its errors as tracebacks.
    """

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        """Begin a file, in which steps from `purge_step` on replace those of earlier files."""
        from tensorboard.compat.proto import event_pb2, summary_pb2  # slow to import; only the first process writes
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time_ns()  # files are read in the order of their names
        self._records = RecordWriter((folder / f"events.out.tfevents.{now // 10**9:010d}.{now}").open("wb"))
        begins = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        for event in ({"file_version": "brain.Event:2"}, {"step": purge_step, "session_log": begins}):
            self._write(**event)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(step=step, summary=self._summary(value=values))

    def _write(self, **fields: object) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()

    def close(self) -> None:
        self._records.close()


class RunLog:
    """Appends each step to metrics.jsonl at once, and to TensorBoard's files and, if asked, Weights & Biases.

    A line must be on the disk before the checkpoint that counts its step; writing it takes microseconds. The other two
    take a millisecond and run beside the step.
    """

    def __init__(self, run_dir: Path, *, keep_steps: int, wandb_project: str | None = None) -> None:
        """Open for appending; drop the lines of steps after `keep_steps`, which are repeated.

        Weights & Biases drops nothing: it ignores steps that it already has.
        """
        self._run_dir, path = run_dir, run_dir / "metrics.jsonl"
        cut_json_lines(path, lambda line: isinstance(line.get("step"), int) and line["step"] <= keep_steps)
        self._file: TextIO = path.open("a", encoding="utf-8", buffering=1)
        self._board = _Board(run_dir / "tensorboard", purge_step=keep_steps + 1)
        self._beside = ThreadPoolExecutor(max_workers=1)
        self._sending: Future[None] | None = None
        self._wandb = None
        if wandb_project is not None:
            import wandb

            known_as = run_dir / "wandb-id"  # kept in the folder, so that a run that is moved keeps its identity there
            if not known_as.exists():
                write_text(known_as, secrets.token_hex(8))
            self._wandb = wandb.init(
                project=wandb_project, name=run_dir.name, id=known_as.read_text(), resume="allow", dir=str(run_dir)
            )

    def write(self, fields: Mapping[str, float | None]) -> None:
        """Log a step.

        Args:
            fields: the step's number, from 1, and its measurements, which include its seconds and those spent waiting
                for data.

        """
        try:
            self._file.write(json.dumps(dict(fields)) + "\n")
            if self._sending is not None and self._sending.done():
                self._sending.result()  # raises if sending failed
        except OSError as error:
            raise room_error(error, self._run_dir) or error from error
        step = fields["step"]
        assert step is not None
        measured = {**fields, "waiting": part_waiting(fields)}
        scalars = {name: value for name, value in measured.items() if value is not None and name != "step"}
        self._sending = self._beside.submit(self._send, int(step), scalars)

    def _send(self, step: int, scalars: Mapping[str, float]) -> None:
        self._board.write(step, scalars)
        if self._wandb is not None:
            self._wandb.log(dict(scalars), step=step)

    def close(self) -> None:
        """Close the log; no more steps follow."""
        self._beside.shutdown()
        with suppress(OSError):  # a full disk has been reported by `write`, whose line is flushed again here
            self._file.close()
        with suppress(OSError):
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()

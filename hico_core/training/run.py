"""One training run, from its current position to its end: what pretraining and finetuning have in common.

A training provides its batches and does the update for each; the run handles position, signals, checkpoints, bad
videos, log and time, and leaves on the disk everything that it needs to continue exactly:

    with entered_run(task, free=...) as entered:
        learner = ...
        with opened_training(task, entered, learner, index=..., watch=watch) as training:
            for plan, batch in training.arriving(batches):
                training.save_if_due(plan)
                if training.must_stop(plan):
                    break
                training.check_videos(batch)
                metrics = ...
                training.done(plan, metrics)
            training.end()
"""

import logging
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import torch

from hico_core.base.errors import HicoError, Interrupted, NoRoom
from hico_core.checkpoints.content import (
    BEST,
    LAST,
    Content,
    EncoderOrigin,
    Progress,
    checkpoint_of,
    take_last,
    write_bytes,
    write_of_run,
)
from hico_core.data.batches import Batch
from hico_core.data.plan import PlannedStep
from hico_core.data.videos import IndexIdentity
from hico_core.encoding.hardware import choose_device, telling_full_memory
from hico_core.training.distributed import World, from_first, gather_objects, joined_world, largest, own_device
from hico_core.training.learner import Learner, Model
from hico_core.training.log import RunLog
from hico_core.training.resume import go_on_from, require_one_index
from hico_core.training.run_folder import opened_run, require_same_run, write_config
from hico_core.training.started import write_started
from hico_core.training.stopping import StopRequest
from hico_core.training.task import Settings, Task, Watch

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

# Losses of single steps fluctuate; a run's summary compares means.
_LOSSES_IN_A_MEAN = 10

# Settings that change how a run is carried out but not its result: free to differ on resuming.
FREE_ON_RESUME = {
    *("data.workers", "data.cache_dir", "data.cache_gb", "data.decoder", "data.max_bad_fraction"),
    "data.memory_gb",
    *("train.max_steps", "train.checkpoint_seconds"),
}


class Entered(NamedTuple):
    """The state that a training finds when it begins or continues."""

    world: World
    device: torch.device  # of this process
    checkpoint: Content | None  # the run's last one


@contextmanager
def entered_run(task: Task[Settings], *, free: Collection[str]) -> Iterator[Entered]:
    """Join the other processes, lock the run's folder, and read its last checkpoint.

    One process reads the checkpoint and sends it to all: the others may not see the folder, or may see an older state
    of it.

    Args:
        task: the training to do.
        free: settings that may differ on resuming; see `require_same_run`.

    Raises:
        HicoError: the processes do not find each other, the folder belongs to another run or is in use, its checkpoints
            cannot be read, or a step does not fit into memory.

    """
    chosen = choose_device(task.device)
    with joined_world(chosen) as world, ExitStack() as stack:
        checkpoint = None
        if world.is_first:
            stack.enter_context(opened_run(task.run_dir))
            require_same_run(task.run_dir, task.config, resume=task.resume, free=free, allow_changed=task.allow_changed)
            checkpoint = take_last(task.run_dir / "checkpoints")
        own = own_device(chosen, world)
        with telling_full_memory(task.config.train.batch_size // world.size, own), _naming_what_continues(task):
            yield Entered(world, own, from_first(checkpoint, world))


@contextmanager
def _naming_what_continues(task: Task[Settings]) -> Iterator[None]:
    """If a disk is full, name the command that continues the run."""
    try:
        yield
    except NoRoom as full:
        raise NoRoom(str(full).replace("the same command", task.same_command)) from full


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaves:
    """What a run writes besides its configuration, its log and its last checkpoints.

    Attributes:
        keep_every: keep a checkpoint every this many epochs.
        wandb_project: see `RunLog`.
        encoder: the file that finetuning began from; checkpoints hold its network and name it.
        first_weights: the file of pretraining's first weights, which is named only in the record of the run's start.
        exports: (progress, mean loss of this call's last steps) -> files that are written with the checkpoints.

    """

    keep_every: int | None = None
    wandb_project: str | None = None
    encoder: EncoderOrigin | None = None
    first_weights: EncoderOrigin | None = None
    exports: Callable[[Progress, float | None], Mapping[Path, bytes]] = lambda progress, loss: {}


@contextmanager
def opened_training(
    task: Task[Settings],
    entered: Entered,
    learner: Learner[Model],
    *,
    index: IndexIdentity,
    watch: Watch,
    leaves: Leaves = Leaves(),
) -> Iterator["Training[Settings, Model]"]:
    """Open a run at its current position: at its beginning, or with its last checkpoint loaded.

    Args:
        task: the training to do.
        entered: from `entered_run`.
        learner: what is trained.
        index: of the videos to train on.
        watch: receives reports on the training.
        leaves: what is written besides the usual files.

    Raises:
        UsageError: something has changed that affects the result, and the task does not allow it.
        HicoError: the checkpoint is of another model, or the processes read different indexes.

    """
    world = entered.world
    require_one_index(index, world)
    if entered.checkpoint is not None:
        progress = go_on_from(entered.checkpoint, learner, task, index=index, world=world)
    else:
        progress = Progress(index=index, world_size=world.size)
        if world.is_first:
            began_from = leaves.encoder or leaves.first_weights
            write_started(task.run_dir, command=task.command, encoder=began_from, folder=Path.cwd())
    progress = progress.model_copy(update={"encoder": progress.encoder or leaves.encoder})
    with closing(Training(task, learner, progress, world=world, watch=watch, leaves=leaves)) as training:
        yield training


class Metrics(Protocol):
    """A line of the log: a dataclass with the step's number and times among its fields."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def loss(self) -> float:
        """The loss of the step."""


class StepTimes(NamedTuple):
    """The time that a step took."""

    clips_per_second: float
    data_seconds: float  # spent waiting for the step's clips
    step_seconds: float  # of the whole step, waiting included


class _Agreed(NamedTuple):
    """Values that may differ between processes, on which they agree."""

    since_saved: float  # seconds
    signal_number: int  # 0: none
    has_unusable: bool
    is_over: bool


def kept_epoch(before: float, now: float, *, every: int) -> int | None:
    """The epoch that ended between two steps, if its checkpoint is to be kept.

    before 9.8, now 10.1, every 10  ->  10
    """
    last = int(now) // every * every
    return last if last > before else None


class Training(Generic[Settings, Model]):
    """A run in its folder; only the first process writes, and all processes make the same decisions."""

    def __init__(
        self,
        task: Task[Settings],
        learner: Learner[Model],
        progress: Progress,
        *,
        world: World,
        watch: Watch,
        leaves: Leaves,
    ) -> None:
        """Begin, or continue from `progress`; see `opened_training`."""
        self.progress = progress
        self.bad_videos = dict.fromkeys(progress.bad_videos, "found before resuming")
        self._task, self._learner, self._world, self._watch, self._leaves = task, learner, world, watch, leaves
        self._losses: list[float] = []  # of this call's steps
        self._first_step = progress.position.step
        self._finished = True
        self._agreed = _Agreed(0.0, 0, has_unusable=False, is_over=False)
        self._saved_at = self._step_began = self._got_data = time.monotonic()
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[None] | None = None
        self._log: RunLog | None = None
        if world.is_first:
            write_config(task.run_dir, task.config)
            self._log = RunLog(task.run_dir, keep_steps=self._first_step, wandb_project=leaves.wandb_project)

    def arriving(
        self, batches: Generator[tuple[PlannedStep, Batch], None, None]
    ) -> Iterator[tuple[PlannedStep, Batch]]:
        """Yield each planned step with its clips, as soon as they have arrived.

        Raises:
            HicoError: a checkpoint could not be written.
            Interrupted: a signal ended the wait; a checkpoint was written.

        """
        self._saved_at = self._step_began = time.monotonic()
        with closing(batches):
            while (arrived := self._next_of(batches)) is not None:
                plan, batch = arrived
                self._got_data = time.monotonic()
                self._note(epochs_done=plan.epoch)
                if self._writing is not None and self._writing.done():
                    self.finish_writing()
                since_saved, signal_number, num_unusable, is_over = largest(
                    [
                        self._got_data - self._saved_at,
                        float(self._watch.stop.signal_number or 0),
                        float(len(batch.unusable)),
                        float(self._watch.is_over()),
                    ],
                    self._world,
                )
                self._agreed = _Agreed(since_saved, int(signal_number), num_unusable > 0, is_over > 0)
                yield plan, batch

    def _next_of(self, batches: Generator[tuple[PlannedStep, Batch], None, None]) -> tuple[PlannedStep, Batch] | None:
        try:
            with self._watch.stop.may_interrupt():
                return next(batches, None)
        except Interrupted as interrupted:
            self._end_by_signal(interrupted.exit_code - 128)
            raise

    def ends_epoch(self, plan: PlannedStep, *, every: int) -> int | None:
        """The epoch that ended with the previous step, if it is a multiple of `every`; see `kept_epoch`."""
        last = self.progress.last_step_epoch
        return None if last is None else kept_epoch(last, plan.epoch, every=every)

    def save_if_due(self, plan: PlannedStep) -> None:
        """Write the last checkpoint at intervals of time, and a checkpoint to keep after some epochs.

        Raises:
            HicoError: the previous checkpoints could not be written.

        """
        keep_every = self._leaves.keep_every
        kept = self.ends_epoch(plan, every=keep_every) if keep_every else None
        has_steps = plan.position.step > self._first_step
        if kept or (has_steps and self._agreed.since_saved >= self._task.config.train.checkpoint_seconds):
            self.save(*([_kept_name(kept)] if kept else []), LAST)
            self._saved_at = time.monotonic()

    def must_stop(self, plan: PlannedStep) -> bool:
        """Whether the requested number of steps is done or the time is up.

        Raises:
            Interrupted: a signal ended the run; a checkpoint was written.

        """
        if self._agreed.signal_number:
            self._end_by_signal(self._agreed.signal_number)
        max_steps = self._task.config.train.max_steps
        self._finished = not self._agreed.is_over and (max_steps is None or plan.position.step < max_steps)
        return not self._finished

    def _end_by_signal(self, number: int) -> None:
        self.save(LAST)
        self.finish_writing()
        step = self.progress.position.step
        raise Interrupted(number, f"stopped after step {step}; {self._task.same_command} continues")

    def measure(self, how: Callable[[StopRequest], Value]) -> Value:
        """Measure the current weights between two steps, or after the last one.

        Args:
            how: measures them in all processes; a request to end raises `Interrupted` in all of them.

        Raises:
            Interrupted: a signal ended the run; a checkpoint was written.

        """
        try:
            return how(self._watch.stop)
        except Interrupted as interrupted:
            self._end_by_signal(interrupted.exit_code - 128)
            raise

    def check_videos(self, batch: Batch) -> None:
        """Report the videos, in all processes' shares, that have newly turned out to be bad.

        Raises:
            HicoError: there are too many bad videos.

        """
        if not self._agreed.has_unusable:
            return
        found = chain.from_iterable(gather_objects(batch.unusable, self._world))
        new = {bad.video_id: bad.reason for bad in found if bad.video_id not in self.bad_videos}
        self.bad_videos |= new
        num_videos = self.progress.index.num_videos if self.progress.index else 0
        check_bad_videos(self.bad_videos, num_videos, self._task.config.data.max_bad_fraction)
        for video_id, reason in new.items():
            self._watch.on_bad_video(video_id, reason)

    def times(self, num_clips: int) -> StepTimes:
        """The time that the current step has taken; `num_clips` is its number of clips over all processes."""
        whole = time.monotonic() - self._step_began
        return StepTimes(num_clips / whole, self._got_data - self._step_began, whole)

    def done(self, plan: PlannedStep, metrics: Metrics) -> None:
        """Log and count a finished step."""
        self._losses.append(metrics.loss)
        if self._log is not None:
            self._log.write(asdict(metrics))
            self._watch.on_step(metrics)
        self._note(position=plan.position.after_step(), last_step_epoch=plan.epoch)
        self._step_began = time.monotonic()

    def end(self) -> None:
        """Write the last checkpoint, and wait until it is on the disk.

        Raises:
            HicoError: the checkpoint cannot be written.

        """
        epochs = self._task.config.train.epochs
        if self._finished:
            self._note(epochs_done=float(epochs))
        self.save(*([_kept_name(epochs)] if self._finished and self._leaves.keep_every else []), LAST)
        self.finish_writing()

    def _note(self, **changes: Any) -> None:  # noqa: ANN401 - fields of Progress
        self.progress = self.progress.model_copy(update=changes)

    def note_best(self, accuracy: float) -> None:
        """Save the current weights as the best ones if their accuracy is the highest so far."""
        best = self.progress.best_accuracy
        if best is None or accuracy > best:
            self._note(best_accuracy=accuracy)
            self.save(BEST)

    def save(self, *names: str) -> None:
        """Write checkpoints of these names, and their exports, in their current state; training continues meanwhile.

        Raises:
            HicoError: the previous checkpoints could not be written.

        """
        if not self._world.is_first:
            return
        self.finish_writing()
        checkpoint = checkpoint_of(
            model=self._learner.model,
            optimizer=self._learner.optimizer,
            scaling=self._learner.scaling.state_dict(),
            progress=self.progress.model_copy(update={"bad_videos": list(self.bad_videos)}),
            config=self._task.config.model_dump(mode="json"),
        )
        paths = [self._task.run_dir / "checkpoints" / name for name in names]
        exports = self._leaves.exports(self.progress, self.last_loss)
        self._writing = self._writer.submit(_write, paths, checkpoint, exports)

    def finish_writing(self) -> None:
        """Wait until the checkpoints are on the disk.

        Raises:
            HicoError: they could not be written.

        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Finish writing, and close the log.

        If that fails, it is only a warning: training has failed before, and its error says why.
        """
        self._writer.shutdown()
        error = self._writing.exception() if self._writing is not None else None
        if error is not None:
            logger.warning("%s", error)
        if self._log is not None:
            self._log.close()

    @property
    def steps_done(self) -> int:
        """Number of steps done in the whole run."""
        return self.progress.position.step

    @property
    def first_loss(self) -> float | None:
        """Mean loss of this call's first steps; None if it had nothing left to do."""
        return fmean(self._losses[:_LOSSES_IN_A_MEAN]) if self._losses else None

    @property
    def last_loss(self) -> float | None:
        """Mean loss of this call's last steps."""
        return fmean(self._losses[-_LOSSES_IN_A_MEAN:]) if self._losses else None


def _kept_name(epoch: int) -> str:
    return f"epoch_{epoch:04d}.pt"


def _write(paths: Sequence[Path], checkpoint: memoryview, exports: Mapping[Path, bytes]) -> None:
    """Write a checkpoint under several names, and other files."""
    for path in paths:
        write_of_run(path, checkpoint)
    for path, content in exports.items():
        write_bytes(path, content)


def check_bad_videos(bad: dict[str, str], num_videos: int, allowed: float) -> None:
    """End the run if too many videos cannot be decoded.

    Raises:
        HicoError: too many cannot; names the last one.

    """
    if len(bad) > allowed * num_videos:
        video_id, reason = list(bad.items())[-1]
        raise HicoError(
            f"{len(bad)} of {num_videos} videos cannot be decoded, more than data.max_bad_fraction={allowed}; "
            f"the last one is {video_id} ({reason}); repair or remove them, or allow more with "
            f"-o data.max_bad_fraction={min(1.0, 2 * len(bad) / num_videos):.2g}"
        )

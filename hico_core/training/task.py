"""What a training is to do, and who observes it; a task is plain values, which can be sent to another process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from hico_core.base.addresses import Location
from hico_core.base.choices import DeviceName
from hico_core.config import Config, FinetuneConfig
from hico_core.training.stopping import StopRequest

Settings = TypeVar("Settings", bound=Config | FinetuneConfig)


@dataclass(frozen=True, kw_only=True)
class Task(Generic[Settings]):
    """A training: which videos, which settings and which folder.

    Attributes:
        config: of the run.
        root: the workspace with index.parquet.
        run_dir: folder for its files.
        encoder: a checkpoint of ours or the authors' that a new run starts from.
        device: see `choose_device`.
        resume: continue from the run's last checkpoint, or start if there is none.
        lower_batch: lower the batch size to the number of videos and to what fits into the free memory.
        allow_changed: let a resumed run have other epochs, batch size, number of processes or index.
        command: as typed, if any; a new run records it.

    """

    config: Settings
    root: Location
    run_dir: Path
    encoder: Path | None = None
    device: "DeviceName" = "auto"
    resume: bool = False
    lower_batch: bool = False
    allow_changed: bool = False
    command: tuple[str, ...] = ()

    @property
    def same_command(self) -> str:
        """What continues the task on the command line once it has begun, in words."""
        return "the same command" if self.resume else "the same command with --resume"


def _ignore(*event: object) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Callbacks that receive a training's progress, and ways to end it.

    Attributes:
        on_step: called with the metrics of each step, in the first process.
        on_bad_video: called once with the id and reason of each video that cannot be decoded.
        on_tested: called with the number of videos that this process has tested, and the total.
        is_over: called before each step; true ends the run there, in the middle of its schedule, like
            `train.max_steps`.
        stop: a request to end; the run ends with a checkpoint.

    """

    on_step: Callable[[Any], None] = _ignore
    on_bad_video: Callable[[str, str], None] = _ignore
    on_tested: Callable[[int, int], None] = _ignore
    is_over: Callable[[], bool] = _never
    stop: StopRequest = field(default_factory=StopRequest)

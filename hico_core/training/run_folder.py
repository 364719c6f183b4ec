"""The folder of a run, which holds one configuration from beginning to end and is used by one command at a time."""

import logging
import shlex
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from hico_core.base.errors import UsageError, counted
from hico_core.base.files import lock, remove_abandoned
from hico_core.base.storage import write_text
from hico_core.checkpoints.content import BEFORE_LAST, LAST, read_last
from hico_core.config import as_override, compose_config, dump_config, flat_settings, read_yaml_file

logger = logging.getLogger(__name__)

Schema = TypeVar("Schema", bound=BaseModel)

_CONFIG = "config.yaml"

# Settings whose change on resuming affects the rest of the run, and their options.
CHANGEABLE_ON_RESUME = {"train.batch_size": "--batch-size", "train.epochs": "--epochs"}


@contextmanager
def opened_run(run_dir: Path) -> Iterator[None]:
    """Lock a run's folder, which is made if it is missing; a new one is kept only if `write_config` was called.

    Raises:
        HicoError: another process trains in it.

    """
    is_new = not run_dir.exists()
    busy = f"{run_dir}: another process is training in this run; wait for it to end, or use another --name"
    try:
        with lock(run_dir / ".lock", refusal=busy):
            for folder in (run_dir, run_dir / "checkpoints", run_dir / "export"):
                remove_abandoned(folder)
            yield
    finally:
        if is_new and not (run_dir / _CONFIG).exists():
            shutil.rmtree(run_dir, ignore_errors=True)


def write_config(run_dir: Path, config: BaseModel) -> None:
    """Write the configuration; from now on the folder is a run's."""
    write_text(run_dir / _CONFIG, dump_config(config))


def has_steps(run_dir: Path) -> bool:
    """Whether a run has anything to lose."""
    metrics = run_dir / "metrics.jsonl"
    has_lines = metrics.exists() and metrics.stat().st_size > 0
    return has_lines or has_checkpoints(run_dir) or any(run_dir.glob("export/encoder.*"))


def has_checkpoints(run_dir: Path) -> bool:
    """Whether a run has checkpoints, so that it continues instead of starting."""
    return any(run_dir.glob("checkpoints/*.pt"))


def why_anew(run_dir: Path) -> str:
    """Why a run that is to continue starts from its first step, in words; empty if it has checkpoints."""
    if has_checkpoints(run_dir):
        return ""
    if (run_dir / _CONFIG).exists():
        return f"{run_dir}: no checkpoint yet; starting again from step 1"
    near = get_close_matches(run_dir.name, [file.parent.name for file in run_dir.parent.glob(f"*/{_CONFIG}")], n=1)
    return f"{run_dir}: no run to continue; starting a new one" + (f"; the nearest run is {near[0]}" if near else "")


def part_done(run_dir: Path) -> str:
    """How much of a training is done, such as "12 of 300 epochs"; empty if all of it, or if it has no checkpoint.

    Raises:
        HicoError: there are checkpoints, but none can be read.

    """
    last = read_last(run_dir / "checkpoints")
    if last is None or last.progress.epochs_done >= last.config["train"]["epochs"]:
        return ""
    return f"{last.progress.epochs_done:.4g} of {counted(last.config['train']['epochs'], 'epoch')}"


def config_of(run_dir: Path, kind: type[Schema]) -> Schema | None:
    """The configuration of a run that has steps: its config.yaml, or, where that is lost, its last checkpoint's.

    None if there is no such run, or neither file.
    """
    if not has_steps(run_dir):
        return None
    written = run_dir / _CONFIG
    if written.exists():
        return compose_config(kind, read_yaml_file(written), origin=str(written))
    checkpoint = read_last(run_dir / "checkpoints")
    if checkpoint is None:
        return None
    return compose_config(kind, checkpoint.config, origin=f"{run_dir / 'checkpoints'}: the configuration of the run")


def require_same_run(
    run_dir: Path, config: BaseModel, *, resume: bool, free: Collection[str], allow_changed: bool
) -> None:
    """Check that a folder belongs to the same run, if it has steps.

    A run that ended before its first step was done, for example because it did not fit into memory, may start again
    with any configuration.

    Args:
        run_dir: the folder.
        config: of the run.
        resume: continue an existing run.
        free: settings that may differ on resuming, since they do not affect the result.
        allow_changed: `CHANGEABLE_ON_RESUME` may differ, too, although they affect the result; this is logged.

    Raises:
        UsageError: the folder holds a run and `resume` is not set, or the run has another configuration.

    """
    if not has_checkpoints(run_dir) and not ((run_dir / _CONFIG).exists() and has_steps(run_dir)):
        return
    if not resume:
        raise UsageError(f"{run_dir}: the run already exists; continue it with --resume, or use another --name")
    kept = [*run_dir.glob("checkpoints/*.pt"), *run_dir.glob("export/encoder.*")]
    if kept and not any((run_dir / "checkpoints" / name).exists() for name in (LAST, BEFORE_LAST)):
        raise UsageError(
            f"{run_dir}: has no checkpoints/{LAST} to continue from, and starting again would overwrite "
            f"{kept[0].relative_to(run_dir)}; use another --name"
        )
    before = config_of(run_dir, type(config))
    assert before is not None
    old = flat_settings(before)
    now = flat_settings(config)
    changed = [key for key in now if now[key] != old[key] and key not in free]
    if "train.epochs" in changed:  # --epochs also changes the warm-up, so the user need not have set that
        changed = [key for key in changed if key != "optim.warmup_epochs"]
    for key in changed:
        if not (allow_changed and key in CHANGEABLE_ON_RESUME):
            option, setting = CHANGEABLE_ON_RESUME.get(key), shlex.quote(as_override(key, old[key]))
            was = f"{option} {old[key]}, continue anyway with --allow-changed" if option else f"-o {setting}"
            differs = f"this run has {key}={old[key]}, not {now[key]}"
            raise UsageError(f"{run_dir}: {differs}; resume it with {was}, or use another --name")
        if key != "train.epochs":  # reported together with the schedule that follows from it
            logger.warning("%s: %s was %s and is %s from here on", run_dir, key, old[key], now[key])

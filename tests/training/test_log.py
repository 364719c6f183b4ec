"""A run's metrics are there for programs and in TensorBoard, each step once, also after resuming."""

import json
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from full_disks import files_of_at_most
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hico_core.base.errors import NoRoom, UsageError
from hico_core.training.log import RunLog, StepMetrics, require_wandb


def metrics(step: int, loss: float) -> StepMetrics:
    return StepMetrics(
        step=step,
        epoch=0.5,
        loss=loss,
        visual=loss,
        topical=None,
        lr=0.1,
        distance=0.5,
        clips_per_second=3.0,
        data_seconds=1.0,
        step_seconds=4.0,
        bad_videos=0,
        skipped_steps=0,
        embedding_std=0.08,
        effective_rank=5.0,
    )


@pytest.mark.processes
def test_weights_and_biases_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log = RunLog(tmp_path, keep_steps=0, wandb_project="hico")
    log.write(asdict(metrics(1, 2.5)))
    log.close()
    (written,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    # Its own process writes the file, and may do so just after `finish` returns.
    until = time.monotonic() + 30
    while b"effective_rank" not in written.read_bytes() and time.monotonic() < until:
        time.sleep(0.05)
    assert b"effective_rank" in written.read_bytes()


def test_without_the_package_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hico_core.base.errors.find_spec", lambda name: None)
    require_wandb(None)
    with pytest.raises(UsageError, match="pip install"):
        require_wandb("hico")


@pytest.mark.parametrize("num_bytes", [500, 2500])
def test_a_full_disk_is_one_error_and_no_traceback(
    tmp_path: Path, num_bytes: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whether metrics.jsonl or TensorBoard's file, which is the larger one, has no room left; closing adds nothing."""
    log = RunLog(tmp_path, keep_steps=0)
    with files_of_at_most(num_bytes):
        with pytest.raises(NoRoom, match="File too large; free some space"):
            for step in range(1, 200):
                log.write(asdict(metrics(step, 1.0)))
                time.sleep(0.01)  # so that a step's numbers are in TensorBoard's file before the next one
        log.close()
    sizes = [(tmp_path / "metrics.jsonl").stat().st_size, *(f.stat().st_size for f in tmp_path.glob("tensorboard/*"))]
    assert max(sizes) == num_bytes and capfd.readouterr().err == ""


def test_steps_that_are_done_again_replace_the_old_ones(tmp_path: Path) -> None:
    for keep, steps, loss in ((0, (1, 2, 3), 1.0), (2, (3, 4), 2.0)):
        log = RunLog(tmp_path, keep_steps=keep)
        for step in steps:
            log.write(asdict(metrics(step, loss)))
        log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]

    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = board.Tags()["scalars"]
    assert {"loss", "visual", "lr", "embedding_std", "effective_rank", "waiting"} <= set(scalars)
    assert "topical" not in scalars and "knn_accuracy" not in scalars
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]
    assert board.Scalars("waiting")[0].value == 0.25

"""What has changed since a run's last checkpoint is refused, or named and allowed; a run that starts anew says so."""

from dataclasses import replace
from pathlib import Path

import pytest

from hico_cli.processes import resumed
from hico_core.base.errors import UsageError
from hico_core.config import preset
from hico_core.training.distributed import World
from hico_core.training.resume import _require_processes
from hico_core.training.task import Task


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [(1, 2, "had 1 process and has 2 now"), (2, 1, "had 2 processes and has 1 now"), (2, 2, None), (None, 2, None)],
)
def test_another_number_of_processes(before: int | None, now: int, said: str | None, tmp_path: Path) -> None:
    """A converted checkpoint does not know its number."""
    task = Task(config=preset("hacs-hico-s"), root=tmp_path, run_dir=tmp_path / "run")
    if said is None:
        _require_processes(before, World(size=now), task)
    else:
        with pytest.raises(UsageError, match=f"run: this run {said}; use as many as before, or add --allow-changed"):
            _require_processes(before, World(size=now), task)


@pytest.mark.parametrize(
    ("name", "restarts", "said"),
    [
        ("done", "0", ""),
        ("tinny", "0", "tinny: no run to continue; starting a new one; the nearest run is tiny"),
        ("other", "0", "other: no run to continue; starting a new one"),
        ("tiny", "0", "tiny: no checkpoint yet; starting again from step 1"),
        ("tiny", "1", ""),
    ],
)
def test_resuming_what_has_no_checkpoint_starts_with_a_warning(
    name: str,
    restarts: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The name may be misspelt; only the launcher's own restart is silent."""
    (tmp_path / "runs/done/checkpoints").mkdir(parents=True)
    (tmp_path / "runs/done/checkpoints/last.pt").touch()
    (tmp_path / "runs/tiny").mkdir()
    (tmp_path / "runs/tiny/config.yaml").touch()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
    task = Task(config=preset("hacs-hico-s"), root=tmp_path, run_dir=tmp_path / "runs" / name, resume=True)
    assert resumed(task).resume
    assert capsys.readouterr().err == (f"hico: {tmp_path}/runs/{said}\n" if said else "")
    resumed(replace(task, resume=False))
    assert capsys.readouterr().err == ""

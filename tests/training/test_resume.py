"""What has changed since a run's last checkpoint is refused, or named and allowed."""

from pathlib import Path

import pytest

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

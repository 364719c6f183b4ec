"""A batch is lowered to the videos and the memory that there are, and a step that does not fit is told in a line."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_checkpoints import save_checkpoint
from made_workspaces import untrimmed_workspace

from hico_core.base.errors import HicoError
from hico_core.checkpoints.content import LAST, Progress
from hico_core.config import Config, dump_config, load_config, preset
from hico_core.encoding.hardware import free_memory_bytes, telling_full_memory
from hico_core.training import loop
from hico_core.training.fitting import fit_batch, fitting_size, step_memory
from hico_core.training.task import Task

CPU = torch.device("cpu")
TINY = ["model.encoder=s3dg-tiny", "data.num_frames=8", "data.frame_stride=8", "data.crop_size=32", "data.workers=0"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrimmed_workspace(tmp_path_factory.mktemp("fitting"), videos=9, seconds=3)


def config_of(batch_size: int) -> Config:
    return load_config(overrides=[f"train.batch_size={batch_size}"])


@pytest.mark.parametrize(
    ("asked", "processes", "free_gb", "size", "reason"),
    [
        (8, 1, None, 8, ""),
        (9, 1, 100.0, 9, ""),
        (32, 1, None, 9, "only 9 videos"),
        (32, 1, 100.0, 9, "only 9 videos"),
        (32, 2, None, 8, "only 9 videos"),
        (9, 1, 4.0, 3, "only 4 GB of memory free"),
        (32, 1, 4.0, 3, "only 4 GB of memory free"),
        (3, 1, 4.0, 3, ""),
        (32, 1, 0.5, 2, "only 0 GB of memory free"),
        (32, 10, None, 32, ""),  # too few videos, which is told elsewhere
    ],
)
def test_a_batch_that_fits(asked: int, processes: int, free_gb: float | None, size: int, reason: str) -> None:
    free_bytes = None if free_gb is None else int(free_gb * 1e9)
    found = fitting_size(config_of(asked), num_videos=9, processes=processes, free_bytes=free_bytes)
    assert found == (size, reason)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("videos", "size", "encoder", "gb"),
    [
        (4, 112, "s3dg", 3.2),
        (16, 112, "s3dg", 9.1),
        (16, 112, "s3dg-tiny", 3.7),
        (2, 64, "torchvision:r2plus1d_18", 3.37),
        (2, 48, "torchvision:r3d_18", 2.25),
        (2, 64, "torchvision:s3d", 1.41),
    ],
)
def test_memory_is_about_what_was_measured(videos: int, size: int, encoder: str, gb: float) -> None:
    """Of two steps on a CPU, clips of 16 frames."""
    memory = step_memory(load_config(overrides=[f"model.encoder={encoder}", f"data.crop_size={size}"]))
    assert memory.fixed_bytes + videos * memory.video_bytes == pytest.approx(gb * 1e9, rel=0.15)


@pytest.mark.videos
def test_a_run_goes_on_with_its_batch(root: Path, tmp_path: Path) -> None:
    """Whatever videos have come, and whatever memory is free then."""
    (tmp_path / "config.yaml").write_text(dump_config(config_of(3)))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')

    def batch_size(*, resume: bool) -> int:
        task = Task(config=preset("hacs-hico-s"), root=root, run_dir=tmp_path, device="cpu", resume=resume)
        assert fit_batch(task, processes=2).config == task.config, "what was asked for stays"
        return fit_batch(replace(task, lower_batch=True), processes=2).config.train.batch_size

    assert batch_size(resume=True) == 3
    assert batch_size(resume=False) == 8
    (tmp_path / "metrics.jsonl").unlink()
    assert batch_size(resume=True) == 8, "a run that did no step, since it did not fit, is none"


@pytest.mark.videos
def test_a_run_without_its_file_of_settings_goes_on_with_the_batch_of_its_checkpoint(
    root: Path, tmp_path: Path
) -> None:
    model = torch.nn.Linear(1, 1)
    save_checkpoint(
        tmp_path / "checkpoints" / LAST,
        model=model,
        optimizer=torch.optim.SGD(model.parameters()),
        progress=Progress(),
        config=config_of(3).model_dump(mode="json"),
    )
    task = Task(config=preset("hacs-hico-s"), root=root, run_dir=tmp_path, device="cpu", resume=True, lower_batch=True)
    assert fit_batch(task).config.train.batch_size == 3


@pytest.mark.videos
def test_cuts_that_are_to_count_must_be_known(root: Path, tmp_path: Path) -> None:
    config = load_config(overrides=["data.cuts=respect"])
    with pytest.raises(HicoError, match="does not know the cuts of all videos; split them again"):
        fit_batch(Task(config=config, root=root, run_dir=tmp_path, device="cpu"), processes=1)


def test_free_memory_is_that_of_the_machine_or_the_container(tmp_path: Path) -> None:
    meminfo, cgroup = tmp_path / "meminfo", tmp_path / "cgroup"
    assert free_memory_bytes(meminfo, cgroup) is None
    meminfo.write_text("MemTotal:       24684000 kB\nMemAvailable:    2000 kB\nHugePages_Total:       0\n")
    assert free_memory_bytes(meminfo, cgroup) == 2_048_000
    cgroup.mkdir()
    (cgroup / "memory.stat").write_text("anon 300000\nfile 900000\n")
    (cgroup / "memory.max").write_text("max\n")
    assert free_memory_bytes(meminfo, cgroup) == 2_048_000
    (cgroup / "memory.max").write_text("1000000\n")
    assert free_memory_bytes(meminfo, cgroup) == 700_000


def test_memory_that_runs_out_is_one_line() -> None:
    """On a CPU for real; a GPU's error is made here."""
    said = "a step of 4 videos does not fit into the memory of cpu; use a smaller batch size"
    with pytest.raises(HicoError, match=said), telling_full_memory(4, CPU):
        torch.empty(10**15)
    with pytest.raises(HicoError, match=said), telling_full_memory(4, CPU):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    with pytest.raises(RuntimeError, match="something else"), telling_full_memory(4, CPU):
        raise RuntimeError("something else")


@pytest.mark.videos
def test_the_remedy_of_a_step_that_does_not_fit_works(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run may be begun anew with a smaller batch, since it had done no step; not once it has."""

    def train(batch_size: int) -> None:
        config = load_config(overrides=[*TINY, "train.max_steps=1", f"train.batch_size={batch_size}"])
        loop.pretrain(config, root=root, run_dir=tmp_path / "run", device="cpu")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", lambda *arguments, **options: torch.empty(10**15))
        with pytest.raises(HicoError, match="a step of 4 videos does not fit into the memory of cpu"):
            train(4)
    train(2)
    with pytest.raises(HicoError, match="the run already exists"):
        train(2)

"""A checkpoint is whole, of this model and of numbers, or it is refused in one line."""

import random
import subprocess
import sys
import time
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
import torch
from full_disks import files_of_at_most
from made_checkpoints import save_checkpoint
from torch import nn

from hico_core.base.errors import HicoError
from hico_core.checkpoints.content import (
    BEFORE_LAST,
    LAST,
    EncoderOrigin,
    Progress,
    checkpoint_of,
    content_of,
    export_encoder,
    read_last,
    restore,
    take_last,
    write_of_run,
)
from hico_core.checkpoints.reading import CheckpointFile, picture_of, read_checkpoint
from hico_core.config import preset
from hico_core.corpus.workspace.records import sha256_of
from hico_core.data.pictures import Picture
from hico_core.data.plan import Position
from hico_core.data.videos import IndexIdentity
from hico_core.model.s3dg import S3DG
from hico_core.model.s3dg_tiny import S3DGTiny

PROGRESS = Progress(
    position=Position(7, 10, 3),
    epochs_done=10.5,
    last_step_epoch=10.25,
    bad_videos=["a"],
    world_size=2,
    index=IndexIdentity(3, "ids", "lengths"),
    encoder=EncoderOrigin(path="encoder.safetensors", sha256="0"),
    best_accuracy=0.25,
)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def save(path: Path, model: nn.Module, progress: Progress = PROGRESS) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    config = preset("hacs-hico-s").model_dump(mode="json")
    save_checkpoint(path, model=model, optimizer=optimizer, progress=progress, config=config)
    return optimizer


def test_everything_comes_back(model: nn.Module, tmp_path: Path) -> None:
    optimizer = save(tmp_path / LAST, model)
    content = read_last(tmp_path)
    assert content is not None and content.progress == PROGRESS
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    again = torch.optim.SGD(other.parameters(), lr=0.5, momentum=0.1)
    restore(content, model=other, optimizer=again, origin=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    assert again.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(optimizer.state[one]["momentum_buffer"], again.state[two]["momentum_buffer"])


@pytest.mark.parametrize(("written_by", "read_by"), [(True, False), (False, True)])
def test_a_run_moves_between_a_gpu_and_a_cpu(written_by: bool, read_by: bool, model: nn.Module, tmp_path: Path) -> None:
    """What Adam remembers comes along; how it computes, and where its rate lies, is up to who goes on."""

    def adam(model: nn.Module, rate: float, *, as_on_a_gpu: bool) -> torch.optim.Adam:
        here = {"lr": torch.tensor(rate), "fused": True} if as_on_a_gpu else {"lr": rate}
        return torch.optim.Adam(model.parameters(), **here)

    optimizer = adam(model, 0.25, as_on_a_gpu=written_by)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / LAST, model=model, optimizer=optimizer, progress=PROGRESS, config={})
    content = read_last(tmp_path)
    assert content is not None and content.optimizer["param_groups"][0]["lr"] == 0.25
    assert isinstance(content.optimizer["param_groups"][0]["lr"], float)
    again = adam(model, 0.5, as_on_a_gpu=read_by)
    restore(content, model=model, optimizer=again, origin=tmp_path)
    (group,) = again.param_groups
    assert bool(group["fused"]) == isinstance(group["lr"], torch.Tensor) == read_by and group["lr"] == 0.25
    for parameter in model.parameters():
        assert all(torch.equal(old, again.state[parameter][key]) for key, old in optimizer.state[parameter].items())
    again.step()


def flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def same_weights(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_flipped_bit_of_a_checkpoint_is_noticed(model: nn.Module, tmp_path: Path) -> None:
    """Wherever it lies, never other weights or another place: the same, or a line, and the one before is taken."""
    save(tmp_path / LAST, model)
    good = read_last(tmp_path)
    data = (tmp_path / LAST).read_bytes()
    (tmp_path / BEFORE_LAST).write_bytes(data)
    rng = random.Random(1)
    num_noticed = 0
    for _ in range(200):
        (tmp_path / LAST).write_bytes(flipped(data, rng))
        try:
            content = content_of(read_checkpoint(tmp_path / LAST))
        except HicoError as error:
            num_noticed += 1
            assert "\n" not in str(error) and "last.pt" in str(error)
            content = read_last(tmp_path)  # type: ignore[assignment]
        assert good is not None and content is not None
        assert content.progress == good.progress and same_weights(content.model, good.model)
    assert num_noticed > 100


@pytest.mark.slow
def test_a_flipped_bit_of_an_export_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    export_encoder(path, S3DG())
    good, data = read_checkpoint(path).content, path.read_bytes()
    rng = random.Random(2)
    for _ in range(8):
        path.write_bytes(flipped(data, rng))
        try:
            assert same_weights(read_checkpoint(path).content, good)
        except HicoError as error:
            assert "encoder.safetensors" in str(error) and "\n" not in str(error)


def test_values_that_are_no_numbers_are_refused(model: nn.Module, tmp_path: Path) -> None:
    save(tmp_path / LAST, model)
    content = torch.load(tmp_path / LAST, weights_only=True)
    content["model"]["0.bias"][1] = torch.inf
    torch.save(content, tmp_path / LAST)
    with pytest.raises(HicoError, match=r"last\.pt: 0\.bias has values that are not finite"):
        read_last(tmp_path)


WRONG: list[Any] = [None, 3, -1, "text", [1], {"a": 1}, torch.zeros(2), True, 1e400]


@pytest.mark.parametrize(
    "field",
    [
        *("format", "hico_version", "config", "model", "optimizer", "scaling", "progress"),
        *("progress.position", "progress.epochs_done", "progress.bad_videos", "progress.world_size"),
        *("progress.index", "progress.encoder", "model.0.bias"),
    ],
)
def test_fields_of_wrong_types_are_one_line(field: str, model: nn.Module, tmp_path: Path) -> None:
    optimizer = save(tmp_path / LAST, model)
    for value in WRONG:
        content = torch.load(tmp_path / LAST, weights_only=True)
        section, _, key = field.partition(".")
        if key:
            content[section][key] = value
        else:
            content[section] = value
        torch.save(content, tmp_path / "changed.pt")
        try:
            parsed = content_of(read_checkpoint(tmp_path / "changed.pt"))
            restore(parsed, model=model, optimizer=optimizer, origin=tmp_path / "changed.pt")
        except HicoError as error:
            assert "changed.pt" in str(error) and "\n" not in str(error)


def test_what_is_left_out_is_named(model: nn.Module, tmp_path: Path) -> None:
    save(tmp_path / LAST, model)
    content = torch.load(tmp_path / LAST, weights_only=True)
    del content["optimizer"]
    torch.save(content, tmp_path / LAST)
    with pytest.raises(HicoError, match=r"not a checkpoint that hico wrote \(optimizer is missing\)"):
        read_last(tmp_path)


def test_the_same_weights_make_the_same_export(tmp_path: Path) -> None:
    """Byte by byte: features know their encoder by its file's hash. The package alone orders metadata at random."""
    encoder, picture = (
        S3DGTiny(),
        Picture(short_side=27, crop_part=0.875, num_crops=1, size=24, mean=(0.45,) * 3, std=(0.225,) * 3),
    )
    for number in range(8):
        export_encoder(tmp_path / f"{number}.safetensors", encoder, picture)
    contents = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(contents) == 1
    read = read_checkpoint(tmp_path / "0.safetensors")
    assert same_weights(read.content, encoder.state_dict())
    assert picture_of(read).size == 24


# Two files, one after the other, under a third name.
KEEP_WRITING = """
import itertools, os, shutil, sys
for size in itertools.cycle(("24", "48")):
    shutil.copyfile(size, "next")
    os.replace("next", sys.argv[1])
"""


@pytest.mark.processes
@pytest.mark.parametrize("name", ["encoder.safetensors", "last.pt"])
def test_a_file_is_read_as_it_was_at_one_moment(name: str, model: nn.Module, tmp_path: Path) -> None:
    """While a training writes the next one under its name, again and again."""
    for size in (24, 48):
        if name == LAST:
            save(tmp_path / f"{size}", model, Progress(position=Position(size)))
        else:
            export_encoder(
                tmp_path / f"{size}",
                S3DGTiny(),
                Picture(short_side=27, crop_part=0.875, num_crops=1, size=size, mean=(0.45,) * 3, std=(0.225,) * 3),
            )
    hashes = {sha256_of(tmp_path / f"{size}"): size for size in (24, 48)}
    copyfile(tmp_path / "24", tmp_path / name)
    writer = subprocess.Popen([sys.executable, "-c", KEEP_WRITING, name], cwd=tmp_path)
    seen: list[CheckpointFile] = []
    deadline = time.monotonic() + 60
    try:
        while len(seen) < 40 or ({file.sha256 for file in seen} != hashes.keys() and time.monotonic() < deadline):
            seen.append(read_checkpoint(tmp_path / name))
    finally:
        writer.kill()
        writer.wait()
    for file in seen:
        size = content_of(file).progress.position.step if name == LAST else picture_of(file).size
        assert size == hashes[file.sha256]
    assert {file.sha256 for file in seen} == hashes.keys()


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    write_of_run(tmp_path / LAST, memoryview(b"first"))
    with files_of_at_most(4096), pytest.raises(HicoError, match="File too large"):
        write_of_run(tmp_path / LAST, memoryview(bytes(8192)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {LAST: b"first"}
    write_of_run(tmp_path / LAST, memoryview(b"second"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {LAST: b"second", BEFORE_LAST: b"first"}


def test_a_run_that_continues_from_the_previous_checkpoint_never_loses_it(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither to the one that could not be read, nor to a kill between the two renames of the next one."""
    for _ in range(2):
        save(tmp_path / LAST, model)
    damaged = (tmp_path / LAST).read_bytes()[:1000]
    (tmp_path / LAST).write_bytes(damaged)
    assert take_last(tmp_path) is not None
    monkeypatch.setenv("HICO_FAULT", "file.written:1=ENOSPC")
    with pytest.raises(HicoError, match="No space left"):
        save(tmp_path / LAST, model)
    assert read_last(tmp_path) is not None and not (tmp_path / LAST).exists()
    assert take_last(tmp_path) is not None
    save(tmp_path / LAST, model)
    (tmp_path / LAST).write_bytes(damaged)
    assert read_last(tmp_path) is not None


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_weights_that_no_reader_takes_are_not_written(model: nn.Module, value: float) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.no_grad():
        next(model.parameters())[0, 0] = value
    with pytest.raises(HicoError, match=r"0\.weight has values that are not finite, so no checkpoint is written"):
        checkpoint_of(model=model, optimizer=optimizer, scaling={}, progress=PROGRESS, config={})

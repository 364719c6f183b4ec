"""A run goes from an index to an encoder, goes on exactly where it stopped, and says in one line what is wrong."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import TINY as OPTIONS
from commands import hico, running
from made_videos import numbered_video
from safetensors.torch import load_file
from trees import tree

from hico_core.base.engine import available_cores
from hico_core.base.errors import HicoError, Interrupted, UsageError
from hico_core.base.files import lock
from hico_core.checkpoints.convert import convert
from hico_core.checkpoints.reading import load_backbone, read_checkpoint
from hico_core.config import Config, load_config
from hico_core.corpus.index import build_index
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import split_videos
from hico_core.corpus.workspace.records import SplitOptions
from hico_core.data.videos import IndexIdentity
from hico_core.encoding.hardware import choose_device
from hico_core.encoding.neighbours import read_features
from hico_core.model.hico import HicoModel, Outputs
from hico_core.training.dry_run import DryRun, dry_run
from hico_core.training.fitting import fit_batch, require_enough
from hico_core.training.log import StepMetrics
from hico_core.training.loop import RunSummary, run_pretraining
from hico_core.training.run import kept_epoch
from hico_core.training.step import compute_loss
from hico_core.training.stopping import StopRequest
from hico_core.training.task import Task, Watch

pytestmark = pytest.mark.videos

TINY = [
    "data.num_frames=8",
    "data.frame_stride=8",
    "data.crop_size=32",
    "model.encoder=s3dg-tiny",
    "data.workers=0",
    "train.batch_size=2",
]


def tiny(*overrides: str, base: str = "hacs-hico-s") -> Config:
    return load_config(base=base, overrides=["train.epochs=4", "optim.warmup_epochs=1", *TINY, *overrides])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    (folder / "videos").mkdir()
    for number, name in enumerate(("a", "b", "c")):
        numbered_video(folder / f"videos/{name}.mp4", seconds=6 + number)
    numbered_video(folder / "videos/short.mp4", seconds=1)
    split_videos(
        find_sources([str(folder / "videos")]),
        root=folder / "root",
        options=SplitOptions(short_side=64, preset="ultrafast"),
        workers=2,
        on_event=lambda event: None,
    )
    build_index(folder / "root")
    return folder / "root"


def run(
    config: Config,
    root: Path,
    run_dir: Path,
    *,
    init_from: Path | None = None,
    resume: bool = False,
    allow_changed: bool = False,
    **watch: Any,  # noqa: ANN401
) -> RunSummary:
    task = Task(
        config=config,
        root=root,
        run_dir=run_dir,
        encoder=init_from,
        device="cpu",
        resume=resume,
        allow_changed=allow_changed,
    )
    return run_pretraining(task, Watch(**watch))


def metrics_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_what_a_run_leaves(root: Path, tmp_path: Path) -> None:
    seen: list[StepMetrics] = []
    summary = run(tiny("train.checkpoint_epochs=2"), root, tmp_path, on_step=seen.append)
    # 4 epochs of 3 videos are one round of 12: 6 steps of 2, fewer where a video would stand twice in a step.
    assert summary.num_steps in (5, 6)
    assert [metrics.step for metrics in seen] == list(range(1, summary.num_steps + 1))
    lines = metrics_of(tmp_path)
    mean = sum(line["loss"] for line in lines) / len(lines)
    assert summary.first_loss == summary.last_loss == pytest.approx(mean)
    assert lines == [json.loads(json.dumps(asdict(metrics))) for metrics in seen]
    assert set(lines[0]) == {
        *("step", "epoch", "loss", "visual", "topical", "lr", "distance", "clips_per_second"),
        *(
            "data_seconds",
            "step_seconds",
            "bad_videos",
            "skipped_steps",
            "embedding_std",
            "effective_rank",
            "knn_accuracy",
        ),
    }
    assert all(line["loss"] == pytest.approx(line["visual"] + line["topical"], rel=1e-5) for line in lines)
    assert lines[0]["lr"] == 0.001 and lines[0]["distance"] == 0.0
    assert lines[-1]["distance"] > lines[1]["distance"] > 0
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    shutil.rmtree(tmp_path / "tensorboard")
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        *("config.yaml", "started.json", "metrics.jsonl", "export/encoder.safetensors", "export/README.md"),
        *("checkpoints/epoch_0002.pt", "checkpoints/epoch_0004.pt", "checkpoints/last.pt"),
        "checkpoints/before_last.pt",
        ".lock",
    }
    assert load_config(tmp_path / "config.yaml") == tiny("train.checkpoint_epochs=2")
    exported = load_file(tmp_path / "export/encoder.safetensors")
    of_checkpoint = load_backbone(tmp_path / "checkpoints/last.pt").state_dict()
    assert exported.keys() == of_checkpoint.keys()
    assert all(torch.equal(exported[name], of_checkpoint[name]) for name in exported)


@pytest.fixture(scope="module")
def undisturbed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed")
    run(tiny(), root, run_dir)
    return run_dir


def weights_of(run_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "checkpoints/last.pt", weights_only=True)["model"]


TIMES = ("clips_per_second", "data_seconds", "step_seconds")


def assert_same_run(run_dir: Path, other: Path) -> None:
    one, two = weights_of(run_dir), weights_of(other)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    for a, b in zip(metrics_of(run_dir), metrics_of(other), strict=True):
        assert {k: v for k, v in a.items() if k not in TIMES} == {k: v for k, v in b.items() if k not in TIMES}


@pytest.mark.processes
@pytest.mark.parametrize("steps", [1, 3])
def test_stopped_and_resumed_equals_never_stopped(root: Path, tmp_path: Path, undisturbed: Path, steps: int) -> None:
    assert run(tiny(f"train.max_steps={steps}"), root, tmp_path).num_steps == steps
    summary = run(tiny("data.workers=1"), root, tmp_path, resume=True)
    assert summary.num_steps == len(metrics_of(undisturbed))
    assert_same_run(tmp_path, undisturbed)
    again = run(tiny(), root, tmp_path, resume=True)
    assert again.first_loss is None and again.num_steps == summary.num_steps
    assert_same_run(tmp_path, undisturbed)


def test_a_run_whose_time_is_up_goes_on_exactly_too(root: Path, tmp_path: Path, undisturbed: Path) -> None:
    asked = iter([False, False, True])
    assert run(tiny(), root, tmp_path, is_over=lambda: next(asked)).num_steps == 2
    run(tiny(), root, tmp_path, resume=True)
    assert_same_run(tmp_path, undisturbed)


def test_adamw_goes_on_exactly_too(root: Path, tmp_path: Path) -> None:
    adamw = ("optim.name=adamw", "optim.weight_decay=0.01", "data.memory_gb=1")
    run(tiny(*adamw), root, tmp_path / "whole")
    run(tiny(*adamw, "train.max_steps=2"), root, tmp_path / "parts")
    run(tiny(*adamw), root, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    with pytest.raises(HicoError, match="trained with adamw, which the authors' code does not have"):
        convert(tmp_path / "whole/checkpoints/last.pt", tmp_path / "theirs.pyth", to="authors")
    assert "encoder" in convert(tmp_path / "whole/checkpoints/last.pt", tmp_path / "e.safetensors", to="safetensors")


def test_dropout_goes_on_exactly_too(root: Path, tmp_path: Path) -> None:
    dropout = "model.encoder=python:made_encoders:with_dropout"
    run(tiny(dropout, "train.max_steps=3"), root, tmp_path / "whole")
    run(tiny(dropout, "train.max_steps=1"), root, tmp_path / "parts")
    run(tiny(dropout, "train.max_steps=3"), root, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_float16_goes_on_exactly_too(root: Path, tmp_path: Path) -> None:
    """The first step is skipped, as it often is: PyTorch begins with a scale of 65,536."""
    fp16 = "train.precision=fp16"
    assert run(tiny(fp16), root, tmp_path / "whole").precision.name == "fp16"
    run(tiny(fp16, "train.max_steps=2"), root, tmp_path / "parts")
    run(tiny(fp16), root, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    scales = [
        torch.load(tmp_path / name / "checkpoints/last.pt", weights_only=True)["scaling"] for name in ("whole", "parts")
    ]
    assert scales[0] == scales[1] and scales[0]["scale"] < 65536
    skipped = [line["skipped_steps"] for line in metrics_of(tmp_path / "whole")]
    assert skipped[0] == 0 and skipped == sorted(skipped) and skipped[-1] > 0


def test_a_network_of_torchvision_goes_on_exactly_too(root: Path, tmp_path: Path) -> None:
    r2plus1d = ("model.encoder=torchvision:r2plus1d_18", "data.crop_size=16")
    run(tiny(*r2plus1d, "train.max_steps=2"), root, tmp_path / "whole")
    run(tiny(*r2plus1d, "train.max_steps=1"), root, tmp_path / "parts")
    run(tiny(*r2plus1d, "train.max_steps=2"), root, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_an_encoder_of_2d_convolutions_is_trained(root: Path, tmp_path: Path) -> None:
    named = tiny("model.encoder=python:made_encoders:frame_by_frame", "train.max_steps=1")
    assert run(named, root, tmp_path).num_steps == 1


def test_decoded_frames_that_are_kept_change_nothing(root: Path, tmp_path: Path, undisturbed: Path) -> None:
    run(tiny("data.memory_gb=1"), root, tmp_path / "all")
    run(tiny("data.memory_gb=0.003"), root, tmp_path / "some")  # one piece of 150 frames of 64 x 85
    for kept in ("all", "some"):
        assert_same_run(tmp_path / kept, undisturbed)


def test_a_signal_ends_with_a_checkpoint(root: Path, tmp_path: Path, undisturbed: Path) -> None:
    stop = StopRequest()

    def ask_after_two(metrics: StepMetrics) -> None:
        stop.signal_number = signal.SIGTERM if metrics.step == 2 else None

    with pytest.raises(Interrupted, match="stopped after step 2; the same command with --resume") as caught:
        run(tiny(), root, tmp_path, stop=stop, on_step=ask_after_two)
    assert caught.value.exit_code == 143
    # Lines of steps that no checkpoint has are written anew.
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({**metrics_of(tmp_path)[-1], "step": 3}) + '\n{"step": 4, "ep')
    run(tiny(), root, tmp_path, resume=True)
    assert_same_run(tmp_path, undisturbed)


def test_an_old_run_is_not_overwritten(root: Path, tmp_path: Path) -> None:
    run(tiny("train.max_steps=1"), root, tmp_path)
    with pytest.raises(UsageError, match="continue it with --resume, or use another --name"):
        run(tiny(), root, tmp_path)
    with pytest.raises(UsageError, match=r"this run has optim\.base_lr=0\.3, not 0\.5"):
        run(tiny("optim.base_lr=0.5"), root, tmp_path, resume=True)
    (tmp_path / "config.yaml").unlink()  # its checkpoint still says what it is
    with pytest.raises(UsageError, match="continue it with --resume, or use another --name"):
        run(tiny(), root, tmp_path)
    with pytest.raises(UsageError, match=r"this run has optim\.base_lr=0\.3, not 0\.5"):
        run(tiny("optim.base_lr=0.5"), root, tmp_path, resume=True)


def test_a_checkpoint_cut_short_is_not_taken(
    root: Path, tmp_path: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tiny("train.checkpoint_seconds=0", "train.max_steps=2"), root, tmp_path)
    last = tmp_path / "checkpoints/last.pt"
    last.write_bytes(last.read_bytes()[:100_000])
    run(tiny(), root, tmp_path, resume=True)
    assert "last.pt: not a checkpoint" in caplog.text and "continuing from the previous one" in caplog.text
    read_checkpoint(tmp_path / "checkpoints/before_last.pt")
    one, two = weights_of(tmp_path), weights_of(undisturbed)
    assert all(torch.equal(one[name], value) for name, value in two.items())
    (tmp_path / "checkpoints/before_last.pt").unlink()
    last.write_bytes(b"")
    with pytest.raises(HicoError, match=r"last\.pt: not a checkpoint"):
        run(tiny(), root, tmp_path, resume=True)


def test_nearest_neighbours_while_training(
    root: Path, tmp_path: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are measured before the first step, after some epochs and at the end, and change nothing of the training."""
    listed = root.parent / "videos" / "list.txt"
    listed.write_text("a.mp4 0\nb.mp4 1\nc.mp4 1\nd.mp4\n")
    summary = run(tiny(f"eval.knn_list={listed}", "eval.knn_epochs=2", "eval.knn_neighbours=1"), root, tmp_path)
    measured = [line["knn_accuracy"] for line in metrics_of(tmp_path)]
    assert measured[0] is not None and measured[1] is None and len([m for m in measured if m is not None]) == 2
    assert f"left out of the nearest neighbours: {listed}, line 4: 'd.mp4' is not <path> <label>" in caplog.text
    # Of three videos, one and two of a class: the one is never right, the two are if they are near each other.
    assert summary.knn_accuracy in (0.0, 1 / 3, 2 / 3)
    one, two = weights_of(tmp_path), weights_of(undisturbed)
    assert all(torch.equal(one[name], two[name]) for name in two)
    with pytest.raises(UsageError, match=r"nowhere\.txt: cannot be read"):
        run(tiny("eval.knn_list=nowhere.txt"), root, tmp_path / "new")


def test_a_signal_during_the_nearest_neighbours_ends_with_a_checkpoint(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler of the command ends them, since they take minutes on a long list."""
    listed = root.parent / "videos" / "list.txt"
    listed.write_text("a.mp4 0\nb.mp4 1\nc.mp4 1\n")
    settings = tiny(f"eval.knn_list={listed}", "eval.knn_epochs=2", "eval.knn_neighbours=1")
    run(settings, root, tmp_path / "whole")
    stop, reads = StopRequest(), iter(range(9))

    def interrupted(*videos: Any, **options: Any) -> object:  # noqa: ANN401
        if next(reads) != 1:
            return read_features(*videos, **options)
        stop.signal_number = signal.SIGTERM
        assert stop.waiting
        raise Interrupted(signal.SIGTERM, "by the handler")

    monkeypatch.setattr("hico_core.training.loop.read_features", interrupted)
    with pytest.raises(Interrupted, match="stopped after step") as caught:
        run(settings, root, tmp_path / "parts", stop=stop)
    assert caught.value.exit_code == 143 and not stop.waiting
    run(settings, root, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_collapse_is_said_once(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hico_core.training.step.embedding_std", lambda embeddings: 1e-4)
    run(tiny("train.epochs=30", "train.max_steps=23", "train.batch_size=3"), root, tmp_path)
    assert caplog.text.count("training has collapsed") == 1


def test_resume_without_a_checkpoint_starts(root: Path, tmp_path: Path) -> None:
    assert run(tiny("train.max_steps=1"), root, tmp_path / "new", resume=True).num_steps == 1


@pytest.mark.parametrize(
    ("base", "overrides"),
    [
        ("hacs-simclr-s", []),
        ("hacs-hico-l", ["optim.warmup_epochs=1", "augment.blur=gaussian"]),
        ("k400-hico-l", ["loss.topical_weight=0", "sampling.topical=false", "sampling.clips_per_video=2"]),
        ("uk400-hico-l", ["sampling.distance=fixed", "data.decoder=pyav"]),
    ],
)
def test_recipes_run(root: Path, tmp_path: Path, base: str, overrides: list[str]) -> None:
    config = tiny("train.max_steps=2", *overrides, base=base)
    assert run(config, root, tmp_path).num_steps == 2
    lines = metrics_of(tmp_path)
    has_topic = config.loss.name == "hico" and config.loss.topical_weight > 0
    assert all((line["topical"] is not None) == has_topic for line in lines)


def test_init_from_another_encoder(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tiny("train.max_steps=1"), root, tmp_path / "first")
    encoder = tmp_path / "first/export/encoder.safetensors"
    config = tiny("train.max_steps=1", "optim.base_lr=1e-9", "optim.warmup_start_lr=0")
    caplog.clear()
    run(config, root, tmp_path / "second", init_from=encoder)
    told = f"{len(load_file(encoder))} entries loaded, 0 left out, none missing"
    short = "pretraining leaves out 1 video shorter than one clip (2.13 s)"
    assert caplog.messages == [
        short,
        f"starting from the encoder of {encoder}: {told}; heads and optimiser start from scratch",
    ]
    caplog.clear()
    encoder.rename(tmp_path / "elsewhere")
    harmless = tiny("train.max_steps=1", "optim.base_lr=1e-9", "optim.warmup_start_lr=0", "data.memory_gb=1")
    run(harmless, root, tmp_path / "second", init_from=encoder, resume=True)
    (tmp_path / "elsewhere").rename(encoder)
    assert caplog.messages == [short, f"{encoder} is not loaded: the run continues from its last checkpoint"]
    before, after = load_file(encoder), load_file(tmp_path / "second/export/encoder.safetensors")
    assert torch.equal(before["units.1.0.conv1.weight"], after["units.1.0.conv1.weight"])
    with pytest.raises(UsageError, match=r"another epsilon of its batch norms; add -o model\.norm_eps=null"):
        run(tiny("model.norm_eps=0.1"), root, tmp_path / "third", init_from=encoder)


def test_too_large_a_batch(root: Path, tmp_path: Path) -> None:
    with pytest.raises(HicoError, match=r"a batch of 4 is too large for 3 videos \(pretraining leaves out 1 "):
        run(tiny("train.batch_size=4"), root, tmp_path / "run")
    with pytest.raises(UsageError, match="at least 2"):
        run(tiny("train.batch_size=1"), root, tmp_path / "run")
    config = tiny("data.frame_stride=250")
    videos = fit_batch(Task(config=config, root=root, run_dir=tmp_path / "run")).videos
    for processes in (1, 3):
        with pytest.raises(
            HicoError,
            match=r"has 0 training videos \(pretraining leaves out 4 .* one clip \(66.67 s\)\), too few",
        ):
            require_enough(videos, batch_size=3, processes=processes)
    assert not (tmp_path / "run").exists()


def test_no_index(tmp_path: Path) -> None:
    with pytest.raises(HicoError, match=r"no index\.parquet; run `hico index"):
        run(tiny(), tmp_path, tmp_path / "run")


def test_a_loss_that_is_no_number_names_the_clips(root: Path, tmp_path: Path) -> None:
    config = tiny("augment.mean=3e38")
    with pytest.raises(
        HicoError, match=r"is not finite at step 1, learning rate 0\.001; the clips: [abc] at \d"
    ) as caught:
        run(config, root, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def broken_root(root: Path, tmp_path: Path) -> Path:
    broken = tmp_path / "broken"
    shutil.copytree(root, broken)
    for clip in (broken / "train").glob("v_b_*"):
        clip.write_bytes(b"no video")
    return broken


def test_what_a_message_advises_works_on_a_run_that_is_there(broken_root: Path, tmp_path: Path) -> None:
    """Each remedy of a run that was ended by bad videos, tried with --resume."""
    with pytest.raises(HicoError, match=r"allow more with -o data\.max_bad_fraction=0\.67"):
        run(tiny(), broken_root, tmp_path / "run")
    config = tiny("data.max_bad_fraction=0.67", "data.decoder=pyav", "train.max_steps=2")
    assert run(config, broken_root, tmp_path / "run", resume=True).num_steps == 2


def test_another_index_is_refused_or_said(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A video more or less moves all others to other places in the order."""
    workspace = tmp_path / "root"
    shutil.copytree(root, workspace)
    run(tiny("train.max_steps=3"), workspace, tmp_path / "run")
    numbered_video(tmp_path / "more/d.mp4", seconds=9)
    split_videos(
        find_sources([str(tmp_path / "more")]),
        root=workspace,
        options=SplitOptions(short_side=64, preset="ultrafast"),
        workers=1,
        on_event=lambda event: None,
    )
    build_index(workspace)
    before = weights_of(tmp_path / "run")
    with pytest.raises(UsageError, match=r"there were 3 videos, and there are 4 now; continue with --allow-ch"):
        run(tiny(), workspace, tmp_path / "run", resume=True)
    assert all(torch.equal(value, before[name]) for name, value in weights_of(tmp_path / "run").items())
    epoch = metrics_of(tmp_path / "run")[-1]["epoch"]
    run(tiny(), workspace, tmp_path / "run", resume=True, allow_changed=True)
    assert "there were 3 videos, and there are 4 now" in caplog.text
    epochs = [line["epoch"] for line in metrics_of(tmp_path / "run")]
    steps = [later - earlier for earlier, later in pairwise(epochs)]
    assert epochs[2] == epoch and max(steps) < 1 and epochs[-1] >= 3.4, "as many passes as were asked for"
    # Another batch size moves the place in the order as well.
    run(tiny("train.epochs=12", "train.max_steps=3"), root, tmp_path / "batch")
    config = tiny("train.epochs=12", "train.batch_size=3", "train.max_steps=4")
    run(config, root, tmp_path / "batch", resume=True, allow_changed=True)
    epochs = [line["epoch"] for line in metrics_of(tmp_path / "batch")]
    assert epochs[3] == pytest.approx(2.0, abs=0.5), "three steps of two videos are two of three passes"


def test_what_cannot_be_continued_is_not_overwritten(root: Path, tmp_path: Path) -> None:
    """Its checkpoints were deleted to save space; its encoder was kept."""
    run(tiny("train.max_steps=2"), root, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints")
    before = tree(tmp_path / "run")
    with pytest.raises(UsageError, match=r"has no checkpoints/last\.pt to continue from, .* overwrite export/encoder"):
        run(tiny("train.max_steps=2"), root, tmp_path / "run", resume=True)
    assert tree(tmp_path / "run") == before


def test_settings_of_before_can_be_typed(root: Path, tmp_path: Path) -> None:
    run(tiny("train.max_steps=1"), root, tmp_path / "run")
    other = tiny("train.max_steps=1", "augment.crop_jitter=[40, 50]")
    with pytest.raises(UsageError, match=r"resume it with -o 'augment\.crop_jitter=\[\d+, \d+\]', or"):
        run(other, root, tmp_path / "run", resume=True)


def test_more_epochs(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Refused by what was typed, or gone on with as a run would have that was planned so from the beginning."""
    run(tiny("train.epochs=1", "optim.warmup_epochs=0.25"), root, tmp_path / "run")
    more = tiny("train.epochs=4", "optim.warmup_epochs=1")  # as --epochs 4 makes of it
    refusal = r"train\.epochs=1, not 4; .* with --epochs 1, continue anyway with --allow-changed, or"
    with pytest.raises(UsageError, match=refusal):
        run(more, root, tmp_path / "run", resume=True)
    other = tiny("train.epochs=1", "optim.warmup_epochs=0.25", "optim.base_lr=0.1")
    with pytest.raises(UsageError, match=r"resume it with -o optim\.base_lr=0\.3, or"):
        run(other, root, tmp_path / "run", resume=True, allow_changed=True)
    caplog.clear()
    run(more, root, tmp_path / "run", resume=True, allow_changed=True)
    (told,) = [record.getMessage() for record in caplog.records if record.name == "hico_core.training.resume"]
    assert "was planned for 1 epoch and now lasts 4: after 1, it continues with the schedule of a run of 4" in told
    assert "at 85% of its peak (warm-up until 1, then a cosine to 0)" in told
    lines = metrics_of(tmp_path / "run")
    later = [line for line in lines if line["epoch"] >= 1]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert later[0]["epoch"] == pytest.approx(1, abs=0.5) and lines[-1]["epoch"] > 3
    undisturbed = {line["epoch"]: line["lr"] for line in _metrics_of_new_run(more, root, tmp_path / "new")}
    assert [line["lr"] for line in later] == [undisturbed[line["epoch"]] for line in later]
    with pytest.raises(UsageError, match="4 epochs are already done, more than --epochs 2"):
        run(tiny("train.epochs=2", "optim.warmup_epochs=0.5"), root, tmp_path / "run", resume=True, allow_changed=True)


def _metrics_of_new_run(config: Config, root: Path, run_dir: Path) -> list[dict[str, Any]]:
    run(config, root, run_dir)
    return metrics_of(run_dir)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (IndexIdentity(3, "a", "b"), None),
        (IndexIdentity(4, "a", "b"), "there were 3 videos, and there are 4 now"),
        (IndexIdentity(3, "c", "b"), "not the same ones"),
        (IndexIdentity(3, "a", "c"), "lengths have changed"),
    ],
)
def test_what_changed_of_an_index(now: IndexIdentity, words: str | None) -> None:
    found = IndexIdentity(3, "a", "b").changes_to(now)
    assert found is None if words is None else words in str(found)


def test_one_run_has_one_process_at_a_time(root: Path, tmp_path: Path) -> None:
    with lock(tmp_path / "run/.lock", refusal=""):
        with pytest.raises(HicoError, match="another process is training in this run"):
            run(tiny(), root, tmp_path / "run")
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock"]


@pytest.mark.processes
def test_a_kill_while_resuming_keeps_the_log(root: Path, tmp_path: Path) -> None:
    """The log is cut where it is to go on, never written anew."""
    options = [value for setting in ("train.checkpoint_seconds=0", *TINY) for value in ("-o", setting)]
    command = ["pretrain", *options, "--epochs", "4", "--name", "killed", "--root", str(root)]
    assert hico(*command, "--max-steps", "3").returncode == 0
    log = root / "runs/killed/metrics.jsonl"
    before = log.read_bytes()
    killed = subprocess.run(
        [sys.executable, "-m", "hico_cli", *command, "--resume"],
        env={**os.environ, "HICO_FAULT": "file.written:2"},  # config.yaml, then the first checkpoint
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL
    assert log.read_bytes().startswith(before)
    assert hico(*command, "--resume").returncode == 0
    assert [line["step"] for line in metrics_of(log.parent)] == list(range(1, len(metrics_of(log.parent)) + 1))
    assert not list(log.parent.rglob("*.tmp"))


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_worker_that_is_stuck_does_not_keep_the_run_from_ending(root: Path) -> None:
    """As one that reads from a network disk that is gone: it answers nothing, not even a signal."""
    options = [value for setting in TINY for value in ("-o", setting)]
    options += ["-o", "data.workers=2", "--epochs", "100000"]
    command = ["pretrain", *options, "--name", "stuck", "--root", str(root)]
    with running([sys.executable, "-m", "hico_cli", *command], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "pretraining leaves out 1 video" in process.stderr.readline()
        assert process.stderr.readline().startswith("step 1 ")
        workers = descendants_of(process.pid)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        time.sleep(2)  # until what was read ahead is used up
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
        assert process.wait(timeout=60) == 143
    assert "stopped after step" in said.splitlines()[-1]
    content = torch.load(root / "runs/stuck" / "checkpoints/last.pt", weights_only=True)
    assert content["progress"]["position"][0] == metrics_of(root / "runs/stuck")[-1]["step"]
    assert not [worker for worker in workers if is_running(worker)]


def descendants_of(parent: int) -> list[int]:
    """The processes that decode: children of the fork server that a training process started."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(entry.parent.name)] = int(fields[1])
    children = [pid for pid, its_parent in parents.items() if its_parent == parent]
    return [pid for pid, its_parent in parents.items() if its_parent in children]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_full_disk_at_a_checkpoint_is_one_line(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HICO_FAULT", "file.written:3=EDQUOT")  # after started.json and config.yaml
    with pytest.raises(
        HicoError,
        match="checkpoints: Disk quota exceeded; free some space, and the same command with --resume continues",
    ) as caught:
        run(tiny("train.checkpoint_seconds=0"), root, tmp_path / "run")
    assert "\n" not in str(caught.value)
    monkeypatch.delenv("HICO_FAULT")
    assert run(tiny("train.max_steps=2"), root, tmp_path / "run", resume=True).num_steps == 2


def test_a_checkpoint_that_fails_while_training_fails_is_told(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_at_the_second(metrics: StepMetrics) -> None:
        if metrics.step == 2:
            time.sleep(1)  # meanwhile the checkpoint of the first step fails
            raise HicoError("something else")

    monkeypatch.setenv("HICO_FAULT", "file.written:3=EFBIG")
    with pytest.raises(HicoError, match="something else"):
        run(tiny("train.checkpoint_seconds=0"), root, tmp_path / "run", on_step=fail_at_the_second)
    assert "checkpoints: File too large" in caplog.text


def test_broken_videos_end_the_run_or_are_replaced(broken_root: Path, tmp_path: Path) -> None:
    with pytest.raises(HicoError, match=r"1 of 3 videos cannot be decoded, more than data\.max_bad_fraction=0\.05"):
        run(tiny(), broken_root, tmp_path / "strict")
    told: list[tuple[str, str]] = []
    run(
        tiny("data.max_bad_fraction=0.5"),
        broken_root,
        tmp_path / "lenient",
        on_bad_video=lambda video_id, reason: told.append((video_id, reason)),
    )
    assert [video_id for video_id, _ in told] == ["b"], "told once"
    assert "v_b_" in told[0][1] and "has 8 bytes instead of" in told[0][1]
    assert metrics_of(tmp_path / "lenient")[-1]["bad_videos"] == 1
    content = torch.load(tmp_path / "lenient/checkpoints/last.pt", weights_only=True)
    assert content["progress"]["bad_videos"] == ["b"], "so that it is told once, and counted, in a run that goes on"


@pytest.mark.processes
def test_a_corpus_that_cannot_be_decoded_at_all(broken_root: Path, tmp_path: Path) -> None:
    for clip in (broken_root / "train").iterdir():
        clip.write_bytes(b"")
    with pytest.raises(HicoError, match=r"videos of one batch cannot be decoded; the last one: .*v_[abc]_") as caught:
        run(tiny("data.max_bad_fraction=1", "data.workers=1"), broken_root, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model(root: Path, tmp_path: Path) -> None:
    run(tiny("train.max_steps=1"), root, tmp_path)
    last = tmp_path / "checkpoints/last.pt"
    content = torch.load(last, weights_only=True)
    del content["model"]["visual_head.linear3.bias"]
    torch.save(content, last)
    with pytest.raises(HicoError, match=r"visual_head\.linear3\.bias is missing"):
        run(tiny(), root, tmp_path, resume=True)
    torch.save({"format": "other"}, last)
    with pytest.raises(HicoError, match="not a checkpoint of this version"):
        run(tiny(), root, tmp_path, resume=True)


def measured(config: Config, root: Path, processes: int = 1) -> DryRun:
    fitted = fit_batch(Task(config=config, root=root, run_dir=root / "runs" / "dry"))
    return dry_run(fitted, device="cpu", processes=processes)


def test_a_dry_run_measures_and_writes_nothing(root: Path) -> None:
    before = sorted(root.rglob("*"))
    sizes = measured(tiny("model.encoder=s3dg"), root)
    assert sorted(root.rglob("*")) == before
    assert (sizes.num_videos, sizes.num_short_videos, sizes.num_steps) == (3, 1, 6)
    assert (sizes.encoder_parameters, sizes.head_parameters) == (9_098_000, 4_535_041)
    assert sizes.batch_bytes == 2 * 3 * 3 * 8 * 32 * 32 * 4
    assert sizes.checkpoint_bytes > 2 * 4 * (sizes.encoder_parameters + sizes.head_parameters)
    assert sizes.peak_lr == pytest.approx(0.3 * 2 * 3 / 256)
    clips = 3 * 3 * 4  # videos, clips of each, epochs
    slower = min(sizes.measured.step_clips_per_second, sizes.measured.reader_clips_per_second)
    assert sizes.measured.hours == pytest.approx(clips / slower / 3600)
    assert sizes.checkpoints_bytes > 3 * sizes.checkpoint_bytes - 1
    assert sizes.measured.peak_memory_bytes > 100e6
    small = measured(tiny("optim.name=adamw"), root)  # which remembers two values a weight
    assert small.checkpoint_bytes > 3 * 4 * (small.encoder_parameters + small.head_parameters)


@pytest.mark.processes
def test_a_dry_run_of_one_process_among_several(root: Path) -> None:
    """The local rate of the authors' code counts processes; clips and readers are those of one."""
    config = tiny("optim.scale_lr=authors", "loss.topical_weight=0", "sampling.topical=false", "data.workers=null")
    sizes = measured(config, root, processes=2)
    assert sizes.measured.workers == max(available_cores() // 2, 1), "processes share the machine's cores"
    assert sizes.batch_bytes == 1 * 3 * 3 * 8 * 32 * 32 * 4
    assert sizes.peak_lr == pytest.approx(0.3 * 2 * 2 * 3 / 256)
    done = hico(
        "pretrain", *[value for setting in TINY for value in ("-o", setting)], "--nproc", "2", "--dry-run", root=root
    )
    assert done.returncode == 2 and done.stderr.count("hico: ") == 1
    with pytest.raises(UsageError, match="must be a multiple of their number, 3"):
        measured(config, root, processes=3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there() -> None:
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match="sees no GPU"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("before", "now", "every", "expected"),
    [
        (9.8, 10.1, 10, 10),
        (9.8, 9.9, 10, None),
        (10.0, 10.5, 10, None),
        (0.0, 25.0, 10, 20),
        (1.5, 2.0, 1, 2),
    ],
)
def test_kept_epoch(before: float, now: float, every: int, expected: int | None) -> None:
    assert kept_epoch(before, now, every=every) == expected


def test_losses_of_a_model_without_topic() -> None:
    model = HicoModel(topical=False).eval()
    outputs: Outputs = model(torch.zeros(2, 2, 3, 8, 32, 32))
    loss = compute_loss(outputs, tiny("loss.visual_weight=2").loss, clips_per_video=2)
    assert loss.topical is None
    assert float(loss.total.detach()) == pytest.approx(2 * float(loss.visual))


@pytest.mark.processes
def test_too_little_shared_memory_is_one_line(root: Path, tmp_path: Path) -> None:
    """As in a container that was given little: hico sees it before a worker is killed for it. What it says helps."""
    small = "mount -t tmpfs -o size=256k tmpfs /dev/shm"
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "sh", "-c", small], check=False).returncode:
        pytest.skip("this machine lets nobody mount another /dev/shm")

    def trained(workers: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hico_cli", "pretrain", "--dataset", "hacs", "--root", root, *OPTIONS]
        command += ["--name", tmp_path.name, "-o", "train.max_steps=1", "-o", f"data.workers={workers}"]
        words = " ".join(shlex.quote(str(word)) for word in command)
        there = ["unshare", "-m", "sh", "-c", f"{small} && exec {words}"]
        return subprocess.run(there, check=False, capture_output=True, text=True)

    done = trained(workers=1)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("hico: /dev/shm: 0 MB of shared memory are free, but a worker needs about ")
    assert trained(workers=0).returncode == 0

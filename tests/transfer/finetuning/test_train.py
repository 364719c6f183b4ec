"""Finetuning learns what it is shown, goes on exactly where it stopped, and counts every test video."""

import csv
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import assert_one_line, hico
from goldens import assert_close, load_arrays, load_json
from made_videos import run_ffmpeg
from pretended_group import group_of

from hico_core.base.choices import Subset
from hico_core.base.errors import HicoError, Interrupted, UsageError
from hico_core.checkpoints.content import export_encoder
from hico_core.checkpoints.reading import load_backbone
from hico_core.config import FinetuneConfig, ModelConfig, load_finetuning_config
from hico_core.corpus.index import build_index
from hico_core.corpus.sources.lists import labelled_videos
from hico_core.corpus.untrimmed import add_untrimmed
from hico_core.corpus.workspace.records import UntrimmedOptions, sha256_of
from hico_core.data import shared_memory
from hico_core.encoders.trained import build_encoder
from hico_core.model.classifier import VideoClassifier
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.training.distributed import World
from hico_core.training.optim import parameter_groups
from hico_core.training.stopping import StopRequest
from hico_core.training.task import Task, Watch
from hico_core.transfer.evaluation.predictions import predict, predictions_of
from hico_core.transfer.finetuning.dry_run import dry_run_finetuning
from hico_core.transfer.finetuning.parts import Start, _learner, prepare
from hico_core.transfer.finetuning.train import FinetuneMetrics, FinetuneSummary, finetune

pytestmark = pytest.mark.videos

TINY = [
    *("data.num_frames=8", "data.crop_size=32", "data.workers=0", "train.batch_size=4"),
    *("train.epochs=4", "optim.warmup_epochs=0", "augment.colour_probability=0", "augment.grey_probability=0"),
]


def tiny(*overrides: str) -> FinetuneConfig:
    return load_finetuning_config(overrides=[*TINY, *overrides])


def add_labelled(root: Path, folder: Path, subset: Subset, labels: dict[str, int]) -> None:
    """Videos of 3 s with moving stripes: those of class 1 are dark."""
    for number, (name, label) in enumerate(labels.items()):
        stripes = f"geq=lum='{60 if label else 180}+40*sin(X/{2 + number}+N/5)':cb=128:cr=128"
        source = ("-f", "lavfi", "-i", "color=s=64x48:r=30:d=3")
        run_ffmpeg(*source, "-vf", stripes, "-c:v", "libx264", "-preset", "ultrafast", folder / f"{name}.mp4")
    (folder / f"{subset}.txt").write_text("".join(f"{name}.mp4 {label}\n" for name, label in labels.items()))
    add_untrimmed(
        labelled_videos(folder / f"{subset}.txt", data_root=folder),
        root=root,
        options=UntrimmedOptions(subset=subset),
        workers=2,
        on_event=lambda event: None,
    )
    build_index(root)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos to train on, four to test on; beside them encoder.safetensors.

    The encoder is untrained, but its batch norms have seen something: statistics that begin at 1 would need hundreds of
    steps to come down to those of its small weights.
    """
    folder = tmp_path_factory.mktemp("finetune")
    add_labelled(folder / "root", folder, "train", {f"train{n}": n % 2 for n in range(8)})
    add_labelled(folder / "root", folder, "test", {f"test{n}": n % 2 for n in range(4)})
    torch.manual_seed(0)
    encoder = S3DGTiny().train()
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = 1.0
    with torch.no_grad():
        encoder(torch.randn(8, 3, 8, 32, 32))
    export_encoder(folder / "encoder.safetensors", encoder)
    return folder / "root"


def run(config: FinetuneConfig, root: Path, run_dir: Path, **options: Any) -> FinetuneSummary:  # noqa: ANN401
    return tune(config, root=root, run_dir=run_dir, encoder=root.parent / "encoder.safetensors", **options)


def tune(
    config: FinetuneConfig,
    *,
    root: Path,
    run_dir: Path,
    encoder: Path | None,
    resume: bool = False,
    **watch: Any,  # noqa: ANN401
) -> FinetuneSummary:
    task = Task(config=config, root=root, run_dir=run_dir, encoder=encoder, device="cpu", resume=resume)
    return finetune(task, Watch(**watch))


def weights_of(run_dir: Path) -> dict[str, torch.Tensor]:
    content = torch.load(run_dir / "checkpoints" / "last.pt", weights_only=True)
    weights: dict[str, torch.Tensor] = content["model"]
    return weights


def changed_parts(run_dir: Path, root: Path) -> set[str]:
    """Which kinds of the encoder's entries are not those that it began with."""
    before = load_backbone(root.parent / "encoder.safetensors").state_dict()
    after = weights_of(run_dir)
    different = {name for name, value in before.items() if not torch.equal(value, after[f"backbone.{name}"])}
    return {"statistics" if "running" in name or "batches" in name else "weights" for name in different}


def test_it_learns_what_it_is_shown(root: Path, tmp_path: Path) -> None:
    summary = run(tiny("train.epochs=30"), root, tmp_path)
    assert summary.first_loss is not None and summary.last_loss is not None
    assert summary.last_loss < summary.first_loss
    assert summary.test is not None and summary.test.top1 == 1.0
    assert changed_parts(tmp_path, root) == {"weights", "statistics"}
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, summary.num_steps + 1))
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["num_videos"], results["num_failed"], results["top1"], results["top5"]) == (4, 0, 1.0, None)
    with (tmp_path / "predictions.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert [(row["video_id"], row["predicted"]) for row in rows] == [(f"test{n}", str(n % 2)) for n in range(4)]
    assert isinstance(load_backbone(tmp_path / "checkpoints" / "last.pt"), S3DGTiny)  # for features


@pytest.mark.parametrize(("statistics", "changed"), [("frozen", set()), ("drift", {"statistics"})])
def test_linear_evaluation_leaves_the_encoder(statistics: str, changed: set[str], root: Path, tmp_path: Path) -> None:
    run(tiny("train.tune=head", f"train.statistics={statistics}", "optim.base_lr=0.01"), root, tmp_path)
    assert changed_parts(tmp_path, root) == changed
    assert not torch.equal(weights_of(tmp_path)["out.bias"], torch.zeros(2))


@pytest.mark.processes
@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(stop_after: int, root: Path, tmp_path: Path) -> None:
    run(tiny(), root, tmp_path / "whole")
    stop = StopRequest()

    def ask(metrics: FinetuneMetrics) -> None:
        stop.signal_number = signal.SIGTERM if metrics.step == stop_after else None

    with pytest.raises(Interrupted, match="--resume"):
        run(tiny(), root, tmp_path / "stopped", on_step=ask, stop=stop)
    summary = run(tiny("data.workers=1"), root, tmp_path / "stopped", resume=True)
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "stopped")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    for name in ("results.json", "predictions.csv"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "stopped" / name).read_text()
    assert summary.num_steps == 8


def test_a_finished_run_is_only_tested_again(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = run(tiny(), root, tmp_path)
    before = weights_of(tmp_path)
    again = run(tiny("test.views=3", "test.crops=3"), root, tmp_path, resume=True)
    assert (again.num_steps, again.first_loss) == (first.num_steps, None)
    assert "is not loaded: the run continues from its last checkpoint" in caplog.text, "--encoder has no effect"
    assert again.test is not None and (again.test.views, again.test.crops) == (3, 3)
    assert all(torch.equal(value, before[name]) for name, value in weights_of(tmp_path).items())
    with pytest.raises(UsageError, match="resume"):
        run(tiny(), root, tmp_path)
    with pytest.raises(UsageError, match=r"optim\.base_lr=0\.001, not 0\.1"):
        run(tiny("optim.base_lr=0.1"), root, tmp_path, resume=True)


def test_a_test_video_that_cannot_be_decoded_counts_as_wrong(root: Path, tmp_path: Path) -> None:
    work = tmp_path / "root"
    add_labelled(work, tmp_path, "train", {"a": 0, "b": 1})
    add_labelled(work, tmp_path, "test", {"c": 0, "d": 1})
    (tmp_path / "d.mp4").write_bytes(b"no video any more")
    told: list[str] = []
    summary = tune(
        tiny("train.batch_size=2"),
        root=work,
        run_dir=tmp_path / "run",
        encoder=root.parent / "encoder.safetensors",
        on_bad_video=lambda video_id, reason: told.append(video_id),
    )
    assert summary.test is not None
    assert (summary.test.num_videos, summary.test.num_failed) == (2, 1)
    assert summary.test.top1 <= 0.5 and summary.test.top5 is None
    assert told == ["d"]
    (line,) = [json.loads(line) for line in (work / "failures.jsonl").read_text().splitlines()]
    assert line["command"] == "finetune" and line["source"].endswith("d.mp4")
    assert line["error"] and "d.mp4" not in line["error"]
    assert (tmp_path / "run" / "predictions.csv").read_text().splitlines()[-1] == "d,1,,,False"


def test_too_many_bad_videos_end_the_run(root: Path, tmp_path: Path) -> None:
    add_labelled(tmp_path / "root", tmp_path, "train", {"a": 0, "b": 1, "c": 0})
    (tmp_path / "b.mp4").write_bytes(b"no video any more")
    with pytest.raises(HicoError, match=r"1 of 3 videos cannot be decoded, more than data\.max_bad_fraction=0\.05"):
        tune(
            tiny("train.batch_size=2"),
            root=tmp_path / "root",
            run_dir=tmp_path / "run",
            encoder=root.parent / "encoder.safetensors",
        )


def test_what_does_not_fit_is_said_before_any_work(root: Path, tmp_path: Path) -> None:
    with pytest.raises(HicoError, match="too large for 8 labelled videos; use --batch-size 8 or fewer"):
        run(tiny("train.batch_size=9"), root, tmp_path / "run")
    (tmp_path / "no checkpoint").write_text("text")
    with pytest.raises(HicoError, match="no checkpoint"):
        tune(tiny(), root=root, run_dir=tmp_path / "run", encoder=tmp_path / "no checkpoint")
    assert not (tmp_path / "run").exists()


def test_too_little_shared_memory_is_said_before_any_work(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "free_shared_memory", lambda: 100_000)
    with pytest.raises(HicoError, match="MB of shared memory are free, but a worker needs about"):
        run(tiny("data.workers=1"), root, tmp_path)


def test_labels_must_be_classes(root: Path, tmp_path: Path) -> None:
    add_labelled(tmp_path / "root", tmp_path, "train", {"a": 0, "b": 1, "c": 7})
    with pytest.raises(HicoError, match="c has label 7, but num_classes is 3"):
        tune(
            tiny("num_classes=3", "train.batch_size=2"),
            root=tmp_path / "root",
            run_dir=tmp_path / "run",
            encoder=root.parent / "encoder.safetensors",
        )


@pytest.mark.parametrize(("recipe", "tune"), [("ft-hmdb/ft-s3dg-hico-s", "all"), ("ft-hmdb/lft-s3dg-hico-s", "head")])
def test_groups_are_those_of_the_authors(recipe: str, tune: str) -> None:
    model = VideoClassifier(51)
    if tune == "head":
        model.backbone.requires_grad_(False)
    groups = parameter_groups(model, weight_decay=0.001, lars_exclude_bn=False)
    theirs = [group for group in load_json("param_groups.json")[recipe]["groups"] if group["params"]]
    assert [group["weight_decay"] for group in groups] == [group["weight_decay"] for group in theirs]
    for ours, golden in zip(groups, theirs, strict=True):
        names = [name if name.startswith("backbone.") else f"head.{name}" for name in ours["names"]]
        assert sorted(names) == sorted(golden["params"])


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("tune", ["all", "head"])
def test_a_frozen_encoder_is_not_trained_by_any_number_of_processes(tune: str, processes: int) -> None:
    model = VideoClassifier(2, S3DGTiny(), S3DGTiny.feature_dim)
    in_all = len(list(model.parameters()))
    with group_of(processes) as world:
        learner = _learner(model, tiny(f"train.tune={tune}"), device=torch.device("cpu"), world=world)
    trained = [name for group in learner.optimizer.param_groups for name in group["names"]]
    assert len(trained) == in_all if tune == "all" else trained == ["out.weight", "out.bias"]


def test_scores_of_views_are_added() -> None:
    golden = load_arrays("multiview_meter.npz")
    num_views = int(golden["case0/num_views"])
    order = golden["case0/view_ids"].argsort()
    views = torch.from_numpy(golden["case0/preds"][order]).double().unflatten(0, (-1, num_views))
    assert_close(views.sum(dim=1), golden["case0/video_preds"], 1e-6)
    labels = golden["case0/labels"].tolist()
    predictions = [predict(str(n), label, scores) for n, (label, scores) in enumerate(zip(labels, views, strict=True))]
    hits = [sum(p.predicted == p.label for p in predictions), sum(p.in_top5 for p in predictions)]
    assert [f"{100 * hit / len(labels):.2f}" for hit in hits] == [str(golden["case0/top1"]), str(golden["case0/top5"])]


def test_videos_for_validation_choose_the_checkpoint_that_is_tested(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "root"
    add_labelled(work, tmp_path, "train", {"a": 0, "b": 1, "c": 0, "d": 1})
    add_labelled(work, tmp_path, "val", {"e": 0, "f": 1})
    add_labelled(work, tmp_path, "test", {"g": 0, "h": 1})
    encoder = tmp_path / "encoder.safetensors"
    encoder.write_bytes((root.parent / "encoder.safetensors").read_bytes())
    config, run_dir = tiny("train.batch_size=2", "train.eval_epochs=2"), tmp_path / "run"
    told: list[FinetuneMetrics] = []
    stop, tests = StopRequest(), predictions_of

    def asked_to_stop(*videos: Any, **options: Any) -> Any:  # noqa: ANN401
        stop.signal_number = signal.SIGTERM
        return tests(*videos, **options)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="stopped after step 4") as stopped:
        patch.setattr("hico_core.transfer.finetuning.parts.predictions_of", asked_to_stop)
        tune(config, root=work, run_dir=run_dir, encoder=encoder, on_step=told.append, stop=stop)
    assert stopped.value.exit_code == 143
    # The same as without the stop during validation, though the encoder's file is another one now.
    encoder.write_bytes(b"another encoder")
    summary = tune(config, root=work, run_dir=run_dir, encoder=None, resume=True, on_step=told.append)
    assert [metrics.step for metrics in told] == list(range(1, 9))
    measured = {metrics.step: metrics.val_accuracy for metrics in told if metrics.val_accuracy is not None}
    assert list(measured) == [5], "when two epochs were done; the end of training is measured too"
    assert summary.test is not None and summary.test.checkpoint == "best.pt"
    best = torch.load(run_dir / "checkpoints/best.pt", weights_only=True)
    assert summary.test.val_accuracy == best["progress"]["best_accuracy"] >= measured[5]
    results = json.loads((run_dir / "results.json").read_text())
    assert results["encoder"] == str(encoder)
    assert results["encoder_sha256"] == sha256_of(root.parent / "encoder.safetensors"), "of the file as it was"


def test_the_last_weights_may_be_the_best(root: Path, tmp_path: Path) -> None:
    """They are measured when training has ended, and written then."""
    add_labelled(tmp_path / "root", tmp_path, "train", {"a": 0, "b": 1})
    add_labelled(tmp_path / "root", tmp_path, "val", {"c": 0, "d": 1})
    config, encoder = tiny("train.batch_size=2", "train.max_steps=1"), root.parent / "encoder.safetensors"
    tune(config, root=tmp_path / "root", run_dir=tmp_path / "run", encoder=encoder)
    best = torch.load(tmp_path / "run/checkpoints/best.pt", weights_only=True)
    assert best["progress"]["position"][0] == 1


def test_an_encoder_that_is_named_keeps_the_settings_of_its_file(root: Path, tmp_path: Path) -> None:
    model, file = ModelConfig(encoder="python:made_encoders:maps", norm_eps=0.01), tmp_path / "a.safetensors"
    export_encoder(file, build_encoder(model), model=model)
    named, device = tiny(f"model.encoder={model.encoder}"), torch.device("cpu")
    parts = prepare(named, root=root, start=Start(file, None), device=device, world=World())
    assert parts.encoder is not None and parts.encoder.model == model
    norms = [module for module in parts.learner.model.backbone.modules() if isinstance(module, torch.nn.BatchNorm3d)]
    assert {norm.eps for norm in norms} == {0.01}


def test_a_new_run_needs_an_encoder(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name one with --checkpoint"):
        tune(tiny(), root=root, run_dir=tmp_path / "run", encoder=None, resume=True)


@pytest.mark.processes
def test_a_dry_run_is_the_first_step_and_writes_nothing(root: Path, tmp_path: Path) -> None:
    before, config = sorted(root.rglob("*")), tiny("test.views=3")
    found = dry_run_finetuning(config, root=root, encoder=root.parent / "encoder.safetensors", device="cpu")
    assert sorted(root.rglob("*")) == before
    assert (found.num_videos, found.num_test_videos, found.num_classes) == (8, 4, 2)
    assert found.num_steps == 8 * config.train.epochs // config.train.batch_size
    assert found.measured.loss == run(tiny("train.max_steps=1", "test.views=3"), root, tmp_path).first_loss
    slower = min(found.measured.step_clips_per_second, found.measured.reader_clips_per_second)
    assert found.measured.hours == pytest.approx(8 * config.train.epochs / slower / 3600)
    assert found.test_hours > 0 and found.measured.peak_memory_bytes > 100e6

    command: list[str | Path] = [
        "finetune",
        "--dry-run",
        "--checkpoint",
        root.parent / "encoder.safetensors",
        "--batch-size",
        "4",
    ]
    done = hico(*command, "-o", "data.num_frames=8", "-o", "data.crop_size=32", "--workers", "0", root=root)
    assert done.returncode == 0, done.stderr
    assert "num_classes: 2" in done.stdout and "test_time: " in done.stdout
    assert_one_line(hico(*command, "--nproc", "3", root=root), 2, "must be a multiple of their number, 3")
    assert sorted(root.rglob("*")) == before

"""`hico finetune`: a pretrained encoder and labelled videos -> a classifier and its accuracy."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import result, warn
from hico_cli.options import (
    AllowChanged,
    AnnoDir,
    BatchSize,
    ConfigFile,
    DataRoot,
    Device,
    Epochs,
    Json,
    MaxSteps,
    Nproc,
    Override,
    Readers,
    Root,
    TwoSteps,
    is_first_process,
    require_file_name_part,
    typed,
)
from hico_cli.outcomes import report_dry_run, tell_if_finished, watched_training
from hico_cli.processes import do_work, resumed
from hico_cli.training_data import Data, indexed_data
from hico_core.base.addresses import DEFAULT_ROOT, local_part, locate_root
from hico_core.base.errors import counted

if TYPE_CHECKING:
    from hico_core.config import FinetuneConfig
    from hico_core.training.task import Task
    from hico_core.transfer.finetuning.train import FinetuneMetrics, FinetuneSummary


def finetune(
    context: typer.Context,
    recipe: Annotated[str, typer.Option(help="finetune-hmdb51 or finetune-ucf101.")] = "finetune-hmdb51",
    root: Root = DEFAULT_ROOT,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--encoder",
            "--checkpoint",
            help="The encoder: .safetensors, hico's .pt or the authors' .pyth. Default: ROOT's newest run.",
        ),
    ] = None,
    linear: Annotated[
        bool, typer.Option("--linear", help="Train only the classifier; the encoder stays frozen.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Name of the run. Default: the recipe's; with --linear, -linear is added.")
    ] = None,
    config: ConfigFile = None,
    data_root: DataRoot = None,
    anno_dir: AnnoDir = None,
    override: Override = None,
    batch_size: BatchSize = None,
    epochs: Epochs = None,
    max_steps: MaxSteps = None,
    eval_every: Annotated[
        int | None,
        typer.Option(min=1, metavar="EPOCHS", help="Epochs between evaluations on the subset val, if it has videos."),
    ] = None,
    views: Annotated[int | None, typer.Option(min=1, help="Clips per test video.")] = None,
    workers: Readers = None,
    device: Device = "auto",
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue from the run's last checkpoint; a finished run is only tested again."),
    ] = False,
    allow_changed: AllowChanged = False,
    nproc: Nproc = 1,
    dry_run: TwoSteps = False,
    json: Json = False,
) -> None:
    """Finetune an encoder on the labelled videos of the index: train on the subset train, test on the subset test.

    Add videos with hico index --list train.txt, and --list test.txt --subset test (one PATH LABEL per line). If the
    subset val has videos, the checkpoint with the best accuracy on them (best.pt) is tested. Writes ROOT/runs/NAME:
    results.json, predictions.csv, metrics.jsonl and checkpoints/. Exit code 3: some test videos cannot be decoded;
    they count as wrong and are listed in ROOT/failures.jsonl.
    """
    from hico_core.config import finetuning_preset_names
    from hico_core.config.authors.finetuning_keys import load_any_finetuning
    from hico_core.config.resolve import Asked, resolve_training
    from hico_core.corpus.sources.lists import find_labelled_lists
    from hico_core.training.run_folder import has_checkpoints

    require_file_name_part(name, option="--name")
    if recipe not in finetuning_preset_names():
        why = f"{recipe} is not a recipe for finetuning; these are {', '.join(finetuning_preset_names())}"
        raise typer.BadParameter(why, param_hint="--recipe")
    options = {
        "train.batch_size": batch_size,
        "train.tune": "head" if linear else None,
        "train.max_steps": max_steps,
        "train.eval_epochs": eval_every,
        "test.views": views,
        "data.workers": workers,
    }
    asked = Asked(recipe=recipe, file=config, options=options, epochs=epochs, overrides=override or [])
    loaded = resolve_training(load_any_finetuning, asked)
    settings = loaded.config
    given = Data(root=root, data_root=data_root, anno_dir=anno_dir, dry_run=dry_run, as_json=json)
    place, num_failed = indexed_data(
        context, given, loaded.authors, lambda folder, lists: find_labelled_lists(folder, lists, settings.dataset)
    )
    if checkpoint is None and loaded.authors is not None and loaded.authors.checkpoint:
        checkpoint = Path(loaded.authors.checkpoint)
    title = name or f"finetune-{settings.dataset}" + ("-linear" if settings.train.tune == "head" else "")
    run_dir = local_part(place) / "runs" / title
    # A run that continues has its encoder in its checkpoints.
    if checkpoint is None and not (resume and has_checkpoints(run_dir) and not dry_run):
        from hico_core.transfer.extraction.jobs import newest_encoder

        checkpoint = newest_encoder(local_part(locate_root(root)), warn)
    if dry_run and checkpoint is not None:
        from hico_core.transfer.finetuning.dry_run import dry_run_finetuning

        found = dry_run_finetuning(settings, root=place, encoder=checkpoint, device=device, processes=nproc)
        report_dry_run(settings, found, as_json=json)
        return

    from hico_core.training.task import Task

    task = Task(
        config=settings,
        root=place,
        run_dir=run_dir,
        encoder=checkpoint,
        device=device,
        resume=resume,
        allow_changed=allow_changed,
        command=typed(context),
    )
    do_work(partial(_train, task, title=title, root=root, as_json=json), nproc=nproc, num_failed=num_failed)


def _train(task: "Task[FinetuneConfig]", *, title: str, root: str, as_json: bool) -> int:
    """Train in this process, and report; return the exit code."""
    from hico_core.transfer.finetuning.train import finetune as run

    epochs, bad_video = task.config.train.epochs, "{} cannot be used"
    with watched_training(title, _describe_step, epochs=epochs, bad_video=bad_video, as_json=as_json) as watch:
        summary = run(resumed(task), watch)
    if not is_first_process():
        return 0
    code = _report(summary, root=root, as_json=as_json)
    tell_if_finished(task, summary)
    return code


def _describe_step(metrics: "FinetuneMetrics", epochs: int) -> str:
    val = "" if metrics.val_accuracy is None else f" val {metrics.val_accuracy:.1%}"
    return (
        f"step {metrics.step} epoch {metrics.epoch:.2f}/{epochs} loss {metrics.loss:.4f} "
        f"accuracy {metrics.accuracy:.1%} lr {metrics.lr:.5f} {metrics.clips_per_second:.1f} clips/s{val}"
    )


def _report(summary: "FinetuneSummary", *, root: str, as_json: bool) -> int:
    """Print the results; return the exit code."""
    from hico_core.transfer.evaluation.predictions import describe_accuracy

    tested = summary.test
    if tested is None:
        accuracy = "not tested: the index has no labelled videos in the subset test"
    else:
        described = describe_accuracy(
            tested.top1, tested.top5, num_videos=tested.num_videos, num_classes=tested.num_classes
        )
        chosen = "" if tested.val_accuracy is None else f", {tested.checkpoint} with {tested.val_accuracy:.2%} on val"
        accuracy = (
            f"{described}; {tested.views} x {tested.crops} views of each video{chosen}; "
            f"{summary.run_dir / 'predictions.csv'}"
        )
    fields = {**asdict(summary), "run_dir": str(summary.run_dir), "precision": summary.precision.name}
    fields["test"] = None if tested is None else asdict(tested)
    result(f"{counted(summary.num_steps, 'step')} in {summary.precision.name}; {accuracy}", fields, as_json=as_json)
    if tested is not None and tested.num_failed:
        warn(f"{counted(tested.num_failed, 'test video')} failed; see {root}/failures.jsonl")
        return 3
    return 0

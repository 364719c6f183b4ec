"""`hico finetune`: a pretrained encoder and labelled videos -> a classifier and its accuracy."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.config import warn_about
from hico_cli.console import (
    noting_signals,
    progress,
    report_dry_run,
    report_failed,
    result,
    video_progress,
    warn,
)
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
    as_overrides,
    is_first_process,
    is_one_of_several,
    require_file_name_part,
    resume_in_processes,
)
from hico_core.choices import DeviceName
from hico_core.corpus.addresses import DEFAULT_ROOT, Location, local_part, locate_root
from hico_core.errors import counted

if TYPE_CHECKING:
    from hico_core.config import FinetuneConfig
    from hico_core.transfer.finetune import FinetuneMetrics, FinetuneSummary


def finetune(
    context: typer.Context,
    recipe: Annotated[str, typer.Option(help="finetune-hmdb51 or finetune-ucf101.")] = "finetune-hmdb51",
    root: Root = DEFAULT_ROOT,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="The encoder: .safetensors, our .pt or the authors' .pyth. Default: ROOT's newest run."),
    ] = None,
    linear: Annotated[
        bool, typer.Option("--linear", help="Train the classifier only; the encoder stays as it is.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Of the run's folder. Default: the recipe's, -linear.")] = None,
    config: ConfigFile = None,
    data_root: DataRoot = None,
    anno_dir: AnnoDir = None,
    override: Override = None,
    batch_size: BatchSize = None,
    epochs: Epochs = None,
    max_steps: MaxSteps = None,
    eval_every: Annotated[
        int | None,
        typer.Option(min=1, metavar="EPOCHS", help="How often to look at the videos of the subset val, if any."),
    ] = None,
    views: Annotated[int | None, typer.Option(min=1, help="Clips of each test video.")] = None,
    workers: Readers = None,
    device: Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run's last checkpoint; a finished run is tested again.")
    ] = False,
    allow_changed: AllowChanged = False,
    nproc: Nproc = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do two steps, write nothing; tell times, sizes and memory.")
    ] = False,
    json: Json = False,
) -> None:
    """Finetune on the labelled videos of ROOT's index: train on its subset train, test on its subset test.

    Add videos with hico index --list train.txt, and --list test.txt --subset test: PATH LABEL a line. Where
    there are videos in the subset val, the checkpoint that knows most of them (best.pt) is the one that is tested.
    Writes ROOT/runs/NAME: results.json, predictions.csv, metrics.jsonl and checkpoints/. Exit code 3: some test videos
    cannot be decoded; they count as wrong, and are listed in ROOT/failures.jsonl.
    """
    from hico_core.interop.finetuning_keys import load_any_finetuning

    require_file_name_part(name or "", option="--name")
    shortcuts = {
        "train.batch_size": batch_size,
        "train.tune": "head" if linear else None,
        "train.max_steps": max_steps,
        "train.eval_epochs": eval_every,
        "test.views": views,
        "data.workers": workers,
    }
    given = as_overrides(shortcuts, epochs=epochs, read=lambda: load_any_finetuning(config, base=recipe)[0])
    settings, authors = load_any_finetuning(config, base=recipe, overrides=given + (override or []))

    from hico_core.corpus.lists import find_labelled_lists

    place = locate_root(root)
    if authors is None and (data_root or anno_dir):
        raise typer.BadParameter("only with an authors' --config; else `hico index --list`", param_hint="--data-root")
    num_failed = 0
    if authors is not None and not is_one_of_several():
        from hico_core.corpus.listed import add_their_data

        warn_about(authors.notes, authors.ignored, Path(str(config)))
        if dry_run and (data_root is not None or not (place / "index.parquet").exists()):
            # An index to try with; ROOT stays as it is.
            place = Path(context.with_resource(TemporaryDirectory(prefix="hico-dry-run-")))
        num_failed = add_their_data(
            authors,
            place,
            data=settings.data,
            data_root=data_root,
            anno_dir=anno_dir,
            find=lambda folder, lists: find_labelled_lists(folder, lists, settings.dataset),
            progress=video_progress(as_json=json),
        )
        report_failed(num_failed, root=place)
    if checkpoint is None and authors is not None and authors.checkpoint:
        checkpoint = Path(authors.checkpoint)
    title = name or _default_name(settings)
    run_dir = local_part(place) / "runs" / title
    # A run that goes on has its encoder in its checkpoints.
    if checkpoint is None and not (resume and run_dir.exists() and not dry_run):
        from hico_core.transfer.jobs import newest_encoder

        checkpoint = newest_encoder(local_part(locate_root(root)))
    if dry_run and checkpoint is not None:
        _rehearse(settings, place, encoder=checkpoint, device=device, nproc=nproc, as_json=json)
        return
    resume = resume_in_processes(context, nproc, resume=resume, num_failed=num_failed)

    from hico_core.transfer.finetune import finetune as run

    total = settings.train.epochs
    with noting_signals() as stop, progress(title, total=total, as_json=json) as report:

        def on_step(metrics: "FinetuneMetrics") -> None:
            text = (
                f"step {metrics.step} epoch {metrics.epoch:.2f}/{total} loss {metrics.loss:.4f} "
                f"accuracy {metrics.accuracy:.1%} lr {metrics.lr:.5f} {metrics.clips_per_second:.1f} clips/s"
            )
            if metrics.val_accuracy is not None:
                text += f" val {metrics.val_accuracy:.1%}"
            report(metrics.epoch, text, metrics._asdict())

        summary = run(
            settings,
            root=place,
            run_dir=run_dir,
            encoder=checkpoint,
            device=device,
            resume=resume,
            allow_changed=allow_changed,
            on_step=on_step,
            on_bad_video=lambda video_id, reason: warn(f"{video_id} cannot be used: {reason}"),
            on_tested=lambda done, of: report(total, f"tested {done}/{of} videos", {"tested": done, "of": of}),
            stop=stop,
        )
    if is_first_process():
        _report(summary, root=root, as_json=json)
    if num_failed:
        raise typer.Exit(3)


def _rehearse(
    settings: "FinetuneConfig",
    root: "Location",
    *,
    encoder: Path,
    device: DeviceName,
    nproc: int,
    as_json: bool,
) -> None:
    from hico_core.config import dump_config
    from hico_core.transfer.finetune import rehearse_finetuning

    found = rehearse_finetuning(settings, root=root, encoder=encoder, device=device, processes=nproc)
    report_dry_run(dump_config(settings), settings.model_dump(mode="json"), found._asdict(), as_json=as_json)


def _report(summary: "FinetuneSummary", *, root: str, as_json: bool) -> None:
    tested = summary.test
    if tested is None:
        accuracy = "not tested: the index has no labelled videos of the subset test"
    else:
        chosen = "" if tested.val_accuracy is None else f", {tested.checkpoint} with {tested.val_accuracy:.2%} on val"
        accuracy = (
            f"top-1 {tested.top1:.2%}, top-5 {tested.top5:.2%} of {tested.num_videos} videos "
            f"({tested.views} x {tested.crops} views each{chosen}); {summary.run_dir / 'predictions.csv'}"
        )
    fields = {**summary._asdict(), "run_dir": str(summary.run_dir), "precision": summary.precision.name}
    fields["test"] = None if tested is None else tested._asdict()
    result(f"{counted(summary.num_steps, 'step')} in {summary.precision.name}; {accuracy}", fields, as_json=as_json)
    if tested is not None and tested.num_failed:
        warn(f"{tested.num_failed} test videos failed: {root}/failures.jsonl")
        raise typer.Exit(3)


def _default_name(settings: "FinetuneConfig") -> str:
    return f"finetune-{settings.dataset}" + ("-linear" if settings.train.tune == "head" else "")

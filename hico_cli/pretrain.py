"""`hico pretrain`: an index -> a pretrained encoder."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import noting_signals, progress, report_dry_run, warn
from hico_cli.options import (
    AllowChanged,
    AnnoDir,
    BatchSize,
    CacheDir,
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
    is_first_process,
    processes_of,
    read_size,
    require_file_name_part,
)
from hico_cli.outcomes import describe_step, report_pretraining, warn_of_bad_video
from hico_cli.processes import do_work, was_restarted
from hico_cli.training_data import Data, indexed_data
from hico_core.base.addresses import DEFAULT_ROOT, local_part
from hico_core.base.choices import Dataset

if TYPE_CHECKING:
    from hico_core.config import Config
    from hico_core.training.log import StepMetrics
    from hico_core.training.task import Task


def pretrain(
    context: typer.Context,
    dataset: Annotated[
        Dataset | None,
        typer.Option(
            rich_help_panel="Settings", help="Whose recipe to run; the videos are those of ROOT. Default: hacs."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            rich_help_panel="Settings",
            help="Its whole name, such as hacs-hico-s (see hico config list), or that without the dataset. "
            "Default: hico-s for hacs, else hico-l.",
        ),
    ] = None,
    root: Root = DEFAULT_ROOT,
    name: Annotated[str | None, typer.Option(help="Name of the run's folder. Default: dataset-recipe.")] = None,
    config: ConfigFile = None,
    data_root: DataRoot = None,
    anno_dir: AnnoDir = None,
    override: Override = None,
    batch_size: BatchSize = None,
    epochs: Epochs = None,
    max_steps: MaxSteps = None,
    workers: Readers = None,
    device: Device = "auto",
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile",
            rich_help_panel="Settings",
            help="Let torch.compile fuse the encoder: a slow start, then faster steps.",
        ),
    ] = False,
    cache_dir: CacheDir = None,
    cache_size: Annotated[
        str | None, typer.Option(metavar="SIZE", rich_help_panel="Buckets", help="What those copies may take.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", rich_help_panel="Going on", help="Go on from the run's last checkpoint.")
    ] = False,
    allow_changed: AllowChanged = False,
    nproc: Nproc = 1,
    init_from: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel="Settings", help="Start from the encoder of this checkpoint (ours or the authors')."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do two steps, write nothing; tell times, sizes and memory.")
    ] = False,
    json: Json = False,
) -> None:
    """Pretrain an S3D-G encoder on the untrimmed videos of ROOT, without labels.

    Writes ROOT/runs/NAME: config.yaml, metrics.jsonl, checkpoints/ and export/encoder.safetensors.
    """
    from hico_core.config import default_recipe, preset_names
    from hico_core.config.authors.pretraining_keys import load_any_config
    from hico_core.corpus.sources.lists import find_training_list
    from hico_core.training.resolve import Asked, resolve_training

    require_file_name_part(name or "", option="--name")
    of_dataset = dataset or "hacs"
    base = recipe if recipe in preset_names() else f"{of_dataset}-{recipe or default_recipe(of_dataset)}"
    if dataset is not None and not base.startswith(f"{dataset}-"):
        raise typer.BadParameter(f"{recipe} is not one of --dataset {dataset}", param_hint="--recipe")
    options = {
        "train.batch_size": batch_size,
        "train.max_steps": max_steps,
        "data.workers": workers,
        "train.compile": compile_ or None,
        "data.cache_dir": None if cache_dir is None else str(cache_dir),
        "data.cache_gb": None if cache_size is None else read_size(cache_size) / 1e9,
    }
    asked = Asked(recipe=base, file=config, options=options, epochs=epochs, overrides=override or [])
    resolved = resolve_training(load_any_config, asked)
    settings = resolved.config
    given = Data(root=root, config=config, data_root=data_root, anno_dir=anno_dir, dry_run=dry_run, as_json=json)
    place, num_failed = indexed_data(
        context,
        given,
        resolved.authors,
        lambda folder, lists: {"train": find_training_list(folder, lists, trimmed=settings.dataset == "k400")},
    )
    title = f"{settings.dataset}-{settings.recipe}"
    run_dir = local_part(place) / "runs" / (name or title)
    lowered = ""
    if not asked.names("train.batch_size"):
        from hico_core.training.fitting import describe_fitting, with_batch_of_run

        fitted = with_batch_of_run(
            settings,
            root=place,
            run_dir=run_dir,
            resume=resume and not dry_run,
            device=device,
            processes=processes_of(nproc),
        )
        lowered = describe_fitting(settings, fitted)
        settings = fitted.config
    if dry_run:
        from hico_core.config import dump_config
        from hico_core.training.dry_run import dry_run as measure

        found = measure(settings, root=place, device=device, init_from=init_from, processes=nproc)
        report_dry_run(dump_config(settings), settings.model_dump(mode="json"), asdict(found), as_json=json)
        if lowered:
            warn(lowered)
        return

    from hico_core.training.task import Task

    task = Task(
        config=settings,
        root=place,
        run_dir=run_dir,
        encoder=init_from,
        device=device,
        resume=resume,
        allow_changed=allow_changed,
    )
    do_work(partial(_train, task, title=title, lowered=lowered, as_json=json), nproc=nproc)
    if num_failed:
        raise typer.Exit(3)


def _train(task: "Task[Config]", *, title: str, lowered: str, as_json: bool) -> int:
    """Train in this process, and report."""
    # Slow to load, so that a wrong key is found at once.
    from hico_core.training.loop import run_pretraining
    from hico_core.training.task import Watch

    task = replace(task, resume=task.resume or was_restarted())
    total = task.config.train.epochs
    with noting_signals() as stop, progress(title, total=total, as_json=as_json) as report:

        def on_step(metrics: "StepMetrics") -> None:
            nonlocal lowered
            if lowered:  # now that nothing else is wrong
                warn(lowered)
                lowered = ""
            report(metrics.epoch, describe_step(metrics, total), asdict(metrics))

        watch = Watch(
            on_step=on_step,
            on_bad_video=warn_of_bad_video,
            stop=stop,
        )
        summary = run_pretraining(task, watch)
    if is_first_process():
        report_pretraining(summary, as_json=as_json)
    return 0

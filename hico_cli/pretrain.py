"""`hico pretrain`: an index -> a pretrained encoder."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import warn
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
    TrainedEncoder,
    TwoSteps,
    is_first_process,
    read_size,
    require_file_name_part,
    typed,
)
from hico_cli.outcomes import report_dry_run, report_pretraining, tell_if_finished, watched_pretraining
from hico_cli.processes import do_work, resumed
from hico_cli.training_data import Data, indexed_data
from hico_core.base.addresses import DEFAULT_ROOT, local_part
from hico_core.base.choices import Dataset

if TYPE_CHECKING:
    from hico_core.config import Config
    from hico_core.config.authors.reading import Loaded
    from hico_core.training.task import Task


def pretrain(
    context: typer.Context,
    dataset: Annotated[
        Dataset | None,
        typer.Option(
            rich_help_panel="Settings", help="Dataset whose recipe to use; the videos are those of ROOT. Default: hacs."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            rich_help_panel="Settings",
            help="Name of the recipe, such as hacs-hico-s or hico-s (see hico config list). Default: hico-s for hacs, "
            "otherwise hico-l.",
        ),
    ] = None,
    root: Root = DEFAULT_ROOT,
    name: Annotated[
        str | None, typer.Option(help="Name of the run and of its folder in ROOT/runs. Default: dataset-recipe.")
    ] = None,
    config: ConfigFile = None,
    data_root: DataRoot = None,
    anno_dir: AnnoDir = None,
    override: Override = None,
    encoder: TrainedEncoder = None,
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
            help="Compile the encoder with torch.compile: slower to start, possibly faster per step.",
        ),
    ] = False,
    cache_dir: CacheDir = None,
    cache_size: Annotated[
        str | None, typer.Option(metavar="SIZE", rich_help_panel="Buckets", help="Maximum size of the local copies.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", rich_help_panel="Continuing", help="Continue from the run's last checkpoint.")
    ] = False,
    allow_changed: AllowChanged = False,
    nproc: Nproc = 1,
    init_from: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel="Settings", help="Start from the encoder in this checkpoint or file of public weights."
        ),
    ] = None,
    dry_run: TwoSteps = False,
    json: Json = False,
) -> None:
    """Pretrain an encoder on the untrimmed videos of the workspace, without labels.

    Writes ROOT/runs/NAME: config.yaml, metrics.jsonl, checkpoints/ and export/encoder.safetensors.
    """
    from hico_core.config import default_recipe, preset_names
    from hico_core.config.authors.pretraining_keys import load_any_config
    from hico_core.config.resolve import Asked, resolve_training
    from hico_core.corpus.sources.lists import find_training_list

    require_file_name_part(name, option="--name")
    of_dataset = dataset or "hacs"
    base = recipe if recipe in preset_names() else f"{of_dataset}-{recipe or default_recipe(of_dataset)}"
    if dataset is not None and not base.startswith(f"{dataset}-"):
        raise typer.BadParameter(f"{recipe} is not a recipe for --dataset {dataset}", param_hint="--recipe")
    options = {
        "model.encoder": encoder,
        "train.batch_size": batch_size,
        "train.max_steps": max_steps,
        "data.workers": workers,
        "train.compile": compile_ or None,
        "data.cache_dir": None if cache_dir is None else str(cache_dir),
        "data.cache_gb": None if cache_size is None else read_size(cache_size) / 1e9,
    }
    asked = Asked(recipe=base, file=config, options=options, epochs=epochs, overrides=override or [])
    lower_batch = not asked.names("train.batch_size")
    loaded = resolve_training(load_any_config, asked)
    settings = loaded.config
    if config is not None:
        _require_its_recipe(loaded, config, dataset=dataset, recipe=base if recipe else None)
    given = Data(root=root, data_root=data_root, anno_dir=anno_dir, dry_run=dry_run, as_json=json)
    place, num_failed = indexed_data(
        context,
        given,
        loaded.authors,
        lambda folder, lists: {"train": find_training_list(folder, lists, trimmed=settings.dataset == "k400")},
    )
    title = f"{settings.dataset}-{settings.recipe}"
    run_dir = local_part(place) / "runs" / (name or title)
    # Slow to import, so only after the settings have been checked.
    from hico_core.training.task import Task

    task = Task(config=settings, root=place, run_dir=run_dir, encoder=init_from, device=device, lower_batch=lower_batch)
    if dry_run:
        from hico_core.training.dry_run import dry_run as measure
        from hico_core.training.fitting import fit_batch

        fitted = fit_batch(task, processes=nproc)
        found = measure(fitted, device=device, init_from=init_from, processes=nproc)
        report_dry_run(fitted.config, found, as_json=json)
        if fitted.note:
            warn(fitted.note)
        return
    task = replace(task, resume=resume, allow_changed=allow_changed, command=typed(context))
    do_work(partial(_train, task, title=title, as_json=json), nproc=nproc, num_failed=num_failed)


def _require_its_recipe(loaded: "Loaded[Config]", file: Path, *, dataset: str | None, recipe: str | None) -> None:
    """Check that options do not name another recipe than a file that names its own."""
    settings = loaded.config
    if dataset is not None and settings.dataset != dataset:
        raise typer.BadParameter(f"{file} is for {settings.dataset}; leave out this option", param_hint="--dataset")
    own = f"{settings.dataset}-{settings.recipe}"
    if recipe is not None and loaded.names_recipe and own != recipe:
        raise typer.BadParameter(f"{file} is based on {own}; leave out this option", param_hint="--recipe")


def _train(task: "Task[Config]", *, title: str, as_json: bool) -> int:
    """Train in this process, and report; return the exit code."""
    from hico_core.training.loop import run_pretraining

    with watched_pretraining(title, epochs=task.config.train.epochs, as_json=as_json) as watch:
        summary = run_pretraining(resumed(task), watch)
    if is_first_process():
        report_pretraining(summary, as_json=as_json)
        tell_if_finished(task, summary)
    return 0

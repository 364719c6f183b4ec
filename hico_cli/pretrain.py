"""`hico pretrain`: an index -> a pretrained encoder."""

import os
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
    video_progress,
    warn,
)
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
    as_overrides,
    is_first_process,
    is_one_of_several,
    read_size,
    require_file_name_part,
    resume_in_processes,
)
from hico_cli.outcomes import describe_step, report_pretraining, warn_of_bad_video
from hico_core.choices import Dataset, DeviceName
from hico_core.corpus.addresses import DEFAULT_ROOT, Location, local_part, locate_root

if TYPE_CHECKING:
    from hico_core.config import Config
    from hico_core.training.log import StepMetrics


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
    from hico_core.interop.pretraining_keys import load_any_config

    require_file_name_part(name or "", option="--name")
    of_dataset = dataset or "hacs"
    base = recipe if recipe in preset_names() else f"{of_dataset}-{recipe or default_recipe(of_dataset)}"
    if dataset is not None and not base.startswith(f"{dataset}-"):
        raise typer.BadParameter(f"{recipe} is not one of --dataset {dataset}", param_hint="--recipe")
    shortcuts = {
        "train.batch_size": batch_size,
        "train.max_steps": max_steps,
        "data.workers": workers,
        "train.compile": compile_ or None,
        "data.cache_dir": None if cache_dir is None else str(cache_dir),
        "data.cache_gb": None if cache_size is None else read_size(cache_size) / 1e9,
    }
    given = as_overrides(shortcuts, epochs=epochs, read=lambda: load_any_config(config, base=base)[0])
    settings, authors = load_any_config(config, base=base, overrides=given + (override or []))
    base = f"{settings.dataset}-{settings.recipe}"

    from hico_core.corpus.lists import find_training_list

    place = locate_root(root)
    run_dir = local_part(place) / "runs" / (name or base)
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
            find=lambda folder, lists: {
                "train": find_training_list(folder, lists, trimmed=settings.dataset == "k400"),
            },
            progress=video_progress(as_json=json),
        )
        report_failed(num_failed, root=place)

    lowered = ""
    names_batch = any(setting.partition("=")[0].strip() == "train.batch_size" for setting in override or [])
    if batch_size is None and config is None and not names_batch:
        settings, lowered = _fitted(
            settings, place, run_dir=run_dir, resume=resume and not dry_run, nproc=nproc, device=device
        )

    if dry_run:
        _rehearse(settings, place, device=device, init_from=init_from, nproc=nproc, as_json=json)
        if lowered:
            warn(lowered)
        return

    resume = resume_in_processes(context, nproc, resume=resume, num_failed=num_failed)
    from hico_core.training.loop import pretrain as run  # slow to load, so that a wrong key is told at once

    total = settings.train.epochs
    with noting_signals() as stop, progress(base, total=total, as_json=json) as report:

        def on_step(metrics: "StepMetrics") -> None:
            nonlocal lowered
            if lowered:  # now that nothing else is wrong
                warn(lowered)
                lowered = ""
            report(metrics.epoch, describe_step(metrics, total), metrics._asdict())

        summary = run(
            settings,
            root=place,
            run_dir=run_dir,
            device=device,
            resume=resume,
            allow_changed=allow_changed,
            init_from=init_from,
            on_step=on_step,
            on_bad_video=warn_of_bad_video,
            stop=stop,
        )
    if is_first_process():
        report_pretraining(summary, as_json=json)
    if num_failed:
        raise typer.Exit(3)


def _fitted(
    settings: "Config",
    root: "Location",
    *,
    run_dir: Path,
    resume: bool,
    nproc: int,
    device: DeviceName,
) -> "tuple[Config, str]":
    """Lower a recipe's batch to the videos and the memory that there are; what there is to say of that, if anything."""
    from hico_core.training.fitting import with_batch_of_run
    from hico_core.training.schedule import peak_learning_rate

    processes = int(os.environ.get("WORLD_SIZE", "1")) if is_one_of_several() else nproc
    fitted, reason = with_batch_of_run(
        settings, root=root, run_dir=run_dir, resume=resume, device=device, processes=processes
    )
    if not reason:
        return fitted, ""
    before, now = settings.train.batch_size, fitted.train.batch_size
    rates = [
        peak_learning_rate(
            base_lr=settings.optim.base_lr, videos_per_step=size, clips_per_video=settings.sampling.clips_per_video
        )
        for size in (before, now)
    ]
    return fitted, (
        f"the recipe's {before} videos a step {reason}: {now} a step, and with them a peak rate of "
        f"{rates[1]:.4g} instead of {rates[0]:.4g} (--batch-size asks for another number)"
    )


def _rehearse(
    settings: "Config",
    root: "Location",
    *,
    device: DeviceName,
    init_from: Path | None,
    nproc: int,
    as_json: bool,
) -> None:
    from hico_core.config import dump_config
    from hico_core.training.rehearse import rehearse

    rehearsal = rehearse(settings, root=root, device=device, init_from=init_from, processes=nproc)
    report_dry_run(dump_config(settings), settings.model_dump(mode="json"), rehearsal._asdict(), as_json=as_json)

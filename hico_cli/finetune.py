"""`hico finetune`: a pretrained encoder and labelled videos -> a classifier and its accuracy."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.config import complain_about
from hico_cli.console import complain, noting_signals, progress, result
from hico_cli.extract_features import newest_encoder
from hico_cli.index import add_their_data
from hico_cli.options import (
    DEFAULT_ROOT,
    AnnoDir,
    BatchSize,
    ConfigFile,
    DataRoot,
    Device,
    Epochs,
    Json,
    Override,
    Root,
    as_overrides,
    local_part,
    require_file_name_part,
)

if TYPE_CHECKING:
    from hico_core.config import FinetuneConfig
    from hico_core.transfer.finetune import FinetuneMetrics


def finetune(
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
    views: Annotated[int | None, typer.Option(min=1, help="Clips of each test video.")] = None,
    device: Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run's last checkpoint; a finished run is tested again.")
    ] = False,
    json: Json = False,
) -> None:
    """Finetune on the labelled videos of ROOT's index: train on its subset train, test on its subset test.

    Add videos with `hico index --list train.txt`, and `--list test.txt --subset test`: `<path> <label>` a line. Writes
    ROOT/runs/NAME: results.json, predictions.csv, metrics.jsonl and checkpoints/. Exit code 3: some test videos cannot
    be decoded; they count as wrong, and are listed in ROOT/failures.jsonl.
    """
    from hico_core.authors_finetuning import load_any_finetuning

    require_file_name_part(name or "", option="--name")
    shortcuts = {
        "train.batch_size": batch_size,
        "train.tune": "head" if linear else None,
        "test.views": views,
    }
    given = as_overrides(shortcuts, epochs=epochs, read=lambda: load_any_finetuning(config, base=recipe)[0])
    settings, authors = load_any_finetuning(config, base=recipe, overrides=given + (override or []))

    from hico_core.corpus.addresses import locate, require_reachable
    from hico_core.corpus.lists import find_labelled_lists

    place = locate(root)
    require_reachable(place)
    if authors is None and (data_root or anno_dir):
        raise typer.BadParameter("only with an authors' --config; else `hico index --list`", param_hint="--data-root")
    if authors is not None:
        complain_about(authors.notes, authors.ignored, Path(str(config)))
        add_their_data(
            authors,
            place,
            data_root=data_root,
            anno_dir=anno_dir,
            find=lambda folder, lists: find_labelled_lists(folder, lists, settings.dataset),
            as_json=json,
        )
        if checkpoint is None and authors.checkpoint:
            checkpoint = Path(authors.checkpoint)
    checkpoint = checkpoint or newest_encoder(local_part(place))

    from hico_core.transfer.finetune import finetune as run

    total = settings.train.epochs
    title = name or _default_name(settings)
    with noting_signals() as stop_signal, progress(title, total=total, as_json=json) as report:

        def on_step(metrics: "FinetuneMetrics") -> None:
            text = (
                f"step {metrics.step} epoch {metrics.epoch:.2f}/{total} loss {metrics.loss:.4f} "
                f"accuracy {metrics.accuracy:.1%} lr {metrics.lr:.5f} {metrics.clips_per_second:.1f} clips/s"
            )
            report(metrics.epoch, text, metrics._asdict())

        summary = run(
            settings,
            root=place,
            run_dir=local_part(place) / "runs" / title,
            encoder=checkpoint,
            device=device,
            resume=resume,
            on_step=on_step,
            on_bad_video=lambda video_id, reason: complain(f"{video_id} cannot be used: {reason}"),
            on_tested=lambda done, of: report(total, f"tested {done}/{of} videos", {"tested": done, "of": of}),
            stop_signal=stop_signal,
        )
    tested = summary.test
    if tested is None:
        accuracy = "not tested: the index has no labelled videos of the subset test"
    else:
        accuracy = (
            f"top-1 {tested.top1:.2%}, top-5 {tested.top5:.2%} of {tested.num_videos} videos "
            f"({tested.views} x {tested.crops} views each); {summary.run_dir / 'predictions.csv'}"
        )
    fields = {**summary._asdict(), "run_dir": str(summary.run_dir), "precision": summary.precision.name}
    fields["test"] = None if tested is None else tested._asdict()
    result(f"{summary.num_steps} steps in {summary.precision.name}; {accuracy}", fields, as_json=json)
    if tested is not None and tested.num_failed:
        complain(f"{tested.num_failed} test videos failed: {root}/failures.jsonl")
        raise typer.Exit(3)


def _default_name(settings: "FinetuneConfig") -> str:
    return f"finetune-{settings.dataset}" + ("-linear" if settings.train.tune == "head" else "")

"""`hico evaluate`: tests a finetuned classifier, with all numbers for a table of results."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import noting_signals, progress, result, warn
from hico_cli.labels import LISTS, ListFolder, labelled
from hico_cli.options import Device, Json, Nproc, Readers, Root, is_first_process, refuse_unused
from hico_cli.processes import do_work
from hico_core.base.addresses import DEFAULT_ROOT, local_part, locate_root
from hico_core.base.choices import NumCrops
from hico_core.base.errors import counted

if TYPE_CHECKING:
    from hico_core.transfer.evaluation.evaluate import Evaluation, Testing
    from hico_core.transfer.evaluation.labelled import LabelledSet


def evaluate(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs of hico finetune, or their checkpoints.")],
    root: Root = DEFAULT_ROOT,
    test: Annotated[
        list[str] | None, typer.Option("--list", help=f"Videos to test on, one list per run. {LISTS}")
    ] = None,
    data_root: ListFolder = None,
    views: Annotated[
        int | None, typer.Option(min=1, help="Clips per video. Default: as in the run's settings.")
    ] = None,
    crops: Annotated[NumCrops | None, typer.Option(help="Square crops per frame.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-O", help="Folder to write. Default: evaluation in the run's folder.")
    ] = None,
    workers: Readers = None,
    nproc: Nproc = 1,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Test finetuned classifiers on several views of each video.

    Writes results.json, predictions.parquet, classes.csv and confusion.png. If you name several runs, such as those of
    the three splits of UCF101, each is tested on its own list, and the mean and its standard error are printed at the
    end. Exit code 3: some videos cannot be decoded (they count as wrong), or some lines of a list cannot be used.
    """
    if test and len(test) != len(runs):
        raise typer.BadParameter(f"{len(test)} lists for {len(runs)} runs; give one list per run", param_hint="--list")
    if output and len(runs) > 1:
        raise typer.BadParameter("needs a single run; results of several go into their folders", param_hint="--output")
    if not test:
        refuse_unused(context, "data_root", why="needs --list")
    from hico_core.transfer.evaluation.evaluate import Testing

    place = locate_root(root)
    work = partial(
        _evaluate,
        runs,
        labelled(test, place=place, subset="test", data_root=data_root),
        runs_folder=local_part(place) / "runs",
        output=output,
        testing=Testing(views=views, crops=crops, device=device, workers=workers),
        as_json=json,
    )
    do_work(work, nproc=nproc)


def _evaluate(
    runs: list[str],
    lists: "list[LabelledSet]",
    *,
    runs_folder: Path,
    output: Path | None,
    testing: "Testing",
    as_json: bool,
) -> int:
    """Test in this process, and report; return the exit code."""
    from hico_core.transfer.evaluation.evaluate import checkpoint_of, folder_of_results
    from hico_core.transfer.evaluation.evaluate import evaluate as run_test

    found: list[Evaluation] = []
    for number, name in enumerate(runs):
        run = runs_folder / name
        checkpoint = checkpoint_of(run if run.is_dir() else Path(name))
        folder = output or folder_of_results(checkpoint)
        videos, classes, _ = lists[number if len(lists) > 1 else 0]
        with noting_signals() as stop, progress(name, total=len(videos), as_json=as_json) as report:
            found.append(
                run_test(
                    checkpoint,
                    videos,
                    output=folder,
                    classes=classes,
                    testing=testing,
                    on_tested=lambda done, of: report(done, f"tested {done}/{of} videos", {"tested": done, "of": of}),
                    stop=stop,
                )
            )
        if is_first_process():
            _report(name, found[-1], folder, as_json=as_json)
    if not is_first_process():
        return 0
    _report_all(found, as_json=as_json)
    return 3 if any(one.num_failed for one in found) or any(one.num_bad for one in lists) else 0


def _report(name: str, found: "Evaluation", folder: Path, *, as_json: bool) -> None:
    from hico_core.transfer.evaluation.intervals import percent
    from hico_core.transfer.evaluation.predictions import describe_accuracy

    accuracy = describe_accuracy(found.top1, found.top5, num_videos=found.num_videos, num_classes=found.num_classes)
    text = (
        f"{name}: {accuracy}, mean over classes {percent(found.mean_class_accuracy)}; "
        f"{found.views} x {found.crops} views of each video; {folder}"
    )
    result(text, {"run": name, **asdict(found), "folder": str(folder)}, as_json=as_json)
    if found.num_failed:
        warn(f"{name}: {counted(found.num_failed, 'video')} failed, counted as wrong; see predictions.parquet")


def _report_all(found: "list[Evaluation]", *, as_json: bool) -> None:
    from hico_core.transfer.evaluation.probe import mean_and_error

    if len(found) > 1:
        value = mean_and_error([one.top1 for one in found])
        text = f"top-1 over {len(found)} runs: {value.mean:.2%} ± {value.standard_error:.2%} (standard error)"
        result(text, {"top1": value._asdict()}, as_json=as_json)

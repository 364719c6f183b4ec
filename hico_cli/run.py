"""`hico run`: the four commands and a report, with settings that fit the videos and the time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from hico_cli.console import complain
from hico_cli.extract_features import extract_features
from hico_cli.index import index
from hico_cli.options import Device, Json, Root, require_file_name_part
from hico_cli.pretrain import pretrain
from hico_cli.report import report
from hico_cli.split import split
from hico_core.corpus.addresses import DEFAULT_ROOT, Location, local_part, locate_root

_SOME_FAILED = 3


def run(
    context: typer.Context,
    inputs: Annotated[list[str], typer.Argument(help="Videos, folders, patterns, .txt lists, addresses in buckets.")],
    root: Root = DEFAULT_ROOT,
    name: Annotated[str, typer.Option(help="Name of the run and of the folder of features.")] = "run",
    hours: Annotated[
        float, typer.Option(min=0.01, help="What pretraining may take; as many epochs of the recipe as fit.")
    ] = 1.0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """The whole road: split, index, pretrain (hacs-hico-s), extract-features, and a report to look at.

    Stopped, the same command goes on. Exit code 3: some videos failed; the others were enough.
    """
    require_file_name_part(name, option="--name")
    place = locate_root(root)
    failures: list[int] = []
    with _noting_failures(failures):
        split(inputs, root=root, json=json)
    with _noting_failures([]):  # the same videos as before
        index(root=root, json=json)
    run_dir = local_part(place) / "runs" / name
    epochs, batch_size = _length(place, run_dir, hours=hours, device=device)
    pretrain(
        context,
        root=root,
        name=name,
        epochs=epochs,
        batch_size=batch_size,
        device=device,
        resume=True,
        json=json,
    )
    encoder = run_dir / "export" / "encoder.safetensors"
    with _noting_failures(failures):
        extract_features(root=root, checkpoint=encoder, name=name, device=device, json=json)
    report([run_dir], json=json)
    if failures:
        raise typer.Exit(_SOME_FAILED)


@contextmanager
def _noting_failures(failures: list[int]) -> Iterator[None]:
    """A step of which it is enough that most videos are done."""
    try:
        yield
    except typer.Exit as ended:
        if ended.exit_code != _SOME_FAILED:
            raise
        failures.append(ended.exit_code)


def _length(
    root: "Location", run_dir: Path, *, hours: float, device: Literal["auto", "cpu", "cuda"]
) -> tuple[int, int]:
    """Epochs and videos a step of the run that is there; of a new one, what fits into time and memory here."""
    from hico_core.config import load_config, preset
    from hico_core.training.dry_run import dry_run
    from hico_core.training.fitting import with_batch_of_run
    from hico_core.training.run_folder import has_steps

    if has_steps(run_dir):
        train = load_config(run_dir / "config.yaml").train
        return train.epochs, train.batch_size
    recipe = preset("hacs-hico-s")
    config, reason = with_batch_of_run(recipe, root=root, run_dir=run_dir, resume=False, device=device)
    plan = dry_run(config, root=root, device=device)
    epochs = max(min(int(config.train.epochs * hours / plan.hours), config.train.epochs), 1)
    because = f" (the recipe's {recipe.train.batch_size} {reason})" if reason else ""
    complain(
        f"pretraining {epochs} of the recipe's {config.train.epochs} epochs, {config.train.batch_size} videos a step"
        f"{because}: about {plan.hours * epochs / config.train.epochs:.2f} hours at {plan.step_seconds:.1f} s a step "
        f"on {plan.device} (--hours)"
    )
    return epochs, config.train.batch_size

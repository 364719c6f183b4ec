"""`hico inspect`: what a checkpoint is, or what training sees of the videos of a workspace."""

from pathlib import Path
from typing import Annotated

import typer

from hico_cli.console import complain, result
from hico_cli.options import Json
from hico_core.corpus.addresses import Location, local_part, locate, require_reachable


def inspect(
    target: Annotated[str, typer.Argument(help="A checkpoint, or a workspace with an index.")],
    samples: Annotated[int, typer.Option(min=1, help="Number of videos in the picture of a workspace.")] = 8,
    at: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Progress of training, which decides how far near clips lie apart.")
    ] = 0.5,
    recipe: Annotated[str, typer.Option(help="A recipe such as hacs-hico-s, or a YAML file.")] = "hacs-hico-s",
    seed: Annotated[int, typer.Option(min=0, help="Seed for the choice of videos and clips.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-O", help="The picture. Default: ROOT/samples.png.")
    ] = None,
    json: Json = False,
) -> None:
    """Describe a checkpoint; or a workspace, with a picture of some clips before and after augmentation."""
    place = locate(target)
    if isinstance(place, Path) and not place.is_dir():
        _describe(place, as_json=json)
        return
    require_reachable(place)
    from hico_core.report.facts import read_corpus

    facts = read_corpus(place).summary()
    picture = output or local_part(place) / "samples.png"
    _draw(place, picture, samples=samples, at=at, recipe=recipe, seed=seed)
    lines = [f"{name}: {value}" for name, value in facts.items()]
    result("\n".join([*lines, f"picture: {picture}"]), {**facts, "picture": str(picture)}, as_json=json)


def _describe(path: Path, *, as_json: bool) -> None:
    from hico_core.describe import describe_checkpoint

    description = describe_checkpoint(path)
    lines = [f"{path}: {description.kind}", *(f"{name}: {value}" for name, value in description.facts.items())]
    for warning in description.warnings:
        complain(f"{path}: {warning}")
    card = f"\n\n{description.card.rstrip()}" if description.card else ""
    result("\n".join(lines) + card, description._asdict(), as_json=as_json)


def _draw(root: "Location", picture: Path, *, samples: int, at: float, recipe: str, seed: int) -> None:
    from hico_cli.config import load_pretraining
    from hico_core.data.preview import contact_sheet
    from hico_core.report.sample import clips_as_drawn

    sheet = contact_sheet(clips_as_drawn(load_pretraining(recipe), root, samples=samples, at=at, seed=seed))
    picture.parent.mkdir(parents=True, exist_ok=True)
    beside = picture.with_name(f".{picture.name}.tmp.png")
    sheet.save(beside)
    beside.replace(picture)

"""`hico inspect`: describes a checkpoint, or the videos of a workspace as training sees them."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hico_cli.config import load_pretraining
from hico_cli.console import result, warn
from hico_cli.options import ENCODER_FORM, Json, refuse_unused
from hico_core.base.addresses import Location, is_local, local_part, locate, quoted, require_reachable
from hico_core.base.errors import HicoError, UsageError, counted

if TYPE_CHECKING:
    from hico_core.checkpoints.describe import Description
    from hico_core.config import Config
    from hico_core.corpus.workspace.status import StatusRow

_OF_PICTURE = "is for the picture of a workspace's clips; name a workspace, or leave this out"


def inspect(
    context: typer.Context,
    target: Annotated[str | None, typer.Argument(help="A checkpoint, or a workspace with an index.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder", metavar=ENCODER_FORM, help="Instead of TARGET: any encoder, such as torchvision:r3d_18=FILE."
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Number of videos in the picture.")] = 8,
    at: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Training progress from 0 to 1, which sets the distance between near clips."
        ),
    ] = 0.5,
    recipe: Annotated[str, typer.Option(help="A recipe such as hacs-hico-s, or a YAML file.")] = "hacs-hico-s",
    seed: Annotated[int, typer.Option(min=0, help="Random seed for the choice of videos and clips.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-O", help="Picture to write. Default: ROOT/samples.png.")
    ] = None,
    json: Json = False,
) -> None:
    """Describe a checkpoint or encoder, or a workspace: finished and failed videos, its index, a picture of clips.

    The picture shows clips before and after augmentation. If the workspace has no index yet, the command only counts
    finished and failed videos.
    """
    if (target is None) == (encoder is None):
        raise typer.BadParameter("give either a checkpoint or workspace, or --encoder", param_hint="TARGET")
    of_picture = ("samples", "at", "recipe", "seed", "output")
    if encoder is not None:
        refuse_unused(context, *of_picture, why=_OF_PICTURE)
        from hico_core.checkpoints.describe import describe_encoder
        from hico_core.checkpoints.frozen import load_frozen

        _report(describe_encoder(load_frozen(encoder, warn=warn)), encoder, as_json=json)
        return
    assert target is not None
    place = locate(target)
    if is_local(place) and not place.is_dir():
        refuse_unused(context, *of_picture, why=_OF_PICTURE)
        from hico_core.checkpoints.describe import describe_checkpoint

        _report(describe_checkpoint(place), str(place), as_json=json)
        return
    require_reachable(place)
    if is_local(place) and (place / "config.yaml").exists() and not (place / "index.parquet").exists():
        run = quoted(target)
        raise UsageError(f"{target} is a run; use `hico inspect --encoder {run}` or `hico report {run}`")
    drawn_by = load_pretraining(recipe)
    from hico_core.corpus.workspace.status import summarise_records
    from hico_core.report.facts import read_corpus

    status = summarise_records(place) if (place / "records").is_dir() else []
    fields: dict[str, Any] = {"status": [asdict(row) for row in status]}
    lines = [_status_line(row) for row in status]
    # A workspace whose splitting has only begun has no index yet; a folder with neither is no workspace.
    if status and not (place / "index.parquet").exists():
        lines.append(f"index: none yet; run `hico index --root {quoted(target)}`")
    else:
        facts = read_corpus(place).summary()
        fields |= {**facts, "picture": None}
        lines += [f"{name}: {value}" for name, value in facts.items()]
        picture = output or local_part(place) / "samples.png"
        try:
            _draw(place, picture, drawn_by, samples=samples, at=at, seed=seed)
        except (HicoError, OSError) as error:
            if output is not None:
                raise
            warn(f"no picture of clips: {error}")
        else:
            fields["picture"] = str(picture)
            lines.append(f"picture: {picture}")
    result("\n".join(lines), fields, as_json=json)


def _status_line(row: "StatusRow") -> str:
    """Describe the videos of one row: "records of train: 3 split, done (12 clips, 0.02 hours, 0.004 GB)"."""
    size = f"{counted(row.num_clips, 'clip')}, {row.seconds / 3600:.2f} hours, {row.size_bytes / 1e9:.3f} GB"
    return f"records of {row.subset}: {row.num_videos} {row.kind}, {row.state}" + (
        f" ({size})" if row.num_clips else ""
    )


def _report(description: "Description", name: str, *, as_json: bool) -> None:
    lines = [f"{name}: {description.kind}", *(f"{key}: {value}" for key, value in description.facts.items())]
    for warning in description.warnings:
        warn(f"{name}: {warning}")
    card = f"\n\n{description.card.rstrip()}" if description.card else ""
    result("\n".join(lines) + card, description._asdict(), as_json=as_json)


def _draw(root: "Location", picture: Path, config: "Config", *, samples: int, at: float, seed: int) -> None:
    from hico_core.base.storage import written_beside
    from hico_core.data.preview import contact_sheet
    from hico_core.report.sample import clips_as_drawn

    sheet = contact_sheet(clips_as_drawn(config, root, samples=samples, at=at, seed=seed))
    with written_beside(picture) as beside:
        sheet.save(beside, format="PNG")

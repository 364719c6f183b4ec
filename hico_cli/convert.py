"""`hico convert`: writes a checkpoint in another format."""

from pathlib import Path
from typing import Annotated

import typer

from hico_cli.console import result
from hico_cli.options import Json
from hico_core.base.choices import CheckpointFormat


def convert(
    source: Annotated[Path, typer.Argument(help="Checkpoint (.pt), export (.safetensors) or authors' .pyth.")],
    target: Annotated[Path, typer.Argument(help="File to write; its extension selects the format.")],
    to: Annotated[
        CheckpointFormat | None,
        typer.Option(help="Format. Default: from the extension: .pt, .pyth, .safetensors, .pt2 or .onnx."),
    ] = None,
    json: Json = False,
) -> None:
    """Convert a checkpoint. hico's and the authors' formats hold a whole run; the others only the encoder."""
    from hico_core.checkpoints.convert import FORMAT_OF_SUFFIX
    from hico_core.checkpoints.convert import convert as run

    wanted = to or FORMAT_OF_SUFFIX.get(target.suffix)
    if wanted is None:
        raise typer.BadParameter(f"cannot tell the format from {target.name}; choose one", param_hint="--to")
    text = run(source, target, to=wanted)
    result(f"{target}: {text}", {"target": str(target), "format": wanted}, as_json=json)

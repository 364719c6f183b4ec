"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Root = Annotated[
    Path, typer.Option("--root", envvar="HICO_ROOT", help="The workspace: clips, index, runs and features.")
]
DEFAULT_ROOT = Path("hico-data")

Json = Annotated[bool, typer.Option("--json", help="Progress and result as JSON, for programs.")]

Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="auto takes a GPU if there is one.")]


def require_file_name_part(text: str, *, option: str) -> None:
    """A name that a user gives becomes part of a path below the workspace, and must not lead out of it.

    Raises:
        typer.BadParameter: it would.

    """
    if "/" in text or "\\" in text or text == "..":
        raise typer.BadParameter(f"{text!r} must be part of a file name: no slashes, not ..", param_hint=option)

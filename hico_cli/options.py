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

"""`hico doctor`: checks the machine, and says how to fix what is missing."""

import math
import shutil
import sys
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import result
from hico_cli.options import Json, Root
from hico_core.base.addresses import DEFAULT_ROOT, locate

if TYPE_CHECKING:
    from hico_core.doctor.findings import Finding

# The speed of a fast GPU, for machines without one.
_REFERENCE_CLIPS_PER_SECOND = 1000.0


def doctor(
    root: Root = DEFAULT_ROOT,
    loader: Annotated[
        bool,
        typer.Option("--loader", help="Measure how fast the clips of ROOT are read, and how many cores a GPU needs."),
    ] = False,
    json: Json = False,
) -> None:
    """Check ffmpeg, packages, GPU and disk, and show how to fix what is missing.

    Exit code 1: something that every command needs is missing.
    """
    if loader:
        _measure_loader(root, as_json=json)
        return
    from hico_core.doctor.findings import examine

    findings = []
    for finding in examine(locate(root)):
        findings.append(finding)
        if not json:
            print(_line(finding, width=shutil.get_terminal_size().columns if sys.stdout.isatty() else None), flush=True)
    if json:
        result("", {"findings": [finding._asdict() for finding in findings]}, as_json=True)
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


def _line(finding: "Finding", *, width: int | None) -> str:
    """A finding in words; in a terminal of the given width, as an entry of a table."""
    advice = f"  ->  {finding.advice}" if finding.advice else ""
    line = f"{finding.state:9}{finding.name:20}{finding.found}{advice}"
    if width is None:
        return line
    return textwrap.fill(line, width, subsequent_indent=" " * 29, break_long_words=False, break_on_hyphens=False)


def _measure_loader(root: str, *, as_json: bool) -> None:
    from hico_core.base.engine import available_cores
    from hico_core.base.errors import counted
    from hico_core.doctor.loader_speed import measure_loader

    speed = measure_loader(locate(root), workers=min(available_cores(), 8))
    wanted = speed.gpu_clips_per_second or _REFERENCE_CLIPS_PER_SECOND
    cores = math.ceil(wanted * speed.seconds_per_clip)
    who = "the GPU here takes" if speed.gpu_clips_per_second else "a GPU that takes"
    text = (
        f"{1 / speed.seconds_per_clip:.0f} clips/s per core, {speed.clips_per_second:.0f} clips/s with "
        f"{counted(speed.workers, 'worker')} here; {who} {wanted:.0f} clips/s"
        f"{', so it' if speed.gpu_clips_per_second else ''} needs {counted(cores, 'core')}"
    )
    result(text, {**asdict(speed), "cores_needed": cores}, as_json=as_json)

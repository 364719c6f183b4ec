"""`hico report`: one page about runs or a workspace."""

from pathlib import Path
from typing import Annotated

import typer

from hico_cli.console import counting, progress, raising_on_signals, result, warn
from hico_cli.options import ENCODER_FORM, Json


def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, shown side by side; or a workspace.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-O",
            help="File to write. Default: report.html in the folder; for several runs, report-with-OTHERS.html in the "
            "first folder.",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder", metavar=ENCODER_FORM, help="Encoder for neighbours and map. Default: each run's own."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write one self-contained HTML page about runs, finished or not, or about a workspace.

    For runs: a verdict on what was learnt, training videos, clips before and after augmentation, curves, signs of
    collapse, nearest neighbours, a map of the features, probes and settings. For a workspace: its videos and failures.
    """
    from hico_core.checkpoints.frozen import load_frozen
    from hico_core.report.facts import is_run, read_corpus, read_run
    from hico_core.report.page import corpus_of, default_name, write_report

    for folder in folders:
        if ":/" in str(folder):  # what is left of an address
            raise typer.BadParameter(f"{folder}: must be a local folder, not in a bucket", param_hint="RUN...")
    workspaces = [folder for folder in folders if not is_run(folder)]
    if workspaces and len(folders) > 1:
        raise typer.BadParameter(
            f"{workspaces[0]} is a workspace; give it alone, or give runs only", param_hint="RUN..."
        )
    if workspaces and encoder is not None:
        raise typer.BadParameter("applies to runs; name runs instead of a workspace", param_hint="--encoder")
    for folder in folders:
        if folders.count(folder) > 1:
            raise typer.BadParameter(f"{folder} is named twice", param_hint="RUN...")
    target = output or folders[0] / default_name(folders)
    num_parts = 2 * len(folders) + 1
    with raising_on_signals("stopped; nothing was written"), progress("report", total=num_parts, as_json=json) as shown:
        runs = [] if workspaces else [read_run(folder) for folder in folders]
        seen_by = None if encoder is None else load_frozen(encoder, warn=warn)
        corpus = read_corpus(workspaces[0]) if workspaces else corpus_of(runs)
        write_report(target, runs, corpus, on_part=counting(shown, "part"), encoder=seen_by)
    result(str(target), {"report": str(target), "bytes": target.stat().st_size}, as_json=json)

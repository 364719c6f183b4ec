"""`hico doctor`: what is there, and what is missing."""

import typer

from hico_cli.console import result
from hico_cli.options import DEFAULT_ROOT, Json, Root


def doctor(root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Tell what of the programs, packages and places that hico uses is there, what is missing, and what to type.

    Exit code 1: something is missing that every command needs.
    """
    from hico_core.corpus.storage import locate
    from hico_core.doctor import examine

    findings = []
    for finding in examine(locate(root)):
        findings.append(finding)
        if not json:
            advice = f"  ->  {finding.advice}" if finding.advice else ""
            print(f"{finding.state:9}{finding.name:20}{finding.found}{advice}", flush=True)
    if json:
        result("", {"findings": [finding._asdict() for finding in findings]}, as_json=True)
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)

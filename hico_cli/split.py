"""`hico split`: untrimmed videos -> exact 5 s clips."""

import os
from typing import Annotated, Literal

import typer

from hico_cli.console import complain, progress, raising_on_signals, result
from hico_cli.options import DEFAULT_ROOT, Json, Root


def split(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Videos, folders of videos, patterns, or .txt lists with a path a line."),
    ],
    root: Root = DEFAULT_ROOT,
    subset: Annotated[Literal["train", "val", "test"], typer.Option(help="Where the clips belong.")] = "train",
    segment_seconds: Annotated[float, typer.Option(min=0.5, help="Length of a clip.")] = 5.0,
    tail: Annotated[
        Literal["keep", "drop"], typer.Option(help="What becomes of a last clip that is shorter.")
    ] = "keep",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Videos at a time; a core each. Default: all cores.")
    ] = None,
    json: Json = False,
) -> None:
    """Cut untrimmed videos into exact 5 s clips that are cheap to decode.

    Each frame of a video lands in exactly one clip. Finished videos are left alone, so the same command goes on
    where it was stopped. Exit code 3: some videos failed; they are listed in ROOT/failures.jsonl.
    """
    from hico_core.corpus.ids import find_sources
    from hico_core.corpus.records import SplitOptions
    from hico_core.corpus.split import SplitEvent, split_videos

    sources = find_sources(inputs)
    with (
        raising_on_signals("stopped; the same command goes on"),
        progress("split", total=len(sources), as_json=json) as report,
    ):

        def on_event(event: SplitEvent) -> None:
            record = event.record
            if record.failure:
                complain(f"{record.source.path}: {record.failure.error}")
            count = f"{event.num_done}/{event.num_videos}"
            fields = {"video": record.video_id, "outcome": event.outcome, "clips": len(record.clips)}
            report(
                event.num_done,
                f"{count} {record.video_id}: {event.outcome}, {len(record.clips)} clips",
                fields,
            )

        summary = split_videos(
            sources,
            root=root,
            options=SplitOptions(subset=subset, segment_seconds=segment_seconds, tail=tail),
            workers=workers or os.cpu_count() or 1,
            on_event=on_event,
        )
    text = (
        f"{summary.num_split} videos split, {summary.num_unchanged} unchanged, {summary.num_failed} failed; "
        f"{summary.num_clips} clips in {root / subset}"
    )
    result(text, {**summary._asdict(), "clips": str(root / subset)}, as_json=json)
    if summary.num_failed:
        complain(f"{summary.num_failed} videos failed: {root / 'failures.jsonl'}")
        raise typer.Exit(3)

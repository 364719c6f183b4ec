"""`hico remove`: removes videos from a workspace."""

from dataclasses import asdict
from typing import Annotated

import typer

from hico_cli.console import raising_on_signals, result, warn
from hico_cli.options import Json, Root
from hico_core.base.addresses import DEFAULT_ROOT, locate_root
from hico_core.base.errors import counted


def remove(
    video_ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="Ids of the videos; put -- before an id that begins with -.")
    ],
    root: Root = DEFAULT_ROOT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files that would be deleted.")] = False,
    json: Json = False,
) -> None:
    """Remove videos from the workspace: their clips, records, features, and rows of the index and the lists.

    The source videos stay where they are, and so do clips that were cut by another tool.
    """
    from hico_core.transfer.extraction.removal import remove_videos

    with raising_on_signals():
        removal = remove_videos(video_ids, root=locate_root(root), dry_run=dry_run)
    if dry_run and not json:
        for path in [*removal.clips, *removal.features]:
            result(path, {}, as_json=False)
    text = (
        f"{'would remove' if dry_run else 'removed'} {counted(len(removal.video_ids), 'video')}: "
        f"{counted(len(removal.clips), 'clip')}, {counted(len(removal.features), 'file')} of features, "
        f"{counted(removal.num_rows, 'row')} of the index, {removal.size_bytes / 1e6:.1f} MB"
    )
    result(text, {**asdict(removal), "dry_run": dry_run}, as_json=json)
    for path in removal.staying:
        warn(f"{path}: not made by hico, so not removed")

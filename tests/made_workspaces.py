"""Workspaces for tests that want something to train on and do not care what."""

from pathlib import Path

from made_videos import numbered_video

from hico_core.corpus.index import build_index
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.untrimmed import add_untrimmed
from hico_core.corpus.workspace.records import UntrimmedOptions


def untrimmed_workspace(folder: Path, *, videos: int, seconds: float) -> Path:
    """So many numbered videos in a folder, indexed as they are; the workspace lies beside them."""
    for number in range(videos):
        numbered_video(folder / f"videos/{number}.mp4", seconds=seconds)
    add_untrimmed(
        find_sources([str(folder / "videos")]),
        root=folder / "root",
        options=UntrimmedOptions(),
        workers=2,
        on_event=lambda event: None,
    )
    build_index(folder / "root")
    return folder / "root"

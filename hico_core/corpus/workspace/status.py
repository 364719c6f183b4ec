"""What the records of a workspace say, in a few lines."""

from collections import Counter
from dataclasses import dataclass

from hico_core.base.addresses import Location
from hico_core.base.choices import Subset
from hico_core.base.errors import HicoError
from hico_core.corpus.workspace.records import read_records


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRow:
    """The videos of a workspace that are alike."""

    subset: Subset
    kind: str  # split, untrimmed or adopted
    state: str  # "done", or "failed: " and the stage at which
    num_videos: int
    num_clips: int
    seconds: float
    size_bytes: int


def summarise_records(root: Location) -> list[StatusRow]:
    """Count the videos under `root` by subset, origin and state.

    Raises:
        HicoError: there are no records.

    """
    videos = Counter[tuple[Subset, str, str]]()
    clips = Counter[tuple[Subset, str, str]]()
    sizes = Counter[tuple[Subset, str, str]]()
    seconds = dict[tuple[Subset, str, str], float]()
    for record in read_records(root):
        state = f"failed: {record.failure.stage}" if record.failure else "done"
        key = (record.options.subset, record.options.kind, state)
        videos[key] += 1
        clips[key] += len(record.clips)
        sizes[key] += sum(clip.size_bytes for clip in record.clips)
        length = sum(clip.end_seconds - clip.start_seconds for clip in record.clips)
        seconds[key] = seconds.get(key, 0.0) + length
    if not videos:
        raise HicoError(f"{root}: nothing was split here yet")
    return [
        StatusRow(
            subset=subset,
            kind=kind,
            state=state,
            num_videos=videos[subset, kind, state],
            num_clips=clips[subset, kind, state],
            seconds=seconds[subset, kind, state],
            size_bytes=sizes[subset, kind, state],
        )
        for subset, kind, state in sorted(videos)
    ]

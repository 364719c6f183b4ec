"""A summary of a workspace's records in a few lines."""

from dataclasses import dataclass, replace

from hico_core.base.addresses import Location
from hico_core.base.choices import Subset
from hico_core.base.errors import HicoError
from hico_core.corpus.workspace.records import read_records


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRow:
    """The videos of a workspace that have the same subset, kind and state."""

    subset: Subset
    kind: str  # split, untrimmed or adopted
    state: str  # "done", or "failed: " and the stage that failed
    num_videos: int = 0
    num_clips: int = 0
    seconds: float = 0.0
    size_bytes: int = 0


def summarise_records(root: Location) -> list[StatusRow]:
    """Count the videos under `root` by subset, origin and state.

    Raises:
        HicoError: there are no records.

    """
    rows: dict[tuple[Subset, str, str], StatusRow] = {}
    for record in read_records(root):
        state = f"failed: {record.failure.stage}" if record.failure else "done"
        subset, kind = record.options.subset, record.options.kind
        row = rows.get((subset, kind, state)) or StatusRow(subset=subset, kind=kind, state=state)
        rows[subset, kind, state] = replace(
            row,
            num_videos=row.num_videos + 1,
            num_clips=row.num_clips + len(record.clips),
            seconds=row.seconds + sum(clip.end_seconds - clip.start_seconds for clip in record.clips),
            size_bytes=row.size_bytes + sum(clip.size_bytes for clip in record.clips),
        )
    if not rows:
        raise HicoError(f"{root}: nothing has been split here yet")
    return [rows[key] for key in sorted(rows)]

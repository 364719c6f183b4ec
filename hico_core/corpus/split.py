"""Untrimmed videos -> exact 5 s clips in the workspace, restartable at any moment.

Each frame of a video goes to the clip in whose interval its time, counted from the video's first frame, falls:
no frame lost, none doubled, none invented, at any frame rate, constant or not. The clips of a video are made and
checked in a temporary folder (clips.py), and come into the workspace as everything does (intake.py).
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hico_core.choices import OnCorrupt, Verification
from hico_core.corpus.addresses import DEFAULT_ROOT, Location, absolute_root
from hico_core.corpus.cache import default_cache_folder
from hico_core.corpus.clips import make_clips
from hico_core.corpus.encode import require_encoder
from hico_core.corpus.engine import available_cores
from hico_core.corpus.events import Summary, VideoEvent
from hico_core.corpus.ffmpeg import Ffmpeg, find_ffmpeg
from hico_core.corpus.files import fetch
from hico_core.corpus.finding import Videos, sources_of
from hico_core.corpus.ids import Source, clip_name
from hico_core.corpus.intake import Candidate, Made, Rules, take_in, told
from hico_core.corpus.plan import PlannedClip, Segment, plan_clips, plan_segments
from hico_core.corpus.probe import frame_rate
from hico_core.corpus.records import SplitOptions, sha256_of
from hico_core.corpus.workspace import Shard, make_temporary, scratch_folder
from hico_core.errors import BadVideo, HicoError

__all__ = [  # planning is part of this module's interface
    "PlannedClip",
    "Segment",
    "SplitPolicy",
    "plan_clips",
    "plan_segments",
    "split_videos",
]

# File systems allow names of so many bytes.
_LONGEST_NAME = 255


class SplitPolicy(NamedTuple):
    """How videos are dealt with, apart from what their clips are to be (`SplitOptions`)."""

    verify: Verification = "fast"
    on_corrupt: OnCorrupt = "skip"
    checksum: bool = False  # tell sources apart by SHA-256, not by time
    force: bool = False  # split finished videos again
    retry_failed: bool = False
    move: bool = False  # from the subset that they are in
    timeout_seconds: float | None = None  # for one video
    min_free_bytes: int = 1_000_000_000


def split_videos(
    videos: Videos,
    *,
    root: "Location | str" = DEFAULT_ROOT,
    options: SplitOptions = SplitOptions(),  # noqa: B008 - immutable
    workers: int | None = None,
    on_event: Callable[[VideoEvent], None] = lambda event: None,
    policy: SplitPolicy = SplitPolicy(),  # noqa: B008 - immutable
    shard: tuple[int, int] | None = None,
    cache_folder: Path | None = None,
    ray_address: str | None = None,
) -> Summary:
    """Split videos into `<root>/<subset>/`, several at a time, leaving out those that are finished.

    A video that cannot be split becomes a line of `<root>/failures.jsonl`, and the others are done all the same. Of
    one that was split before, the clips stay until new ones are made and checked.

    Args:
        videos: files, folders, patterns, lists, or what `hico_core.corpus.finding.find_sources` made of them.
        root: the workspace; made if missing.
        options: what the clips are to be.
        workers: how many videos at a time, each with one thread of ffmpeg; None: one a core. Of no meaning on
            a cluster.
        on_event: told of each video, in the order in which they end.
        policy: how they are dealt with.
        shard: (number from 1, count): only this part of the videos; other parts may run at the same time.
        cache_folder: where clips are made if the workspace lies in a bucket; None: see `default_cache_folder`.
        ray_address: run on this Ray cluster ("local" starts one here) instead of in threads.

    Raises:
        HicoError: there is no usable ffmpeg, an id belongs to another video, the disk is full, or another command is
            writing here.

    """
    place, sources = absolute_root(root), sources_of(videos)
    program = Ffmpeg(find_ffmpeg())
    with tempfile.TemporaryDirectory(prefix="hico-") as folder:
        require_encoder(program, options, folder=Path(folder))
    on_cluster = ray_address is not None
    events = take_in(
        [Candidate(source, options) for source in sources],
        root=place,
        scratch=scratch_folder(place, cache_folder or default_cache_folder()),
        command="split",
        rules=Rules(policy.checksum, policy.force, policy.retry_failed, policy.move, policy.verify),
        # A process of a cluster has no ffmpeg yet, and ends its children by itself.
        make=partial(_make, policy=policy, program=None if on_cluster else program),
        workers=workers or available_cores(),
        stop=program.stop,
        shard=Shard(*shard) if shard else None,
        ray_address=ray_address,
    )
    return told(events, on_event)


def _make(candidate: Candidate, folder: Path, *, policy: SplitPolicy, program: Ffmpeg | None) -> Made:
    """Write and check a video's clips in `folder`, under their final names.

    Raises:
        BadVideo: the video cannot be used.
        HicoError: the disk is (nearly) full, the run was stopped, or the video is damaged and the policy is to fail.

    """
    source, options = candidate
    assert isinstance(options, SplitOptions)
    _require_space(folder.parent, policy.min_free_bytes)
    _require_room_in_names(source)
    deadline = None if policy.timeout_seconds is None else time.monotonic() + policy.timeout_seconds
    with _local_source(source, folder) as local:
        try:
            made = make_clips(
                local,
                options,
                program=program or Ffmpeg(find_ffmpeg(), own_session=False),
                folder=folder,
                on_corrupt=policy.on_corrupt,
                verify=policy.verify,
                deadline=deadline,
            )
        except BadVideo as bad:
            if bad.stage == "decode" and policy.on_corrupt == "fail":
                raise HicoError(f"{bad}; --on-corrupt skip goes on with the others") from bad
            raise
        sha256 = sha256_of(local) if policy.checksum else None
    named = []
    for clip, file in zip(made.records, made.files, strict=True):
        name = clip_name(source.video_id, start_ms=clip.start_ms, end_ms=clip.end_ms)
        file.rename(folder / name)
        named.append(clip.model_copy(update={"path": f"{options.subset}/{name}"}))
    return Made(
        named,
        fps=frame_rate(made.frame_seconds).fps,
        variable_fps=frame_rate(made.kept_frame_seconds).variable,
        num_decode_errors=made.num_decode_errors,
        num_damaged_clips=made.num_damaged,
        sha256=sha256,
    )


def _require_space(folder: Path, min_free_bytes: int) -> None:
    """Stop before the disk is full rather than after.

    Raises:
        HicoError: there is less free than is to stay free.

    """
    free = shutil.disk_usage(folder).free
    if free < min_free_bytes:
        raise HicoError(
            f"{folder.parent}: {free / 1e9:.2f} GB are free and --min-free keeps {min_free_bytes / 1e9:.2f} GB; "
            "free some space, and the same command goes on"
        )


def _require_room_in_names(source: Source) -> None:
    """Check that a clip's name, which adds its times to the id, is one that a file can have.

    Raises:
        BadVideo: it is too long.

    """
    day_ms = 24 * 60 * 60 * 1000
    size = len(clip_name(source.video_id, start_ms=day_ms, end_ms=day_ms).encode())
    if size > _LONGEST_NAME:
        reason = f"its file name is {size - _LONGEST_NAME} bytes too long for its clips to be named by it; rename it"
        raise BadVideo(str(source.path), reason, stage="name")


@contextmanager
def _local_source(source: Source, folder: Path) -> Iterator[Path]:
    """The video as a local file.

    Raises:
        BadVideo: it cannot be fetched.

    """
    if isinstance(source.path, Path):
        yield source.path
        return
    staged = make_temporary(folder) / f"source{source.path.suffix}"
    try:
        fetch(source.path, staged)
    except FileNotFoundError:
        raise BadVideo(str(source.path), "no such file") from None
    yield staged
    shutil.rmtree(staged.parent)

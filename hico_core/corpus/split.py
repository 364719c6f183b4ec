"""Untrimmed videos -> exact 5 s clips in the workspace, restartable at any moment.

Each frame of a video goes to the clip whose interval contains its time, counted from the video's first frame. No frame
is lost, duplicated or invented, at any frame rate, constant or variable. The clips of a video are made and checked in a
temporary folder (clips/) and enter the workspace like all other videos (intake.py).
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hico_core.base.addresses import DEFAULT_ROOT, Location, absolute_root, is_local
from hico_core.base.cache import default_cache_folder
from hico_core.base.choices import OnCorrupt
from hico_core.base.engine import Runner, available_cores, run_on_ray, run_on_threads
from hico_core.base.errors import BadVideo, HicoError
from hico_core.base.local_videos import fetched_video
from hico_core.base.tally import Summary, VideoEvent
from hico_core.corpus.clips.encode import Job, require_encoder
from hico_core.corpus.clips.ffmpeg import Ffmpeg, find_ffmpeg
from hico_core.corpus.clips.frame_pictures import require_pictures_of_one_size, write_as_video
from hico_core.corpus.clips.making import make_clips
from hico_core.corpus.clips.plan import PlannedClip, Segment, plan_clips, plan_segments
from hico_core.corpus.clips.probe import frame_rate
from hico_core.corpus.intake import Candidate, Made, Rules, Taken, Workplace, name_fault, take_in, take_lost
from hico_core.corpus.sources.finding import Videos, sources_of
from hico_core.corpus.sources.frame_folders import pictures_in
from hico_core.corpus.sources.ids import Source, clip_name
from hico_core.corpus.workspace.access import Shard, scratch_folder
from hico_core.corpus.workspace.records import SplitOptions, sha256_of

__all__ = [  # planning is part of this module's interface
    "PlannedClip",
    "Segment",
    "SplitPolicy",
    "plan_clips",
    "plan_segments",
    "split_videos",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPolicy:
    """How and where videos are processed, apart from the format of their clips (`SplitOptions`)."""

    rules: Rules = field(default_factory=Rules)  # when a known video is split again
    on_corrupt: OnCorrupt = "skip"
    timeout_seconds: float | None = None  # for one video
    min_free_bytes: int = 1_000_000_000
    shard: Shard | None = None  # only this part of the videos; other parts may be split at the same time
    ray_address: str | None = None  # use this Ray cluster instead of threads; see `run_on_ray`
    cache_folder: Path | None = None  # where clips for a workspace in a bucket are made; None: `default_cache_folder`


def split_videos(
    videos: Videos,
    *,
    root: "Location | str" = DEFAULT_ROOT,
    options: SplitOptions = SplitOptions(),  # noqa: B008 - immutable
    policy: SplitPolicy = SplitPolicy(),
    workers: int | None = None,
    on_event: Callable[[VideoEvent], None] = lambda event: None,
) -> Summary:
    """Split videos into clips in `<root>/<subset>/`, several in parallel; finished videos are skipped.

    A video that cannot be split becomes a line in `<root>/failures.jsonl`, and the others are still split. Existing
    clips of a video stay until new ones have been made and checked.

    Args:
        videos: files, folders, patterns, lists, or the result of `hico_core.corpus.sources.finding.find_sources`.
        root: the workspace; created if missing.
        options: format of the clips.
        policy: how and where videos are processed.
        workers: videos split in parallel, each with one thread of ffmpeg; None: one per core. Ignored on a cluster.
        on_event: called for each video, in the order in which they finish.

    Raises:
        HicoError: there is no usable ffmpeg, an id belongs to another video, the disk is full, or another command is
            writing here.

    """
    place, sources = absolute_root(root), sources_of(videos)
    program = Ffmpeg(find_ffmpeg())
    with tempfile.TemporaryDirectory(prefix="hico-") as folder:
        require_encoder(program, options, folder=Path(folder))
    scratch = scratch_folder(place, policy.cache_folder or default_cache_folder())
    runner: Runner[Candidate, Taken]
    if policy.ray_address is None:
        runner = partial(run_on_threads, workers=workers or available_cores(), stop=program.stop)
    else:
        lost = partial(take_lost, root=place, scratch=scratch)
        runner = partial(run_on_ray, address=policy.ray_address, on_lost=lost)
    return take_in(
        [Candidate(source, options) for source in sources],
        Workplace(place, scratch, policy.shard),
        command="split",
        rules=policy.rules,
        # A process on a cluster finds its own ffmpeg, and Ray ends its child processes.
        make=partial(_make, policy=policy, program=None if policy.ray_address else program),
        runner=runner,
        on_event=on_event,
    )


def _make(candidate: Candidate, folder: Path, *, policy: SplitPolicy, program: Ffmpeg | None) -> Made:
    """Write and check a video's clips in `folder`, under their final names.

    Raises:
        BadVideo: the video cannot be used.
        HicoError: the disk is (nearly) full, the run was stopped, or the video is damaged and the policy is "fail".

    """
    source, options = candidate
    assert isinstance(options, SplitOptions)
    _require_space(folder.parent, policy.min_free_bytes)
    _require_names(source, folder)
    deadline = None if policy.timeout_seconds is None else time.monotonic() + policy.timeout_seconds
    with _local_source(source, folder) as local:
        try:
            program = program or Ffmpeg(find_ffmpeg(), own_session=False)
            job = Job(source=local, options=options, program=program, folder=folder, deadline=deadline)
            made = make_clips(job, on_corrupt=policy.on_corrupt, verify=policy.rules.verify)
        except BadVideo as bad:
            if bad.stage == "decode" and policy.on_corrupt == "fail":
                raise HicoError(f"{bad}; --on-corrupt skip continues with the others") from bad
            raise
        sha256 = sha256_of(local) if policy.rules.checksum and source.frame_rate is None else None
    named = []
    for clip, file in zip(made.records, made.files, strict=True):
        name = clip_name(source.video_id, start_ms=clip.start_ms, end_ms=clip.end_ms)
        file.rename(folder / name)
        named.append(clip.model_copy(update={"path": f"{options.subset}/{name}"}))
    return Made(
        clips=named,
        fps=frame_rate(made.frame_seconds).fps,
        variable_fps=frame_rate(made.kept_frame_seconds).variable,
        num_decode_errors=made.num_decode_errors,
        num_damaged_clips=made.num_damaged,
        sha256=sha256,
    )


def _require_space(folder: Path, min_free_bytes: int) -> None:
    """Stop before the disk is full.

    Raises:
        HicoError: less space is free than must stay free.

    """
    free = shutil.disk_usage(folder).free
    if free < min_free_bytes:
        raise HicoError(
            f"{folder.parent}: {free / 1e9:.2f} GB free, `hico split --min-free` keeps {min_free_bytes / 1e9:.2f} GB; "
            "free some space, and the same command continues"
        )


def _require_names(source: Source, folder: Path) -> None:
    """Check that the file system takes the names of a video's clips, which consist of the ID and their times.

    Raises:
        BadVideo: it does not.

    """
    day_ms = 24 * 60 * 60 * 1000
    if fault := name_fault(folder, clip_name(source.video_id, start_ms=day_ms, end_ms=day_ms)):
        raise BadVideo(str(source.path), fault, stage="name")


@contextmanager
def _local_source(source: Source, folder: Path) -> Iterator[Path]:
    """The video as a local file; for a frame folder, a file that contains its pictures.

    Raises:
        BadVideo: it cannot be fetched, or the pictures do not belong to one video.

    """
    if source.frame_rate is not None and is_local(source.path):
        pictures, video = pictures_in(source.path), folder / "pictures.nut"
        require_pictures_of_one_size(pictures)
        write_as_video(pictures, video, frame_rate=source.frame_rate)
        yield video
        return
    with fetched_video(source.path, folder) as local:
        yield local

"""`hico split`: untrimmed videos -> exact clips."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import raising_on_signals, result, video_progress
from hico_cli.options import (
    CacheDir,
    FrameRate,
    Ids,
    Json,
    Move,
    RayAddress,
    Recursive,
    RetryFailed,
    Root,
    ShardOf,
    find_videos,
    read_shard,
    read_size,
)
from hico_cli.outcomes import report_split
from hico_core.base.addresses import DEFAULT_ROOT, locate_root
from hico_core.base.choices import KeepOrDrop, OnCorrupt, Profile, Subset, Verification, VideoEncoder
from hico_core.base.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hico_core.base.addresses import Location
    from hico_core.corpus.sources.ids import Source
    from hico_core.corpus.split import SplitPolicy
    from hico_core.corpus.workspace.records import SplitOptions


def split(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Videos, folders, patterns, .txt lists (one path per line), or addresses in buckets."),
    ] = None,
    root: Root = DEFAULT_ROOT,
    subset: Annotated[
        Subset,
        typer.Option(rich_help_panel="Which videos", help="Subset to which the videos belong."),
    ] = "train",
    segment_seconds: Annotated[
        float, typer.Option(min=0.1, rich_help_panel="Clips", help="Length of a clip in seconds.")
    ] = 5.0,
    tail: Annotated[
        KeepOrDrop,
        typer.Option(rich_help_panel="Clips", help="Keep or drop the last clip if it is shorter."),
    ] = "keep",
    profile: Annotated[
        Profile,
        typer.Option(
            rich_help_panel="Encoding",
            help="training: fastest to read; archive: close to the source; source: size and quality of the source.",
        ),
    ] = "training",
    short_side: Annotated[
        int | None, typer.Option(rich_help_panel="Clips", help="Maximum short side in pixels; 0: as in the source.")
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            rich_help_panel="Clips", help="Convert to this constant frame rate. Default: keep the source's frame times."
        ),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=51,
            rich_help_panel="Encoding",
            help="Constant quality, from 0 (best) to 51. Default: from --profile.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            rich_help_panel="Encoding",
            help="Speed preset of the video encoder: veryfast, medium, ... Default: from --profile.",
        ),
    ] = None,
    gop: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel="Encoding",
            help="Maximum number of frames between keyframes. Default: from --profile.",
        ),
    ] = None,
    encoder: Annotated[
        VideoEncoder | None,
        typer.Option(rich_help_panel="Encoding", help="Video encoder of ffmpeg. Default: from --profile."),
    ] = None,
    audio: Annotated[
        KeepOrDrop | None,
        typer.Option(rich_help_panel="Clips", help="Keep or drop the sound. Default: drop."),
    ] = None,
    verify: Annotated[
        Verification,
        typer.Option(
            rich_help_panel="Checks", help="fast: check frame counts, times and sizes; full: also decode each clip."
        ),
    ] = "fast",
    on_corrupt: Annotated[
        OnCorrupt,
        typer.Option(
            rich_help_panel="Checks",
            help="For a damaged video: keep its good clips, skip the video, or stop the command.",
        ),
    ] = "skip",
    workers: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel="Where it runs", help="Videos split in parallel. Default: one per core."),
    ] = None,
    ray_address: RayAddress = None,
    shard: ShardOf = None,
    id_rule: Ids = "stem",
    recursive: Recursive = True,
    frame_rate: FrameRate = None,
    move: Move = False,
    retry_failed: RetryFailed = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            rich_help_panel="Which videos",
            help="Split finished videos again; their clips are kept until the new ones have been checked.",
        ),
    ] = False,
    checksum: Annotated[
        bool,
        typer.Option(
            "--checksum",
            rich_help_panel="Which videos",
            help="Detect changed sources by SHA-256 instead of modification time.",
        ),
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.1, max=1e6, rich_help_panel="Checks", help="Seconds after which a video counts as failed."),
    ] = None,
    min_free: Annotated[
        str, typer.Option(metavar="SIZE", rich_help_panel="Checks", help="Stop when less disk space than this is free.")
    ] = "1GB",
    cache_dir: CacheDir = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Split a few videos into a temporary folder and estimate length, disk space and time for all.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Split videos into 5-second clips in ROOT/train (or val, test); every frame is in exactly one clip.

    Finished videos are skipped, so the same command continues where it stopped. Exit code 3: some videos failed;
    they are listed in ROOT/failures.jsonl.
    """
    from hico_core.base.failures import forget_mended
    from hico_core.corpus.intake import Rules
    from hico_core.corpus.split import SplitPolicy, split_videos
    from hico_core.corpus.workspace.access import Shard
    from hico_core.corpus.workspace.records import PROFILES

    place = locate_root(root)
    if not inputs:
        raise typer.BadParameter("name videos, or folders of them", param_hint="INPUTS")
    changes = {
        "short_side": short_side,
        "fps": fps,
        "crf": crf,
        "preset": preset,
        "gop": gop,
        "encoder": encoder,
        "audio": audio,
    }
    base = PROFILES[profile].model_dump() | {"subset": subset, "segment_seconds": segment_seconds, "tail": tail}
    options = _validated(base | {key: value for key, value in changes.items() if value is not None})
    policy = SplitPolicy(
        rules=Rules(verify=verify, checksum=checksum, force=force, retry_failed=retry_failed, move=move),
        on_corrupt=on_corrupt,
        timeout_seconds=timeout,
        min_free_bytes=read_size(min_free),
        shard=Shard(*read_shard(shard)) if shard else None,
        ray_address=ray_address,
        cache_folder=cache_dir,
    )
    sources = find_videos(inputs, id_rule=id_rule, recursive=recursive, frame_rate=frame_rate)
    if dry_run:
        _estimate(sources, place, options, policy, workers=workers, as_json=json)
        return
    forget_mended(place, inputs, sources, command="split")
    with raising_on_signals(), video_progress(as_json=json)("split", len(sources)) as on_event:
        summary = split_videos(sources, root=place, options=options, policy=policy, workers=workers, on_event=on_event)
    report_split(summary, root=root, folder=f"{root}/{subset}", as_json=json)
    if summary.num_failed:
        raise typer.Exit(3)


def _estimate(
    sources: "Sequence[Source]",
    root: "Location",
    options: "SplitOptions",
    policy: "SplitPolicy",
    *,
    workers: int | None,
    as_json: bool,
) -> None:
    from hico_core.base.engine import available_cores
    from hico_core.corpus.split_dry_run import dry_run_split

    with raising_on_signals("stopped; nothing was written"):
        plan = dry_run_split(sources, root=root, options=options, policy=policy, workers=workers or available_cores())
    failed = f", of which {plan.num_sampled_failed} failed" if plan.num_sampled_failed else ""
    others = f"{plan.num_unchanged} unchanged"
    others += f", {plan.num_failed_before} failed earlier (add --retry-failed)" if plan.num_failed_before else ""
    others += f", {plan.num_unusable} unusable" if plan.num_unusable else ""
    text = (
        f"{counted(plan.num_videos, 'video')} to split, {others}; about "
        f"{plan.minutes:.1f} minutes of video, {plan.clip_bytes / 1e9:.3f} GB of clips, {plan.hours:.2f} hours with "
        f"{counted(plan.workers, 'worker')}, as measured on {plan.num_sampled}{failed}; nothing was written"
    )
    result(text, asdict(plan), as_json=as_json)


def _validated(settings: dict[str, object]) -> "SplitOptions":
    """Validate the options for the clips.

    Raises:
        typer.BadParameter: an option is out of range.

    """
    from pydantic import ValidationError

    from hico_core.config.explain import what_is_wrong
    from hico_core.corpus.workspace.records import SplitOptions

    if settings["short_side"] == 0:
        settings = {**settings, "short_side": None}
    try:
        return SplitOptions.model_validate(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        option = "--" + str(problem["loc"][0]).replace("_", "-")
        raise typer.BadParameter(what_is_wrong(problem), param_hint=f"{option} {problem['input']}") from None

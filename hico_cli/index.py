"""`hico index`: clips -> index.parquet and training.txt."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hico_cli.console import complain, progress, raising_on_signals, result
from hico_cli.options import DEFAULT_ROOT, CacheDir, CacheSize, Json, Root, read_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hico_core.authors_config import AuthorsConfig
    from hico_core.authors_finetuning import AuthorsFinetuning
    from hico_core.corpus.adopt import FoundVideo
    from hico_core.corpus.ids import Source
    from hico_core.corpus.lists import CorpusList
    from hico_core.corpus.records import Subset
    from hico_core.corpus.storage import LocalCache, Location


def index(
    root: Root = DEFAULT_ROOT,
    untrimmed: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR", help="Add the videos of this folder as they are, without splitting; repeatable."),
    ] = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Add clips in ROOT/train, val, test that another tool cut.")
    ] = False,
    list_file: Annotated[
        str | None,
        typer.Option(
            "--list",
            metavar="FILE",
            help="Add what a list names: <id>,<start>,<end> (clips) or <path> <label> (videos).",
        ),
    ] = None,
    data_root: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where the files of --list lie. Default: beside it.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only compare all files with the records: missing, extra, changed.")
    ] = False,
    val_fraction: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Part of the training videos to validate on, drawn by id.")
    ] = 0.0,
    subset: Annotated[Literal["train", "val", "test"], typer.Option(help="Of the --untrimmed videos.")] = "train",
    workers: Annotated[int | None, typer.Option(min=1, help="Videos looked at at a time. Default: one a core.")] = None,
    cache_dir: CacheDir = None,
    cache_size: CacheSize = "20GB",
    json: Json = False,
) -> None:
    """Index all videos of ROOT's records: a row per 5 s, and the authors' list files.

    Writes ROOT/index.parquet and ROOT/training.txt (validation.txt, testing.txt for the other subsets). Exit code 3:
    some videos failed, or --check found differences.
    """
    from hico_core.corpus.index import build_index
    from hico_core.corpus.storage import LocalCache, default_cache_folder, locate, require_reachable

    place = locate(root)
    require_reachable(place)
    if check:
        _check(place, as_json=json)
        return
    cache = LocalCache(cache_dir or default_cache_folder(), size_bytes=read_size(cache_size))
    workers = workers or os.cpu_count() or 1
    num_failed = 0
    with raising_on_signals("stopped; the old index is as it was, and the same command goes on"):
        if adopt:
            num_failed += _adopt(place, None, workers=workers, cache=cache)
        if untrimmed:
            from hico_core.corpus.ids import find_sources

            num_failed += _add_untrimmed(
                find_sources(untrimmed), place, subset=subset, workers=workers, cache=cache, as_json=json
            )
        if list_file:
            listed = locate(list_file)
            folder = listed.parent if data_root is None else locate(data_root)
            num_failed += add_listed(
                listed, folder, root=place, subset=subset, workers=workers, cache=cache, as_json=json
            )
        summary = build_index(place, val_fraction=val_fraction)
    left_out = f"; {summary.num_failed} videos that failed are left out" if summary.num_failed else ""
    text = f"{summary.num_clips} clips of {summary.num_videos} videos in {root}/index.parquet{left_out}"
    result(text, {**summary._asdict(), "index": f"{root}/index.parquet"}, as_json=json)
    if num_failed:
        complain(f"{num_failed} videos failed: {root}/failures.jsonl")
        raise typer.Exit(3)


def _check(root: "Location", *, as_json: bool) -> None:
    from hico_core.corpus.check import check_files

    differences = list(check_files(root))
    for kind, path, detail in differences:
        complain(f"{path}: {kind}" + (f" ({detail})" if detail else ""))
    text = f"{len(differences)} files differ from the records" if differences else "all files are as the records say"
    result(text, {"differences": [difference._asdict() for difference in differences]}, as_json=as_json)
    if differences:
        raise typer.Exit(3)


def add_listed(
    list_file: "Location",
    data_root: "Location",
    *,
    root: "Location",
    subset: "Subset",
    workers: int,
    cache: "LocalCache",
    as_json: bool,
) -> int:
    """Add the clips or videos of a list to the records; how many videos failed."""
    from hico_core.corpus.lists import is_list_of_clips, labelled_videos, listed_clips

    if isinstance(data_root, Path):
        data_root = data_root.resolve()
    if is_list_of_clips(list_file):
        clips = listed_clips(list_file, data_root=data_root, subset=subset)
        return _adopt(root, clips, workers=workers, cache=cache)
    videos = labelled_videos(list_file, data_root=data_root)
    return _add_untrimmed(videos, root, subset=subset, workers=workers, cache=cache, as_json=as_json)


def add_their_data(
    theirs: "AuthorsConfig | AuthorsFinetuning",
    root: "Location",
    *,
    data_root: str | None,
    anno_dir: str | None,
    find: "Callable[[Location, Location | None], Mapping[Subset, CorpusList]]",
    as_json: bool,
) -> None:
    """Index what a file of the authors trains on, unless ROOT has an index and no folder is given.

    Args:
        theirs: what the file says.
        root: the workspace.
        data_root: where the clips or videos lie; None: where the file says.
        anno_dir: where the lists lie; None: where the file says, unless `data_root` is given.
        find: data_root, anno_dir -> the list of each subset.
        as_json: tell programs.

    """
    from hico_core.corpus.index import build_index
    from hico_core.corpus.storage import LocalCache, default_cache_folder, locate

    if data_root is None and (root / "index.parquet").exists():
        return
    folder = data_root or theirs.data_root
    if folder is None:
        raise typer.BadParameter("needed, since the file names no DATA.DATA_ROOT_DIR", param_hint="--data-root")
    lists = anno_dir or (theirs.anno_dir if data_root is None else None)
    data = theirs.config.data
    cache = LocalCache(Path(data.cache_dir or default_cache_folder()), size_bytes=int(data.cache_gb * 1e9))
    for subset, listed in find(locate(folder), None if lists is None else locate(lists)).items():
        add_listed(*listed, root=root, subset=subset, workers=os.cpu_count() or 1, cache=cache, as_json=as_json)
    build_index(root)


def _adopt(root: "Location", videos: "Sequence[FoundVideo] | None", *, workers: int, cache: "LocalCache") -> int:
    from hico_core.corpus.adopt import AdoptEvent, adopt_clips

    def on_event(event: AdoptEvent) -> None:
        if event.record.failure:
            complain(f"{event.record.video_id}: {event.record.failure.error}")
        elif event.gaps:
            gaps = ", ".join(f"{gap.start_ms / 1000:g} to {gap.end_ms / 1000:g} s" for gap in event.gaps)
            complain(f"{event.record.video_id}: has no clip of {gaps}; adopted with the gaps")

    return adopt_clips(root, videos=videos, workers=workers, cache=cache, on_event=on_event)


def _add_untrimmed(
    sources: "Sequence[Source]",
    root: "Location",
    *,
    subset: "Subset",
    workers: int,
    cache: "LocalCache",
    as_json: bool,
) -> int:
    from hico_core.corpus.records import UntrimmedOptions
    from hico_core.corpus.untrimmed import UntrimmedEvent, add_untrimmed

    with progress("untrimmed", total=len(sources), as_json=as_json) as report:

        def on_event(event: UntrimmedEvent) -> None:
            record = event.record
            if record.failure:
                complain(f"{record.source.path}: {record.failure.error}")
            fields = {"video": record.video_id, "rows": len(record.clips)}
            text = f"{event.num_done}/{event.num_videos} {record.video_id}: {len(record.clips)} rows"
            report(event.num_done, text, fields)

        return add_untrimmed(
            sources,
            root=root,
            options=UntrimmedOptions(subset=subset),
            workers=workers,
            cache=cache,
            on_event=on_event,
        )

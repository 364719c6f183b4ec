"""`hico index`: clips -> index.parquet and training.txt."""

from typing import Annotated

import typer

from hico_cli.console import raising_on_signals, report_failed, result, video_progress, warn
from hico_cli.options import (
    CacheDir,
    CacheSize,
    FrameRate,
    Ids,
    Json,
    Move,
    Recursive,
    Root,
    find_videos,
    read_size,
    refuse_unused,
)
from hico_cli.outcomes import report_index
from hico_core.base.addresses import DEFAULT_ROOT, Location, is_local, locate, locate_root
from hico_core.base.cache import local_cache
from hico_core.base.choices import Subset
from hico_core.base.errors import counted


def index(
    context: typer.Context,
    root: Root = DEFAULT_ROOT,
    untrimmed: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR", help="Add the videos of this folder without splitting them; may be repeated."),
    ] = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Add clips in ROOT/train, val and test that were cut by another tool.")
    ] = False,
    list_file: Annotated[
        str | None,
        typer.Option(
            "--list",
            metavar="FILE",
            help="Add the entries of a list: ID,START,END per line (clips) or PATH LABEL (videos).",
        ),
    ] = None,
    cuts: Annotated[
        bool,
        typer.Option("--cuts", help="Detect cuts between shots in videos that are not split, by decoding each once."),
    ] = False,
    data_root: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of the files in --list. Default: the folder of the list.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Index nothing; compare all files with the records and list missing, extra and changed ones.",
        ),
    ] = False,
    val_fraction: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Fraction of the training videos to use for validation, chosen by id."),
    ] = 0.0,
    subset: Annotated[Subset, typer.Option(help="Subset to which --untrimmed and --list add videos.")] = "train",
    id_rule: Ids = "stem",
    recursive: Recursive = True,
    frame_rate: FrameRate = None,
    move: Move = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Videos inspected in parallel. Default: one per core.")
    ] = None,
    cache_dir: CacheDir = None,
    cache_size: CacheSize = "20GB",
    json: Json = False,
) -> None:
    """Index all videos of the workspace, one row per 5 s, and write list files for the authors' code.

    Writes ROOT/index.parquet and ROOT/training.txt (validation.txt, testing.txt for the other subsets). Exit code 3:
    some videos failed, some clips are missing, or --check found differences.
    """
    from hico_core.base.engine import available_cores
    from hico_core.corpus.index import build_index
    from hico_core.corpus.listed import Indexing, add_clips, add_found, add_listed

    place = locate_root(root)
    if is_local(place):
        place = place.absolute()
    if not list_file:
        refuse_unused(context, "data_root", why="needs --list")
    if not untrimmed:
        refuse_unused(context, "frame_rate", "recursive", why="needs --untrimmed with a folder")
    if not untrimmed and not list_file:
        refuse_unused(context, "subset", "id_rule", "cuts", why="needs --untrimmed or --list")
    if check:
        others = ("adopt", "untrimmed", "list_file", "val_fraction", "move")
        refuse_unused(context, *others, why="--check only compares files with records; index with another call")
        _check(place, as_json=json)
        return
    to = Indexing(
        root=place,
        workers=workers or available_cores(),
        cache=local_cache(cache_dir, read_size(cache_size)),
        subset=subset,
        id_rule=id_rule,
        move=move,
        cuts=cuts,
    )
    progress = video_progress(as_json=json)
    num_failed = 0
    with raising_on_signals("stopped; the old index is unchanged, and the same command continues"):
        if adopt:
            num_failed += add_clips(to=to, progress=progress)
        if untrimmed:
            sources = find_videos(untrimmed, id_rule=id_rule, recursive=recursive, frame_rate=frame_rate)
            num_failed += add_found(untrimmed, sources, to=to, progress=progress)
        if list_file:
            base = locate(list_file).parent if data_root is None else locate(data_root)
            num_failed += add_listed(list_file, base, to=to, progress=progress)
        summary = build_index(place, val_fraction=val_fraction)
    report_index(summary, root=root, as_json=json)
    report_failed(num_failed, root=root)
    if num_failed or summary.num_missing:
        raise typer.Exit(3)


def _check(root: "Location", *, as_json: bool) -> None:
    from hico_core.corpus.workspace.check import check_files

    differences = list(check_files(root))
    for kind, path, detail in differences:
        warn(f"{path}: {kind}" + (f" ({detail})" if detail else ""))
    text = "all files match the records"
    if differences:
        text = f"{counted(len(differences), 'file')} not matching the records"
    result(text, {"differences": [difference._asdict() for difference in differences]}, as_json=as_json)
    if differences:
        raise typer.Exit(3)

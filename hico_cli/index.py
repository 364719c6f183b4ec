"""`hico index`: clips -> index.parquet and training.txt."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from hico_cli.console import complain, progress, raising_on_signals, result, telling
from hico_cli.options import CacheDir, CacheSize, Ids, Json, Move, Recursive, Root, find_videos, read_size
from hico_core.corpus.addresses import DEFAULT_ROOT, Location, locate, locate_root
from hico_core.errors import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hico_core.config import Config, FinetuneConfig
    from hico_core.corpus.cache import LocalCache
    from hico_core.corpus.ids import IdRule, Source
    from hico_core.corpus.intake import Candidate, Rules
    from hico_core.corpus.lists import CorpusList
    from hico_core.corpus.records import Subset
    from hico_core.interop.authors_config import AuthorsConfig


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
            help="Add what a list names: ID,START,END a line (clips) or PATH LABEL (videos).",
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
    subset: Annotated[
        Literal["train", "val", "test"], typer.Option(help="The subset to which --untrimmed and --list add videos.")
    ] = "train",
    id_rule: Ids = "stem",
    recursive: Recursive = True,
    move: Move = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Videos looked at at a time. Default: one a core.")] = None,
    cache_dir: CacheDir = None,
    cache_size: CacheSize = "20GB",
    json: Json = False,
) -> None:
    """Index all videos of ROOT's records: a row per 5 s, and the authors' list files.

    Writes ROOT/index.parquet and ROOT/training.txt (validation.txt, testing.txt for the other subsets). Exit code 3:
    some videos failed, some clips are not there any more, or --check found differences.
    """
    from hico_core.corpus.cache import local_cache
    from hico_core.corpus.engine import available_cores
    from hico_core.corpus.index import build_index

    place = locate_root(root)
    if isinstance(place, Path):
        place = place.absolute()
    if check:
        _check(place, as_json=json)
        return
    cache = local_cache(cache_dir, size_bytes=read_size(cache_size))
    intake = _Intake(place, subset, id_rule, move, workers or available_cores(), cache, json)
    num_failed = 0
    with raising_on_signals("stopped; the old index is as it was, and the same command goes on"):
        if adopt:
            num_failed += intake.adopt()
        if untrimmed:
            num_failed += intake.add_untrimmed(untrimmed, recursive=recursive)
        if list_file:
            base = locate(list_file).parent if data_root is None else locate(data_root)
            num_failed += intake.add_listed(list_file, base)
        summary = build_index(place, val_fraction=val_fraction)
    left_out = f"; {counted(summary.num_failed, 'video')} that failed left out" if summary.num_failed else ""
    left_out += f"; {summary.left_out}" if summary.left_out else ""
    subsets = ", ".join(f"{count} {subset}" for subset, count in sorted(summary.videos_of.items()))
    shared = f" ({subsets})" if len(summary.videos_of) > 1 else ""
    sizes = f"{counted(summary.num_clips, 'clip')} of {counted(summary.num_videos, 'video')}"
    if summary.num_missing:
        left_out += f"; {counted(summary.num_missing, 'clip')} that are not there left out"
    text = f"{sizes}{shared} in {root}/index.parquet{left_out}"
    result(text, {**summary._asdict(), "index": f"{root}/index.parquet"}, as_json=json)
    if num_failed:
        complain(f"{counted(num_failed, 'video')} failed: {root}/failures.jsonl")
    if num_failed or summary.num_missing:
        raise typer.Exit(3)


def _check(root: "Location", *, as_json: bool) -> None:
    from hico_core.corpus.check import check_files

    differences = list(check_files(root))
    for kind, path, detail in differences:
        complain(f"{path}: {kind}" + (f" ({detail})" if detail else ""))
    text = f"{counted(len(differences), 'file')} not as recorded" if differences else "all files are as recorded"
    result(text, {"differences": [difference._asdict() for difference in differences]}, as_json=as_json)
    if differences:
        raise typer.Exit(3)


def add_their_data(
    theirs: "AuthorsConfig[Config] | AuthorsConfig[FinetuneConfig]",
    root: "Location",
    *,
    data_root: str | None,
    anno_dir: str | None,
    find: "Callable[[Location, Location | None], Mapping[Subset, CorpusList]]",
    as_json: bool,
) -> int:
    """Index what a file of the authors trains on, unless ROOT has an index and no folder is given.

    Args:
        theirs: what the file says.
        root: the workspace.
        data_root: where the clips or videos lie; None: where the file says.
        anno_dir: where the lists lie; None: where the file says, unless `data_root` is given.
        find: data_root, anno_dir -> the list of each subset.
        as_json: tell programs.

    Returns:
        How many videos failed.

    """
    from hico_core.corpus.cache import local_cache
    from hico_core.corpus.engine import available_cores
    from hico_core.corpus.index import build_index

    if data_root is None and (root / "index.parquet").exists():
        return 0
    folder = data_root or theirs.data_root
    if folder is None:
        raise typer.BadParameter("needed, since the file names no DATA.DATA_ROOT_DIR", param_hint="--data-root")
    lists = anno_dir or (theirs.anno_dir if data_root is None else None)
    data = theirs.config.data
    cache = local_cache(data.cache_dir, size_bytes=int(data.cache_gb * 1e9))
    num_failed = sum(
        _Intake(root, subset, "stem", False, available_cores(), cache, as_json).add_listed(
            str(listed.list_file), listed.data_root
        )
        for subset, listed in find(locate(folder), None if lists is None else locate(lists)).items()
    )
    build_index(root)
    if num_failed:
        complain(f"{counted(num_failed, 'video')} failed: {root}/failures.jsonl")
    return num_failed


class _Intake(NamedTuple):
    """How videos come into a workspace by this command, in each of its ways; how many failed is returned."""

    root: "Location"
    subset: "Subset"
    id_rule: "IdRule"
    move: bool
    workers: int
    cache: "LocalCache"
    as_json: bool

    def add_untrimmed(self, inputs: list[str], *, recursive: bool) -> int:
        """Videos of folders, read in place."""
        from hico_core.corpus.failures import forget_mended

        sources = find_videos(inputs, id_rule=self.id_rule, recursive=recursive)
        forget_mended(self.root, inputs, sources, command="index")
        return self._add(sources)

    def add_listed(self, given: str, data_root: "Location") -> int:
        """The clips or videos of a list, or of the lists that match a pattern."""
        from hico_core.corpus.failures import forget_mended
        from hico_core.corpus.index import read_class_names
        from hico_core.corpus.intake import Candidate
        from hico_core.corpus.lists import is_list_of_clips, listed_clips, require_some
        from hico_core.corpus.records import AdoptedOptions
        from hico_core.corpus.splits import is_pattern, numbered_as, read_split

        if isinstance(data_root, Path):
            data_root = data_root.resolve()
        if not is_pattern(given) and is_list_of_clips(locate(given)):
            clips = listed_clips(locate(given), data_root=data_root)
            forget_mended(self.root, [given], clips, command="index")
            return self.adopt([Candidate(video, AdoptedOptions(subset=self.subset)) for video in clips])
        split = read_split(given, data_root=data_root, subset=self.subset, id_rule=self.id_rule)
        videos = numbered_as(split, read_class_names(self.root)).videos
        require_some(videos, named_by=given, data_root=data_root)
        forget_mended(self.root, [given], videos, command="index")
        return self._add(videos)

    def adopt(self, videos: "list[Candidate] | None" = None) -> int:
        """Clips that another tool cut; None: those in the workspace."""
        from hico_core.corpus.adopt import adopt_clips, find_clips

        if videos is None and isinstance(self.root, Path):
            videos = find_clips(self.root)
        with progress("clips", total=len(videos or []), as_json=self.as_json) as report:
            return adopt_clips(
                self.root,
                videos=videos,
                workers=self.workers,
                cache=self.cache,
                on_event=telling(report, done="adopted", part="clip"),
                rules=self._rules(),
            ).num_failed

    def _add(self, sources: "Sequence[Source]") -> int:
        from hico_core.corpus.records import UntrimmedOptions
        from hico_core.corpus.untrimmed import add_untrimmed

        with progress("untrimmed", total=len(sources), as_json=self.as_json) as report:
            return add_untrimmed(
                sources,
                root=self.root,
                options=UntrimmedOptions(subset=self.subset),
                workers=self.workers,
                cache=self.cache,
                on_event=telling(report, done="indexed", part="row"),
                rules=self._rules(),
            ).num_failed

    def _rules(self) -> "Rules":
        from hico_core.corpus.intake import Rules

        return Rules(retry_failed=True, move=self.move)

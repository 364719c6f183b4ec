"""Add videos to a workspace without splitting them: read in place, cut by another tool, or named by a list.

Each function updates `<root>/failures.jsonl` and returns the number of videos that failed; `build_index` then builds
the index.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from hico_core.base.addresses import Location, is_local, locate
from hico_core.base.cache import LocalCache
from hico_core.base.choices import IdRule, Subset
from hico_core.base.engine import available_cores
from hico_core.base.errors import UsageError
from hico_core.base.failures import forget_mended
from hico_core.base.tally import VideoEvent
from hico_core.config import DataConfig
from hico_core.corpus.adopt import adopt_clips, find_clips
from hico_core.corpus.index import build_index, read_class_names
from hico_core.corpus.intake import Candidate, Rules
from hico_core.corpus.sources.benchmark_lists import is_pattern, numbered_as, read_split
from hico_core.corpus.sources.ids import Source
from hico_core.corpus.sources.lists import CorpusList, is_list_of_clips, listed_clips, require_some
from hico_core.corpus.untrimmed import add_untrimmed
from hico_core.corpus.workspace.records import AdoptedOptions, UntrimmedOptions

VideoWork = Literal["split", "adopt", "index"]


class VideoProgress(Protocol):
    """Opens a progress display for work on a number of videos, and gives the function to call with each event."""

    def __call__(self, work: VideoWork, num_videos: int) -> AbstractContextManager[Callable[[VideoEvent], None]]:
        """Open it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexing:
    """The workspace into which videos are indexed, and how."""

    root: Location
    workers: int  # videos processed in parallel
    cache: LocalCache  # for videos in buckets, each of which is fetched once for inspection
    subset: Subset = "train"
    id_rule: IdRule = "stem"
    move: bool = False  # move known videos from their present subset
    cuts: bool = False  # record the cuts of videos that are read in place, which decodes each once

    @property
    def rules(self) -> Rules:
        """When a known video is inspected again; videos that failed before always are."""
        return Rules(retry_failed=True, move=self.move, cuts=self.cuts)


def add_found(inputs: Sequence[str], sources: Sequence[Source], *, to: Indexing, progress: VideoProgress) -> int:
    """Index videos in place.

    Args:
        inputs: the command's arguments; lines of failures.jsonl that stem from them and no longer fail are dropped.
        sources: the videos that `find_sources` found for them.
        to: the workspace and the options.
        progress: opens the progress display.

    Raises:
        HicoError: an id belongs to another video, or another command is writing here.

    """
    forget_mended(to.root, inputs, sources, command="index")
    with progress("index", len(sources)) as on_event:
        return add_untrimmed(
            [source.read_through(to.cache) for source in sources],
            root=to.root,
            options=UntrimmedOptions(subset=to.subset),
            workers=to.workers,
            on_event=on_event,
            rules=to.rules,
        ).num_failed


def add_clips(videos: "Sequence[Candidate] | None" = None, *, to: Indexing, progress: VideoProgress) -> int:
    """Index clips that another tool cut.

    Args:
        videos: the clips by video; None: those in the workspace's folders train, val and test.
        to: the workspace and the options.
        progress: opens the progress display.

    Raises:
        UsageError: there are no such clips, or the workspace lies in a bucket.
        HicoError: an id belongs to another video, or another command is writing here.

    """
    if videos is None and is_local(to.root):
        videos = find_clips(to.root)
    if videos is not None:
        videos = [video._replace(source=video.source.read_through(to.cache)) for video in videos]
    with progress("adopt", len(videos or [])) as on_event:
        return adopt_clips(to.root, videos=videos, workers=to.workers, on_event=on_event, rules=to.rules).num_failed


def add_listed(given: str, data_root: Location, *, to: Indexing, progress: VideoProgress) -> int:
    """Index the clips or the labelled videos that a list names.

    Args:
        given: the list, or a pattern that matches several lists.
        data_root: the folder to which the list's names are relative.
        to: the workspace and the options.
        progress: opens the progress display.

    Raises:
        UsageError: the list cannot be read, or belongs to another folder.
        HicoError: an id belongs to another video, or another command is writing here.

    """
    if is_local(data_root):
        data_root = data_root.resolve()
    if not is_pattern(given) and is_list_of_clips(locate(given)):
        clips = listed_clips(locate(given), data_root=data_root)
        forget_mended(to.root, [given], clips, command="index")
        options = AdoptedOptions(subset=to.subset)
        return add_clips([Candidate(video, options) for video in clips], to=to, progress=progress)
    listed = read_split(given, data_root=data_root, subset=to.subset, id_rule=to.id_rule)
    videos = numbered_as(listed, read_class_names(to.root)).videos
    require_some(videos, named_by=given, data_root=data_root)
    return add_found([given], videos, to=to, progress=progress)


class AuthorsFolders(Protocol):
    """The data folders that an authors' configuration file names."""

    @property
    def data_root(self) -> str | None:
        """The folder of the clips or videos."""

    @property
    def anno_dir(self) -> str | None:
        """The folder of the lists."""


def add_their_data(
    theirs: AuthorsFolders,
    root: Location,
    *,
    data: DataConfig,
    data_root: str | None,
    anno_dir: str | None,
    find: "Callable[[Location, Location | None], Mapping[Subset, CorpusList]]",
    progress: VideoProgress,
) -> int:
    """Index the training data of an authors' configuration file, unless ROOT has an index and no folder is given.

    Args:
        theirs: the folders that the file names.
        root: the workspace.
        data: the data section of the same file; its cache is used.
        data_root: folder of the clips or videos; None: the one named in the file.
        anno_dir: folder of the lists; None: the one named in the file, unless `data_root` is given.
        find: data_root, anno_dir -> the list of each subset.
        progress: opens the progress display.

    Returns:
        The number of videos that failed.

    Raises:
        UsageError: neither the file nor the caller names a folder, or it has no list.

    """
    if data_root is None and (root / "index.parquet").exists():
        return 0
    folder = data_root or theirs.data_root
    if folder is None:
        raise UsageError("--data-root: needed, because the file has no DATA.DATA_ROOT_DIR")
    lists = anno_dir or (theirs.anno_dir if data_root is None else None)
    num_failed = 0
    for subset, listed in find(locate(folder), None if lists is None else locate(lists)).items():
        to = Indexing(root=root, workers=available_cores(), cache=data.cache, subset=subset)
        num_failed += add_listed(str(listed.list_file), listed.data_root, to=to, progress=progress)
    build_index(root)
    return num_failed

"""The videos that a command is given: files, folders, patterns, lists, addresses in buckets."""

import difflib
import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias

from hico_core.base.addresses import Location, absolute, is_local, locate, require_reachable
from hico_core.base.choices import IdRule
from hico_core.base.errors import BadVideo, UsageError
from hico_core.base.texts import read_text
from hico_core.corpus.clips.probe import rate_of
from hico_core.corpus.sources.frame_folders import frame_names, is_numbered_picture, is_picture, picture_names
from hico_core.corpus.sources.ids import Source, parse_clip_name, unique_sources, video_id

# What a folder is searched for. A file that is named itself is taken whatever its ending.
VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()
)
_LIST_SUFFIXES = frozenset({".txt", ".lst"})

_CLIP_FOLDERS = frozenset({"train", "val", "test"})

# Why files of a folder are passed over.
HIDDEN = "hidden"
LINKED_FOLDER = "folders behind links"
NO_VIDEO = "not videos by their names"
OWN_CLIP = "clips of a workspace of hico"
BELOW = "in folders below"


class _Found(NamedTuple):
    """A file and what it was found by."""

    path: Location
    base: Location


def find_sources(
    inputs: Iterable[str],
    *,
    id_rule: IdRule = "stem",
    recursive: bool = True,
    frame_rate: float | None = None,
    passed_over: Counter[str] | None = None,
) -> list[Source]:
    """Resolve files, folders, patterns and list files (.txt: a path a line) to videos, in order of their ids.

    Addresses in buckets (s3://, oss://) stand for one video, for all below them, or are patterns. A file that is given
    twice counts once. Files of a list are not looked for here: one that is missing, or a line that names none, fails by
    itself, later.

    Args:
        inputs: what a command is given.
        id_rule: how ids are made, see `video_id`.
        recursive: take the videos of folders below a folder as well.
        frame_rate: take local frame folders as videos of so many pictures per second, see `frame_folders`.
        passed_over: counts, by reason, the files of folders that are not taken.

    Raises:
        UsageError: an input stands for nothing, or there are no frame folders for a rate.
        HicoError: two files have the same id; the message names both.

    """
    counted: Counter[str] = Counter() if passed_over is None else passed_over
    if frame_rate is not None and not 0.001 <= frame_rate <= 1000:
        raise UsageError(f"--frame-rate {frame_rate:g}: must be from 0.001 to 1000 pictures per second")
    folders = frame_rate is not None
    found = (one for given in inputs for one in _files_of(given, counted, recursive=recursive, frame_folders=folders))
    sources = unique_sources(one if isinstance(one, Source) else _source(one, id_rule, frame_rate) for one in found)
    if folders and not any(source.frame_rate for source in sources):
        raise UsageError(f"--frame-rate {frame_rate:g}: none of the inputs is a folder of numbered pictures")
    return sources


def _source(found: _Found, id_rule: IdRule, frame_rate: float | None) -> Source:
    path, base = absolute(found.path), absolute(found.base / "x").parent
    if frame_rate is None or not is_local(path) or not path.is_dir():
        return Source(video_id=video_id(path, rule=id_rule, base=base), path=path)
    return Source(
        video_id=video_id(path, rule=id_rule, base=base, is_folder=True),
        path=path,
        obstacle=_obstacle_in(path),
        frame_rate=float(rate_of(frame_rate)),
    )


def _obstacle_in(frame_folder: Path) -> str | None:
    try:
        frame_names(frame_folder)
    except BadVideo as bad:
        return bad.reason
    return None


# What functions take where commands take names of videos.
Videos: TypeAlias = Source | str | Path | Sequence[Source | str | Path]


def sources_of(videos: Videos) -> list[Source]:
    """The same for those who call functions: sources stay as they are, and names are resolved."""
    given = [videos] if isinstance(videos, Source | str | Path) else list(videos)
    named = [str(one) for one in given if not isinstance(one, Source)]
    return unique_sources([*(one for one in given if isinstance(one, Source)), *find_sources(named)])


def videos_among(
    names: Iterable[str], passed_over: Counter[str], *, recursive: bool = True, frame_folders: bool = False
) -> list[str]:
    """Which files of a folder are videos to take, sorted.

    Args:
        names: of all files below the folder, relative to it, `/`-separated.
        passed_over: counts the others by reason.
        recursive: also those of folders below it.
        frame_folders: a folder with numbered pictures and without videos is one, be it the folder itself (".").

    """
    listed = [PurePosixPath(name) for name in names]
    folders = _frame_folders_among(listed) if frame_folders else set()
    listed = list(
        dict.fromkeys(path.parent if path.parent in folders and is_picture(path.name) else path for path in listed)
    )
    workspaces = {path.parent.parent for path in listed if path.parent.name == "records" and path.suffix == ".json"}

    def reason(path: PurePosixPath) -> str | None:
        if any(part.startswith(".") for part in path.parts):
            return HIDDEN
        if path.suffix.lower() not in VIDEO_SUFFIXES and path not in folders:
            return NO_VIDEO
        if path.parent.name in _CLIP_FOLDERS and path.parent.parent in workspaces and parse_clip_name(path.name):
            return OWN_CLIP
        return None if recursive or len(path.parts) == 1 else BELOW

    reasons = {path: reason(path) for path in listed}
    passed_over.update(why for why in reasons.values() if why is not None)
    return sorted(str(path) for path, why in reasons.items() if why is None)


def _frame_folders_among(files: Sequence[PurePosixPath]) -> set[PurePosixPath]:
    with_videos = {path.parent for path in files if path.suffix.lower() in VIDEO_SUFFIXES}
    return {path.parent for path in files if is_numbered_picture(path.name)} - with_videos


def _files_of(
    given: str, passed_over: Counter[str], *, recursive: bool, frame_folders: bool
) -> Iterator[_Found | Source]:
    """The video files that one argument of a command stands for; of a list, also the lines that stand for none."""
    if "://" in given:
        yield from _files_of_bucket(given, passed_over, recursive=recursive)
        return
    path = Path(given)
    if path.is_dir():
        here: Counter[str] = Counter()
        names = list(_names_below(path, here))
        videos = videos_among(names, here, recursive=recursive, frame_folders=frame_folders)
        if not videos and any(is_numbered_picture(PurePosixPath(name).name) for name in names):
            raise UsageError(
                f"{given}: holds no videos but numbered pictures; --frame-rate N says that they are frames"
            )
        if not videos:
            raise UsageError(f"{given}: no video files in this folder{_in_brackets(here)}")
        passed_over.update(here)
        whole = path.resolve()  # a folder that is itself a video has its name from there, also if it is given as "."
        yield from (_Found(whole, whole.parent) if name == "." else _Found(path / name, path) for name in videos)
    elif path.is_file() and path.suffix.lower() in _LIST_SUFFIXES:
        rows = [_row_of_list(path, number, line) for number, line in read_list_lines(path)]
        require_good_rows([row for row in rows if isinstance(row, Source)], num_rows=len(rows))
        yield from rows
    elif path.is_file():
        yield _Found(path, path.parent)
    else:
        matches = [Path(name) for name in glob.glob(given, recursive=True)]  # noqa: PTH207 - absolute patterns too
        found = sorted(
            p for p in matches if p.is_file() or (frame_folders and any(map(is_numbered_picture, picture_names(p))))
        )
        if not found:
            raise UsageError(f"{given}: no such file or folder, and no file matches it as a pattern{_near(path)}")
        base = Path(_without_magic(given))
        yield from (_Found(p, base) for p in found)


def _near(path: Path) -> str:
    """What is called nearly so, for the end of a message."""
    if glob.has_magic(str(path)) or not path.parent.is_dir():
        return ""
    names = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f"; did you mean {path.parent / names[0]}?" if names else ""


def _row_of_list(list_file: Path, number: int, line: str) -> _Found | Source:
    try:
        return _Found(locate(line) if "://" in line else list_file.parent / line, list_file.parent)
    except UsageError as error:
        return bad_row(list_file, number, str(error))


def bad_row(list_file: Location, number: int, why: str) -> Source:
    """What stands for a line of a list that cannot be used, so that it fails by itself among the list's videos."""
    name = f"{list_file.name}, line {number}"
    return Source(video_id=name, path=absolute(list_file.parent / name), obstacle=why)


def require_good_rows(bad: Sequence[Source], *, num_rows: int) -> None:
    """See that some line of a list can be used: if none can, it is a file of another kind.

    Raises:
        UsageError: none can; tells why of the first.

    """
    if bad and len(bad) == num_rows:
        raise UsageError(f"{bad[0].path}: {bad[0].obstacle}")


def _names_below(folder: Path, passed_over: Counter[str]) -> Iterator[str]:
    """All files below a folder, relative to it. Links to folders are not followed, since they may lead in circles."""
    for here, folders, files in os.walk(folder):
        inside = Path(here)
        links = sum((inside / name).is_symlink() for name in folders)
        passed_over.update({LINKED_FOLDER: links} if links else {})
        yield from ((inside / name).relative_to(folder).as_posix() for name in files if (inside / name).is_file())


def describe_passed_over(passed_over: Counter[str]) -> str:
    """In words: "passed over: 3 hidden, 7 not videos by their names"; nothing where there is nothing to say."""
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(passed_over.items()))
    return f"passed over: {counts}" if counts else ""


def _in_brackets(passed_over: Counter[str]) -> str:
    text = describe_passed_over(passed_over)
    return f" ({text})" if text else ""


def _files_of_bucket(given: str, passed_over: Counter[str], *, recursive: bool) -> Iterator[_Found]:
    """The same as `_files_of` for an address in a bucket: one listing, no request a file."""
    place = locate(given)
    require_reachable(place)
    assert not is_local(place)
    base: Location = place
    here: Counter[str] = Counter()
    if glob.has_magic(given):
        found = [name for name, info in place.filesystem.glob(place.key, detail=True).items() if info["type"] == "file"]
        base = locate(_without_magic(given))
    else:
        below = place.key.rstrip("/") + "/"
        listed = place.filesystem.find(place.key, detail=True).values()
        names = [info["name"] for info in listed if info["type"] == "file" and info["size"]]
        found = [name for name in names if name == place.key.rstrip("/")]
        inside = [name.removeprefix(below) for name in names if name.startswith(below)]
        found += [below + name for name in videos_among(inside, here, recursive=recursive)]
    if not found:
        raise UsageError(f"{given}: no video files there{_in_brackets(here)}")
    passed_over.update(here)
    protocol = given.split("://")[0]
    yield from (_Found(locate(f"{protocol}://{name}"), base) for name in sorted(found))


def _without_magic(pattern: str) -> str:
    """The folders of a pattern before its first wildcard: data/*/x.mp4 -> data."""
    return "/".join(takewhile(lambda part: not glob.has_magic(part), pattern.split("/")))


def read_list_lines(list_file: Location) -> list[tuple[int, str]]:
    """The lines of a list that are not empty, with their numbers from 1.

    Bytes that are not UTF-8 stay what they are, as in names of files: each name that cannot be used fails by itself.

    Raises:
        UsageError: the list cannot be read, or has none.

    """
    lines = read_text(list_file, keep_odd_bytes=True).split("\n")
    numbered = [(number, line.strip(" \t")) for number, line in enumerate(lines, start=1)]
    if not any(line for _, line in numbered):
        raise UsageError(f"{list_file}: is empty")
    return [(number, line) for number, line in numbered if line]

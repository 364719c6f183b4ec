"""Resolve a command's arguments to videos: files, folders, patterns, lists, addresses in buckets."""

import difflib
import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from errno import ENOENT
from itertools import takewhile
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import NamedTuple, TypeAlias

from hico_core.base.addresses import Location, absolute, is_local, is_there, locate, require_reachable
from hico_core.base.choices import IdRule
from hico_core.base.errors import BadVideo, HicoError, UsageError
from hico_core.base.texts import read_text
from hico_core.corpus.clips.probe import rate_of
from hico_core.corpus.sources.frame_folders import frame_names, is_numbered_picture, is_picture, picture_names
from hico_core.corpus.sources.ids import Source, name_obstacle, parse_clip_name, video_id

# Suffixes of the videos searched for in a folder. A file given by name is accepted whatever its suffix.
VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()
)
_LIST_SUFFIXES = frozenset({".txt", ".lst"})
_TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".json", ".jsonl", ".parquet"})  # of lists that other commands read

_CLIP_FOLDERS = frozenset({"train", "val", "test"})

# Reasons for skipping files of a folder.
HIDDEN = "hidden"
LINKED_FOLDER = "linked folders"
NO_VIDEO = "not named like videos"
OWN_CLIP = "clips of a hico workspace"
BELOW = "in subfolders"
UNREADABLE = "unreadable"
BROKEN_LINK = "broken links"


class _Found(NamedTuple):
    """A file, and the folder, list or pattern through which it was found."""

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
    """Resolve files, folders, patterns and list files (.txt: one path per line) to videos, in order of their ids.

    An address in a bucket (s3://, oss://) names one video, all videos below it, or is a pattern. A file that is given
    twice counts once. Whether a list's files exist is not checked here: a missing file, or a malformed line, fails
    later, without affecting the others.

    Args:
        inputs: the command's arguments.
        id_rule: how ids are made; see `video_id`.
        recursive: search folders recursively.
        frame_rate: treat local frame folders as videos with this many pictures per second; see `frame_folders`.
        passed_over: counts the skipped files of folders by reason.

    Raises:
        UsageError: an input matches nothing, or a frame rate is given without any frame folder.
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


def unique_sources(sources: Iterable[Source]) -> list[Source]:
    """The sources in order of their ids, each once; unusable names and conflicting labels become obstacles.

    Raises:
        HicoError: two files have the same id; the message names both.

    """
    by_id: dict[str, Source] = {}
    for source in sources:
        known = by_id.setdefault(source.video_id, source)
        if known.path != source.path:
            raise HicoError(
                f"{known.path} and {source.path} have the same id, {source.video_id!r}; rename one of them, or "
                "include folders in the ids with --id relpath (not in `hico run`)"
            )
        if source.obstacle and not known.obstacle:
            by_id[source.video_id] = source
        elif known.label != source.label and not known.obstacle:
            both = " and ".join(repr(one.class_name or one.label) for one in (known, source))
            by_id[source.video_id] = replace(known, obstacle=f"is in the list with two labels, {both}")
    return [
        replace(source, obstacle=source.obstacle or name_obstacle(name, str(source.path)))
        for name, source in sorted(by_id.items())
    ]


# What Python functions accept where commands accept names of videos.
Videos: TypeAlias = Source | str | Path | Sequence[Source | str | Path]


def sources_of(videos: Videos) -> list[Source]:
    """Resolve the `videos` argument of a function: sources are kept as they are, names are resolved."""
    given = [videos] if isinstance(videos, Source | str | Path) else list(videos)
    named = [str(one) for one in given if not isinstance(one, Source)]
    return unique_sources([*(one for one in given if isinstance(one, Source)), *find_sources(named)])


def videos_among(
    names: Iterable[str], passed_over: Counter[str], *, recursive: bool = True, frame_folders: bool = False
) -> list[str]:
    """Choose the videos among the files of a folder, sorted by name.

    Args:
        names: all files below the folder, relative to it, `/`-separated.
        passed_over: counts the other files by reason.
        recursive: include files in subfolders.
        frame_folders: treat a folder with numbered pictures and without videos, even the folder itself ("."), as a
            video.

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
    """The video files that one argument of a command names, and the malformed lines if it is a list."""
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
                f"{given}: contains numbered pictures, not videos; to read them as frames, use --frame-rate N (not in "
                "`hico run`)"
            )
        if not videos:
            raise UsageError(f"{given}: no video files in this folder{_in_brackets(here)}")
        passed_over.update(here)
        whole = path.resolve()  # gives a frame folder its real name, even if it was given as "."
        yield from (_Found(whole, whole.parent) if name == "." else _Found(path / name, path) for name in videos)
    elif path.is_file() and path.suffix.lower() in _LIST_SUFFIXES:
        rows = [_row_of_list(path, number, line) for number, line in read_list_lines(path)]
        require_good_rows([row for row in rows if isinstance(row, Source)], num_rows=len(rows))
        yield from rows
    elif path.is_file() and path.suffix.lower() in _TABLE_SUFFIXES:
        raise UsageError(f"{given}: not a video; a list of videos is a .txt file with one path per line")
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
    """A suggestion of a similar name, for the end of a message."""
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
    """A source that represents an unusable line of a list, so that only this line fails."""
    name = f"{list_file.name}, line {number}"
    return Source(video_id=name, path=absolute(list_file.parent / name), obstacle=why)


def require_good_rows(bad: Sequence[Source], *, num_rows: int) -> None:
    """Check that at least one line of a list is usable; otherwise it is probably not a list.

    Raises:
        UsageError: no line is usable; the message gives the reason for the first.

    """
    if bad and len(bad) == num_rows:
        raise UsageError(f"{bad[0].path}: {bad[0].obstacle}")


def _names_below(folder: Path, passed_over: Counter[str]) -> Iterator[str]:
    """All files below a folder, relative to it; links to folders are not followed, because they may form cycles."""
    for here, folders, files in os.walk(folder, onerror=lambda error: passed_over.update([UNREADABLE])):
        inside = Path(here)
        links = sum(os.path.islink(inside / name) for name in folders)  # noqa: PTH114 - Path raises
        passed_over.update({LINKED_FOLDER: links} if links else {})
        for path in (inside / name for name in files):
            try:
                if S_ISREG(path.stat().st_mode):
                    yield path.relative_to(folder).as_posix()
            except OSError as error:
                passed_over[BROKEN_LINK if error.errno == ENOENT else UNREADABLE] += 1


def describe_passed_over(passed_over: Counter[str]) -> str:
    """The counts in words: "skipped: 3 hidden, 7 not named like videos"; empty if there are none."""
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(passed_over.items()))
    return f"skipped: {counts}" if counts else ""


def _in_brackets(passed_over: Counter[str]) -> str:
    text = describe_passed_over(passed_over)
    return f" ({text})" if text else ""


def _files_of_bucket(given: str, passed_over: Counter[str], *, recursive: bool) -> Iterator[_Found]:
    """The same as `_files_of` for an address in a bucket: one listing instead of one request per file."""
    place = locate(given)
    require_reachable(place)
    assert not is_local(place)
    base: Location = place
    here: Counter[str] = Counter()
    if glob.has_magic(given) and not is_there(place):
        found = [name for name, info in place.filesystem.glob(place.key, detail=True).items() if info["type"] == "file"]
        base = locate(_without_magic(given))
    else:
        below = place.key.rstrip("/") + "/"
        if "/" not in place.key.strip("/"):  # s3fs keeps what `find` lists, but not of what lies at a bucket's top
            place.filesystem.ls(place.key, refresh=True)
        listed = place.filesystem.find(place.key, detail=True).values()
        names = [info["name"] for info in listed if info["type"] == "file" and info["size"]]
        found = [name for name in names if name == place.key.rstrip("/")]
        inside = [name.removeprefix(below) for name in names if name.startswith(below)]
        found += [below + name for name in videos_among(inside, here, recursive=recursive)]
    if not found:
        raise UsageError(f"{given}: no video files at this address{_in_brackets(here)}")
    passed_over.update(here)
    protocol = given.split("://")[0]
    yield from (_Found(locate(f"{protocol}://{name}"), base) for name in sorted(found))


def _without_magic(pattern: str) -> str:
    """The folders of a pattern before its first wildcard: data/*/x.mp4 -> data."""
    return "/".join(takewhile(lambda part: not glob.has_magic(part), pattern.split("/")))


def read_list_lines(list_file: Location) -> list[tuple[int, str]]:
    """The non-empty lines of a list, with their numbers from 1.

    Bytes that are not UTF-8 are kept, as in file names, so that each unusable name fails without affecting the others.

    Raises:
        UsageError: the list cannot be read, or has no such lines.

    """
    lines = read_text(list_file, keep_odd_bytes=True).split("\n")
    numbered = [(number, line.strip(" \t")) for number, line in enumerate(lines, start=1)]
    if not any(line for _, line in numbered):
        raise UsageError(f"{list_file}: is empty")
    return [(number, line) for number, line in numbered if line]

"""Lists that come with a corpus: of clips (`<id>,<start>,<end>` per line) or of labelled videos (`<path> <label>`)."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from hico_core.base.addresses import Location, absolute, is_local, is_there, locate
from hico_core.base.choices import IdRule, Subset
from hico_core.base.errors import UsageError
from hico_core.corpus.sources.finding import bad_row, read_list_lines, require_good_rows, unique_sources
from hico_core.corpus.sources.ids import (
    ClipName,
    Source,
    clip_name,
    is_plain_name,
    name_obstacle,
    video_id,
    whole_number,
)

# Largest time of a clip that the index can hold, in milliseconds.
_LAST_MS = 2**63 - 1

# Largest label that the index can hold.
_LAST_LABEL = 2**31 - 1

# Most clips of a list that are looked for in a bucket.
_MOST_REQUESTS = 100

# Folders of clips below the folder of their corpus; the authors' README and code differ.
_CLIP_FOLDERS = ("training", "train", "")


class CorpusList(NamedTuple):
    """A list, and the folder to which its names are relative."""

    list_file: Location
    data_root: Location


def find_training_list(data_root: Location, anno_dir: "Location | None", *, trimmed: bool) -> CorpusList:
    """The list of the training videos in a folder tree like the authors'.

    Args:
        data_root: folder of the videos or clips.
        anno_dir: folder of the lists; the authors' code searches it or `data_root`.
        trimmed: look for Kinetics' list of labelled videos instead of the list of clips.

    Raises:
        UsageError: there is no such list; the message names the paths tried.

    """
    return _find_list("kinetics400_train_list.txt" if trimmed else "training.txt", data_root, anno_dir)


def find_labelled_lists(data_root: Location, anno_dir: "Location | None", dataset: str) -> dict[Subset, CorpusList]:
    """The lists of the training and test videos in a folder tree like the authors'.

    Args:
        data_root: folder of the videos.
        anno_dir: folder of the lists, which may also lie in `data_root`.
        dataset: hmdb51 or ucf101, the prefix of the lists' names.

    Raises:
        UsageError: a list is missing; the message names the paths tried.

    """
    names: dict[Subset, str] = {"train": f"{dataset}_train_list.txt", "test": f"{dataset}_test_list.txt"}
    return {subset: _find_list(name, data_root, anno_dir) for subset, name in names.items()}


def _find_list(name: str, data_root: Location, anno_dir: "Location | None") -> CorpusList:
    tried = [folder / name for folder in (anno_dir, data_root) if folder is not None]
    for path in tried:
        if path.is_file():
            return CorpusList(path, data_root)
    raise UsageError(f"no list of the videos: tried {', '.join(map(str, tried))}; give --data-root and --anno-dir")


def is_list_of_clips(list_file: Location) -> bool:
    """Whether most lines of a list name clips rather than labelled videos; False for Kinetics' tables.

    Raises:
        UsageError: the list cannot be read, or is empty.

    """
    lines = read_list_lines(list_file)
    num_clips = sum(_parse_clip_line(line) is not None for _, line in lines)
    return 2 * num_clips > len(lines) and "youtube_id" not in lines[0][1]


def _parse_clip_line(line: str) -> ClipName | None:
    """Parse `<id>,<start>,<end>`, with times in milliseconds; an id may contain commas."""
    name, *times = line.rsplit(",", 2)
    numbers = [number for time in times if (number := whole_number(time, most=_LAST_MS)) is not None]
    return ClipName(name, *numbers) if len(numbers) == 2 else None


def listed_clips(list_file: Location, *, data_root: Location) -> list[Source]:
    """The videos whose clips a list names, in order of their ids; a malformed line makes its video unusable.

    Args:
        list_file: such as training.txt.
        data_root: holds the files `v_<id>_<start>_<end>.mp4`, directly or in a folder training or train.

    Raises:
        UsageError: all lines are malformed, or the clips cannot be found.

    """
    lines = read_list_lines(list_file)
    parsed = [(number, line, _parse_clip_line(line)) for number, line in lines]
    names = [name for _, _, name in parsed if name]
    wrong = [(number, line) for number, line, name in parsed if not name]
    bad = [bad_row(list_file, number, f"{line!r} is not <id>,<start>,<end> in milliseconds") for number, line in wrong]
    require_good_rows(bad, num_rows=len(lines))
    without_a_clip = {line.rsplit(",", 2)[0] for _, line in wrong}
    folder = _folder_of_clips(data_root, names)
    videos = [
        clips_source(video, [folder / _file_name(name) for name in group])
        for video, group in groupby(sorted(set(names)), key=lambda name: name.video_id)
        if video not in without_a_clip
    ]
    return sorted([*videos, *bad], key=lambda source: source.video_id)


def clips_source(name: str, clips: Sequence[Location]) -> Source:
    """A video that another tool cut, given its clips in time order, which all lie in one folder."""
    pattern = clips[0].parent / f"v_{name}_*.mp4"
    return Source(video_id=name, path=pattern, clips=tuple(clips), obstacle=name_obstacle(name, str(pattern)))


def _file_name(name: ClipName) -> str:
    return clip_name(name.video_id, start_ms=name.start_ms, end_ms=name.end_ms)


def _folder_of_clips(data_root: Location, names: Sequence[ClipName]) -> Location:
    """The folder that contains the first clip that can be found; in a bucket, each lookup is a request."""
    folders = [data_root / name if name else data_root for name in _CLIP_FOLDERS]
    for name in names if is_local(data_root) else names[:_MOST_REQUESTS]:
        for folder in folders:
            if is_there(folder / _file_name(name)):
                return folder
    raise UsageError(
        f"none of the list's clips, such as {_file_name(names[0])}, is in {', '.join(map(str, folders))}; set "
        "--data-root to their folder"
    )


def labelled_videos(list_file: Location, *, data_root: Location, id_rule: IdRule = "stem") -> list[Source]:
    """The videos of a list, in order of their ids; whether the files exist is not checked.

    A malformed line, or a video with two labels, becomes a source with an obstacle.

    Args:
        list_file: one `<path> <label>` or `<path> <class name>` per line. The label follows the last blank, or a tab,
            so that names may contain blanks. Class names are numbered in sorted order.
        data_root: the folder to which relative paths refer.
        id_rule: how ids are made; see `video_id`.

    Raises:
        UsageError: all lines are malformed, or half of the labels are names and half are numbers.
        HicoError: two videos have the same id.

    """
    rows = [_LabelledRow(number, line, *_path_and_label(line)) for number, line in read_list_lines(list_file)]
    numbered = _is_numbered([row for row in rows if row.name], list_file)
    names = sorted({row.label for row in rows if row.name and is_plain_name(row.label) and not row.label.isdecimal()})
    number_of = {} if numbered else {name: number for number, name in enumerate(names)}

    def source_of(row: _LabelledRow) -> Source:
        label = whole_number(row.label, most=_LAST_LABEL) if numbered else number_of.get(row.label)
        if not row.name or label is None:
            what = "a whole number" if numbered else "the name of a class"
            why = f"{row.line!r} is not <path> <label>, where the label is {what} in UTF-8, as in other lines"
            return bad_row(list_file, row.number, why)
        try:
            path = locate(row.name) if "://" in row.name else data_root / row.name
        except UsageError as error:
            return bad_row(list_file, row.number, str(error))
        name = None if numbered else row.label
        return listed_video(path, label, name, data_root=data_root, id_rule=id_rule)

    return listed_videos(map(source_of, rows))


class _LabelledRow(NamedTuple):
    """A line of a list; if it has no label, its name is empty."""

    number: int
    line: str
    name: str
    label: str


def _path_and_label(line: str) -> tuple[str, str]:
    """PATH LABEL, or PATH, tab, LABEL; a third column is the group, which `hico compare` alone needs."""
    if "\t" not in line:
        name, _, label = line.rpartition(" ")
        return name.strip(), label.strip()
    columns = [column for column in map(str.strip, line.split("\t")) if column]  # tabs may align the columns
    return (columns[0], columns[1]) if len(columns) > 1 else ("", "")


def _is_numbered(rows: Sequence[_LabelledRow], list_file: Location) -> bool:
    """Whether labels are whole numbers rather than names, judged by the majority of a list's labels.

    Raises:
        UsageError: there are as many numbers as names.

    """
    kinds = [row.label.isdecimal() for row in rows]
    if rows and 2 * sum(kinds) == len(kinds):
        odd = rows[kinds.index(not kinds[0])]
        raise UsageError(
            f"{list_file}, line {odd.number}: {odd.line!r} is not <path> <label>; labels must be whole numbers in all "
            "lines, or class names in all"
        )
    return 2 * sum(kinds) > len(kinds)


def listed_video(path: Location, label: int, class_name: str | None, *, data_root: Location, id_rule: IdRule) -> Source:
    """The video named by a valid line."""
    path, base = absolute(path), absolute(data_root / "x").parent
    return Source(video_id=video_id(path, rule=id_rule, base=base), path=path, label=label, class_name=class_name)


def listed_videos(rows: Iterable[Source]) -> list[Source]:
    """The videos of all lines of a list, in order of their ids, each once.

    Raises:
        UsageError: none of them can be used.
        HicoError: two videos have the same id.

    """
    videos = unique_sources(rows)
    require_good_rows([video for video in videos if video.obstacle], num_rows=len(videos))
    return videos


def require_some(videos: Sequence[Source], *, named_by: str, data_root: Location) -> None:
    """Check that a list belongs to a folder, so that a wrong folder does not produce a failure for every video.

    Args:
        videos: the videos of the list.
        named_by: the list's name, for the message.
        data_root: the folder to which relative paths refer; a bucket is not checked.

    Raises:
        UsageError: none of the listed videos exists.

    """
    named = [video for video in videos if not video.obstacle]
    if is_local(data_root) and named and not any(is_there(video.path) for video in named):
        raise UsageError(
            f"{named_by}: none of its videos exists (the first would be {named[0].path}); "
            "set --data-root to the base folder of the paths"
        )

"""Lists that come with a corpus: of clips (`<id>,<start>,<end>` a line) or of labelled videos (`<path> <label>`)."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from hico_core.corpus.adopt import FoundVideo
from hico_core.corpus.ids import ClipName, Source, clip_name, video_id
from hico_core.corpus.records import Subset
from hico_core.corpus.storage import Location, locate
from hico_core.errors import HicoError, UsageError

# Where clips lie, seen from the folder of their corpus: the authors' README and their code differ.
_CLIP_FOLDERS = ("training", "train", "")


class CorpusList(NamedTuple):
    """A list and the folder that its names are seen from."""

    list_file: Location
    data_root: Location


def find_training_list(data_root: Location, anno_dir: "Location | None", *, trimmed: bool) -> CorpusList:
    """The list of the training videos in a folder tree like the authors'.

    Args:
        data_root: where the videos or clips lie.
        anno_dir: where lists lie; the authors' code looks there or in `data_root`.
        trimmed: look for Kinetics' list of labelled videos instead of the list of clips.

    Raises:
        UsageError: there is none; names what was tried.

    """
    return _find_list("kinetics400_train_list.txt" if trimmed else "training.txt", data_root, anno_dir)


def find_labelled_lists(data_root: Location, anno_dir: "Location | None", dataset: str) -> dict[Subset, CorpusList]:
    """The lists of the videos to train and to test on, in a folder tree like the authors'.

    Args:
        data_root: where the videos lie.
        anno_dir: where lists lie, else in `data_root`.
        dataset: hmdb51 or ucf101, with which the names of the lists begin.

    Raises:
        UsageError: one is missing; names what was tried.

    """
    names: dict[Subset, str] = {"train": f"{dataset}_train_list.txt", "test": f"{dataset}_test_list.txt"}
    return {subset: _find_list(name, data_root, anno_dir) for subset, name in names.items()}


def _find_list(name: str, data_root: Location, anno_dir: "Location | None") -> CorpusList:
    tried = [folder / name for folder in (anno_dir, data_root) if folder is not None]
    for path in tried:
        if path.is_file():
            return CorpusList(path, data_root)
    raise UsageError(f"no list of the videos: tried {', '.join(map(str, tried))}; give --data-root and --anno-dir")


def _numbered_lines(list_file: Location) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, with their numbers.

    Raises:
        UsageError: the list cannot be read, or has none.

    """
    try:
        lines = list_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{list_file}: cannot be read as a list ({error})") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise UsageError(f"{list_file}: is empty")
    yield from numbered


def is_list_of_clips(list_file: Location) -> bool:
    """Whether a list is of clips rather than of labelled videos, from its first line."""
    _, line = next(_numbered_lines(list_file))
    return _parse_clip_line(line) is not None


def _parse_clip_line(line: str) -> ClipName | None:
    """`<id>,<start>,<end>`, in milliseconds; an id may hold commas."""
    name, *times = line.rsplit(",", 2)
    if len(times) != 2 or not all(time.isdecimal() for time in times):
        return None
    return ClipName(name, int(times[0]), int(times[1]))


def listed_clips(list_file: Location, *, data_root: Location, subset: Subset = "train") -> list[FoundVideo]:
    """The clips that a list names, by video.

    Args:
        list_file: such as training.txt.
        data_root: where the files `v_<id>_<start>_<end>.mp4` lie, or its folder training or train.
        subset: what the videos are for.

    Raises:
        UsageError: a line is something else, or the first clip is nowhere.

    """
    names: list[ClipName] = []
    for number, line in _numbered_lines(list_file):
        name = _parse_clip_line(line)
        if name is None:
            raise UsageError(f"{list_file}, line {number}: {line!r} is not <id>,<start>,<end> in milliseconds")
        names.append(name)
    folder = _folder_of_clips(data_root, names[0])
    return [
        FoundVideo(video, subset, [folder / _file_name(name) for name in group])
        for video, group in groupby(sorted(names), key=lambda name: name.video_id)
    ]


def _file_name(name: ClipName) -> str:
    return clip_name(name.video_id, start_ms=name.start_ms, end_ms=name.end_ms)


def _folder_of_clips(data_root: Location, first: ClipName) -> Location:
    folders = [data_root / name if name else data_root for name in _CLIP_FOLDERS]
    for folder in folders:
        if (folder / _file_name(first)).exists():
            return folder
    raise UsageError(f"the list's first clip, {_file_name(first)}, is not in {', '.join(map(str, folders))}")


def labelled_videos(list_file: Location, *, data_root: Location) -> Sequence[Source]:
    """The videos of a list, in order of their ids. They are not looked for here.

    Args:
        list_file: `<path> <label>` a line; a path may hold blanks, the label is what follows the last one.
        data_root: where relative paths begin.

    Raises:
        UsageError: a line is something else.
        HicoError: two videos have one id.

    """
    by_id: dict[str, Source] = {}
    for number, line in _numbered_lines(list_file):
        name, _, label = line.rpartition(" ")
        if not name or not label.isdecimal():
            raise UsageError(f"{list_file}, line {number}: {line!r} is not <path> <label>, the label a whole number")
        path = locate(name.strip()) if "://" in name else data_root / name.strip()
        source = Source(video_id(path), path, int(label))
        known = by_id.setdefault(source.video_id, source)
        if known.path != path:
            raise HicoError(f"{known.path} and {path} have one id, {source.video_id!r}: rename one of them")
    return [by_id[name] for name in sorted(by_id)]

"""Lists that come with a corpus: of clips (`<id>,<start>,<end>` a line) or of labelled videos (`<path> <label>`)."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from hico_core.corpus.addresses import Location, absolute, locate
from hico_core.corpus.finding import read_list_lines
from hico_core.corpus.ids import ClipName, IdRule, Source, clip_name, name_obstacle, unique_sources, video_id
from hico_core.corpus.records import Subset
from hico_core.errors import UsageError

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


def is_list_of_clips(list_file: Location) -> bool:
    """Whether a list is of clips rather than of labelled videos, from its first line.

    Raises:
        UsageError: the list cannot be read, or is empty.

    """
    _, line = read_list_lines(list_file)[0]
    return _parse_clip_line(line) is not None


def _parse_clip_line(line: str) -> ClipName | None:
    """`<id>,<start>,<end>`, in milliseconds; an id may hold commas."""
    name, *times = line.rsplit(",", 2)
    if len(times) != 2 or not all(time.isdecimal() for time in times):
        return None
    return ClipName(name, int(times[0]), int(times[1]))


def listed_clips(list_file: Location, *, data_root: Location) -> list[Source]:
    """The videos whose clips a list names, in order of their ids.

    Args:
        list_file: such as training.txt.
        data_root: where the files `v_<id>_<start>_<end>.mp4` lie, or its folder training or train.

    Raises:
        UsageError: a line is something else, or the first clip is nowhere.

    """
    names: list[ClipName] = []
    for number, line in read_list_lines(list_file):
        name = _parse_clip_line(line)
        if name is None:
            raise UsageError(f"{list_file}, line {number}: {line!r} is not <id>,<start>,<end> in milliseconds")
        names.append(name)
    folder = _folder_of_clips(data_root, names[0])
    return [
        clips_source(video, [folder / _file_name(name) for name in group])
        for video, group in groupby(sorted(set(names)), key=lambda name: name.video_id)
    ]


def clips_source(name: str, clips: Sequence[Location]) -> Source:
    """A video that another tool cut, from its clips in time order, which lie in one folder."""
    pattern = clips[0].parent / f"v_{name}_*.mp4"
    return Source(name, pattern, clips=tuple(clips), obstacle=name_obstacle(name, str(pattern)))


def _file_name(name: ClipName) -> str:
    return clip_name(name.video_id, start_ms=name.start_ms, end_ms=name.end_ms)


def _folder_of_clips(data_root: Location, first: ClipName) -> Location:
    folders = [data_root / name if name else data_root for name in _CLIP_FOLDERS]
    for folder in folders:
        if (folder / _file_name(first)).exists():
            return folder
    raise UsageError(f"the list's first clip, {_file_name(first)}, is not in {', '.join(map(str, folders))}")


def labelled_videos(list_file: Location, *, data_root: Location, id_rule: IdRule = "stem") -> list[Source]:
    """The videos of a list, in order of their ids. They are not looked for here.

    Args:
        list_file: `<path> <label>` a line, or `<path> <class name>`. What follows the last blank is the label, or, so
            that names may hold blanks, what follows a tab. Names are numbered in their order.
        data_root: where relative paths begin.
        id_rule: how ids are made, see `video_id`.

    Raises:
        UsageError: a line is something else.
        HicoError: two videos have one id, or one video has two labels.

    """
    lines: list[tuple[str, str]] = []
    for number, line in read_list_lines(list_file):
        name, _, label = (part.strip() for part in line.rpartition("\t" if "\t" in line else " "))
        if not name or (lines and label.isdecimal() != lines[0][1].isdecimal()):
            raise UsageError(
                f"{list_file}, line {number}: {line!r} is not <path> <label>, with a whole number in all lines or a "
                "class name in all"
            )
        lines.append((name, label))
    class_names = sorted({label for _, label in lines if not label.isdecimal()})
    number_of = {name: number for number, name in enumerate(class_names)}
    base = absolute(data_root / "x").parent
    sources: list[Source] = []
    for name, label in lines:
        path = absolute(locate(name) if "://" in name else data_root / name)
        source = Source(video_id(path, rule=id_rule, base=base), path)
        named = label in number_of
        sources.append(
            source._replace(label=number_of[label], class_name=label) if named else source._replace(label=int(label))
        )
    return unique_sources(sources)


def require_some(videos: Sequence[Source], *, named_by: str, data_root: Location) -> None:
    """See that a list goes with a folder, so that a wrong one does not give a failure for each video.

    Args:
        videos: of the list.
        named_by: the list, for a person.
        data_root: where relative paths begin. In a bucket nothing is looked for.

    Raises:
        UsageError: no video is where the list says.

    """
    if isinstance(data_root, Path) and videos and not any(video.path.exists() for video in videos):
        raise UsageError(
            f"{named_by}: not one of its videos is there (the first would be {videos[0].path}); "
            "name the folder that its paths begin in with --data-root"
        )

"""Where commands that test features or classifiers take labelled videos from: the index, or lists."""

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from hico_cli.console import complain
from hico_core.corpus.addresses import Location, locate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hico_core.corpus.records import Subset
    from hico_core.transfer.labelled import LabelledVideo

ListFolder = Annotated[
    str | None,
    typer.Option("--data-root", metavar="DIR", help="Where the videos of lists lie. Default: beside the list."),
]

LISTS = (
    "A list: PATH LABEL a line, UCF101's trainlist01.txt, Kinetics' .csv, or a pattern of HMDB51's "
    "'*_test_split1.txt'. May be repeated, once a split. Default: the index."
)


class LabelledSet(NamedTuple):
    """Videos whose classes are known, and label -> name of those classes that have one."""

    videos: "list[LabelledVideo]"
    classes: dict[int, str]
    num_bad: int = 0  # lines of the list that cannot be used; each was told


def labelled(
    lists: "list[str] | None",
    *,
    place: "Location",
    subset: "Subset",
    data_root: str | None,
    known: "Mapping[int, str] | None" = None,
) -> list[LabelledSet]:
    """The labelled videos of each list, or, without lists, those of a subset of the index.

    Each line of a list that cannot be used is told in a line.

    Args:
        lists: as `hico_core.corpus.benchmark_lists.read_split` takes them.
        place: the workspace.
        subset: of the index, or of a list that holds several.
        data_root: where the videos of lists lie; None: beside the list.
        known: label -> name of the classes of the other side, by which lists are numbered; None: those of the index, of
            a list that shares any of them.

    """
    from hico_core.corpus.benchmark_lists import numbered_as, read_split
    from hico_core.corpus.index import read_class_names
    from hico_core.transfer.labelled import labelled_of_index, labelled_of_list

    of_index = read_class_names(place) if known is None else known
    if not lists:
        return [LabelledSet(labelled_of_index(place, subset), dict(of_index))]
    found = []
    for given in lists:
        base = locate(given).parent if data_root is None else locate(data_root)
        split = read_split(given, data_root=base, subset=subset)
        of_one_corpus = known is not None or set(split.classes.values()) & set(of_index.values())
        split = numbered_as(split, of_index if of_one_corpus else {})
        bad = [video for video in split.videos if video.obstacle]
        for video in bad:
            complain(f"{video.path}: {video.obstacle}; left out")
        found.append(LabelledSet(labelled_of_list(split.videos), split.classes, len(bad)))
    return found

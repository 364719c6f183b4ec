"""Where commands that test features or classifiers take labelled videos from: the index, or lists."""

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from hico_core.corpus.addresses import Location, locate

if TYPE_CHECKING:
    from hico_core.corpus.records import Subset
    from hico_core.transfer.labelled import LabelledVideo

ListFolder = Annotated[
    str | None,
    typer.Option("--data-root", metavar="DIR", help="Where the videos of lists lie. Default: beside the list."),
]

LISTS = (
    "A list: `PATH LABEL` a line, UCF101's trainlist01.txt, Kinetics' .csv, or a pattern of HMDB51's "
    "'*_test_split1.txt'. May be repeated, once a split. Default: the index."
)


class LabelledSet(NamedTuple):
    """Videos whose classes are known, and the names of the classes where a list has them."""

    videos: "list[LabelledVideo]"
    classes: list[str] | None


def labelled(
    lists: "list[str] | None", *, place: "Location", subset: "Subset", data_root: str | None
) -> list[LabelledSet]:
    """The labelled videos of each list, or, without lists, those of a subset of the index."""
    from hico_core.corpus.splits import read_split
    from hico_core.transfer.labelled import labelled_of_index, labelled_of_list

    if not lists:
        return [LabelledSet(labelled_of_index(place, subset), None)]
    found = []
    for given in lists:
        base = locate(given).parent if data_root is None else locate(data_root)
        split = read_split(given, data_root=base, subset=subset)
        found.append(LabelledSet(labelled_of_list(split.videos), split.classes))
    return found

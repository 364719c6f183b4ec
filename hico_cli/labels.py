"""The source of labelled videos for commands that test features or classifiers: the index, or lists."""

from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import warn
from hico_core.base.addresses import Location
from hico_core.base.choices import Subset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hico_core.transfer.evaluation.labelled import LabelledSet

ListFolder = Annotated[
    str | None,
    typer.Option(
        "--data-root", metavar="DIR", help="Folder of the videos in the lists. Default: the folder of the list."
    ),
]

LIST = (
    "A list has one PATH LABEL per line, or is UCF101's trainlist01.txt, Kinetics' .csv, or a pattern for HMDB51's "
    "lists: '*_test_split1.txt'."
)
LISTS = f"{LIST} May be repeated, once per split. Default: the index."


def labelled(
    lists: "list[str] | None",
    *,
    place: "Location",
    subset: "Subset",
    data_root: str | None,
    known: "Mapping[int, str] | None" = None,
) -> "list[LabelledSet]":
    """The labelled videos of each list or of the index, see `labelled_sets`; a bad line is a warning."""
    from hico_core.transfer.evaluation.labelled import labelled_sets

    return labelled_sets(
        lists,
        root=place,
        subset=subset,
        data_root=data_root,
        known=known,
        on_bad=lambda video: warn(f"{video.path}: {video.obstacle}; left out"),
    )


def labelled_sides(
    train: "list[str] | None", test: "list[str] | None", *, place: "Location", data_root: str | None
) -> "tuple[list[LabelledSet], list[LabelledSet]]":
    """The training and the test videos of each split; those to test are numbered as those to train on."""
    to_train = labelled(train, place=place, subset="train", data_root=data_root)
    to_test = list["LabelledSet"]()
    for one, lists in zip(to_train, [[listed] for listed in test] if test else [None], strict=True):
        to_test += labelled(lists, place=place, subset="test", data_root=data_root, known=one.classes or None)
    return to_train, to_test

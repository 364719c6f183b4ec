"""The videos of a training: those of the workspace's index, or those that a file of the authors lists."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import typer

from hico_cli.config import warn_about
from hico_cli.console import report_failed, video_progress
from hico_cli.options import is_one_of_several, refuse_unused
from hico_core.base.addresses import Location, locate_root
from hico_core.base.choices import Subset

if TYPE_CHECKING:
    from hico_core.config import Config, FinetuneConfig
    from hico_core.config.authors.reading import AuthorsConfig
    from hico_core.corpus.sources.lists import CorpusList


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The options that say where the videos of a training are, as typed."""

    root: str
    data_root: str | None
    anno_dir: str | None
    dry_run: bool
    as_json: bool


def indexed_data(
    context: typer.Context,
    given: Data,
    authors: "AuthorsConfig[Config] | AuthorsConfig[FinetuneConfig] | None",
    find: "Callable[[Location, Location | None], Mapping[Subset, CorpusList]]",
) -> tuple[Location, int]:
    """Index the videos of an authors' file unless they are indexed; under torchrun, that has been done already.

    Args:
        context: deletes, at its end, what is made for a dry run.
        given: the options that say where the videos are.
        authors: the content of their file; None: the configuration is not one of theirs.
        find: data_root, anno_dir -> the list of each subset.

    Returns:
        The workspace, and the number of videos that failed.

    """
    place = locate_root(given.root)
    if authors is None:
        refuse_unused(context, "data_root", "anno_dir", why="needs an authors' --config; else use `hico index --list`")
    if authors is None or is_one_of_several():
        return place, 0
    warn_about(authors)
    if given.dry_run and (given.data_root is not None or not (place / "index.parquet").exists()):
        # A temporary index; ROOT stays unchanged.
        place = Path(context.with_resource(TemporaryDirectory(prefix="hico-dry-run-")))
    from hico_core.corpus.listed import add_their_data

    num_failed = add_their_data(
        authors,
        place,
        data=authors.config.data,
        data_root=given.data_root,
        anno_dir=given.anno_dir,
        find=find,
        progress=video_progress(as_json=given.as_json),
    )
    report_failed(num_failed, root=place)
    return place, num_failed

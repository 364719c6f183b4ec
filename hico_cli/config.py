"""`hico config`: what recipes there are, what they hold, how they differ, and whether a file is right."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import complain

if TYPE_CHECKING:
    from hico_core.authors_config import AuthorsConfig
    from hico_core.config import Config

config = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Recipes: list, show, compare and check configurations."
)

_Name = Annotated[str, typer.Argument(metavar="RECIPE|FILE", help="A recipe such as hacs-hico-s, or a YAML file.")]


def load_named(name: str) -> "Config":
    """A recipe by its name, or a file, ours over the default recipe or one of the authors'."""
    from hico_core.authors_config import load_any_config
    from hico_core.config import preset, preset_names

    return preset(name) if name in preset_names() else load_any_config(Path(name), base="hacs-hico-s")[0]


@config.command("list")
def list_recipes() -> None:
    """Name all recipes, one a line."""
    from hico_core.config import preset_names

    print(*preset_names(), sep="\n")


@config.command()
def show(name: _Name) -> None:
    """Print a whole configuration as YAML."""
    from hico_core.config import dump_config

    print(dump_config(load_named(name)), end="")


@config.command()
def diff(one: _Name, other: _Name) -> None:
    """Print the settings in which two configurations differ, one a line: key, first value, second value."""
    from hico_core.config import flat_settings

    first, second = flat_settings(load_named(one)), flat_settings(load_named(other))
    for key, value in first.items():
        if value != second[key]:
            print(f"{key}: {value} -> {second[key]}")


@config.command()
def validate(path: Annotated[Path, typer.Argument(help="A YAML file, as for hico pretrain --config.")]) -> None:
    """Say whether a file is a configuration; one line names what is wrong with it (exit code 2)."""
    from hico_core.authors_config import load_any_config

    _, authors = load_any_config(path, base="hacs-hico-s")
    if authors is not None:
        complain_about(authors, path)
    print(f"{path}: is in order")


def complain_about(authors: "AuthorsConfig", path: Path) -> None:
    """Say what of a file of the authors does not count here, and what one would not expect."""
    for note in authors.notes:
        complain(f"{path}: {note}")
    if authors.ignored:
        complain(f"{path}: ignored, without a meaning here: {', '.join(authors.ignored)}")

"""`hico config`: lists, shows, compares and validates recipes and configuration files."""

import difflib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import result, warn
from hico_cli.options import Json
from hico_core.base.errors import UsageError, counted

if TYPE_CHECKING:
    from hico_core.config import Config, FinetuneConfig
    from hico_core.config.authors.reading import AuthorsConfig, Loaded

logger = logging.getLogger(__name__)

config = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="List, show, compare and check configurations."
)

_Name = Annotated[str, typer.Argument(metavar="RECIPE|FILE", help="A recipe such as hacs-hico-s, or a YAML file.")]


def load_named(name: str) -> "Config | FinetuneConfig":
    """Load a recipe by name, or a file: ours, over the default recipe, or one of the authors'."""
    from hico_core.config import finetuning_preset_names, load_finetuning_config, preset_names

    if name in preset_names():
        return load_pretraining(name)
    if name in finetuning_preset_names():
        return load_finetuning_config(base=name)
    _require_file(name)
    return _load_file(Path(name)).config


def load_pretraining(name: str) -> "Config":
    """Load a pretraining recipe or file.

    Raises:
        UsageError: it is for finetuning, or does not exist.

    """
    from hico_core.config import finetuning_preset_names, preset, preset_names
    from hico_core.config.authors.pretraining_keys import load_any_config

    if name in preset_names():
        return preset(name)
    if name in finetuning_preset_names():
        raise UsageError(f"{name}: is a recipe for finetuning; choose one for pretraining (`hico config list`)")
    _require_file(name)
    return load_any_config(Path(name), base="hacs-hico-s").config


def _require_file(name: str) -> None:
    """Check that a name that is not a recipe is a file.

    Raises:
        UsageError: it is not; names the most similar recipe.

    """
    from hico_core.config import finetuning_preset_names, preset_names

    if not Path(name).exists():
        (near,) = difflib.get_close_matches(name, [*preset_names(), *finetuning_preset_names()], n=1, cutoff=0)
        raise UsageError(f"{name}: neither a recipe nor a file; the nearest recipe is {near} (`hico config list`)")


def _load_file(path: Path) -> "Loaded[Config] | Loaded[FinetuneConfig]":
    from hico_core.config.authors.finetuning_keys import is_finetuning, load_any_finetuning
    from hico_core.config.authors.pretraining_keys import load_any_config

    if is_finetuning(path):
        return load_any_finetuning(path, base="finetune-hmdb51")
    return load_any_config(path, base="hacs-hico-s")


@config.command("list")
def list_recipes(json: Json = False) -> None:
    """List all recipes, one per line."""
    from hico_core.config import finetuning_preset_names, preset_names

    names = [*preset_names(), *finetuning_preset_names()]
    result("\n".join(names), {"recipes": names}, as_json=json)


@config.command()
def encoders(json: Json = False) -> None:
    """List the encoders that --encoder and model.encoder accept, with their input, output and cost."""
    from dataclasses import asdict

    from hico_core.encoders.table import FAMILIES
    from hico_core.encoding.cost import list_encoders

    rows = list_encoders()
    cells = [("name", "M parameters", "GFLOPs", "frames", "pixels", "gives", "trains", "licence")]
    for row in rows:
        frames = f"{row.num_frames}" if row.takes_other_windows else f"exactly {row.num_frames}"
        shown = (frames, f"{row.size}", f"{row.gives} of {row.feature_dim}", "yes" if row.trains else "no")
        cells.append((row.name, f"{row.parameters / 1e6:.2f}", f"{row.gflops_per_window:.1f}", *shown, row.licence))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines += ["", *(f"{name}: {what}" for name, what in FAMILIES.items())]
    result("\n".join(lines), {"encoders": [asdict(row) for row in rows], "families": FAMILIES}, as_json=json)


@config.command()
def show(name: _Name, json: Json = False) -> None:
    """Print a whole configuration as YAML."""
    from hico_core.config import dump_config

    settings = load_named(name)
    result(dump_config(settings).rstrip("\n"), settings.model_dump(mode="json"), as_json=json)


@config.command()
def diff(one: _Name, other: _Name, json: Json = False) -> None:
    """Print the settings in which two configurations differ, one per line: key, first value, second value."""
    from hico_core.config import flat_settings

    first, second = flat_settings(load_named(one)), flat_settings(load_named(other))
    if first.keys() != second.keys():
        raise UsageError(f"{one} and {other}: one configures pretraining, the other finetuning")
    differing = {key: (value, second[key]) for key, value in first.items() if value != second[key]}
    if differing or json:
        lines = (f"{key}: {old} -> {new}" for key, (old, new) in differing.items())
        result("\n".join(lines), differing, as_json=json)


@config.command()
def validate(
    path: Annotated[Path, typer.Argument(help="A YAML file, as for --config of hico pretrain or hico finetune.")],
    json: Json = False,
) -> None:
    """Check a configuration file. If it is not valid, one line names the first mistake (exit code 2)."""
    authors = _load_file(path).authors
    if authors is not None:
        warn_about(authors)
    result(f"{path}: valid", {"path": str(path), "valid": True}, as_json=json)


def warn_about(authors: "AuthorsConfig[Config] | AuthorsConfig[FinetuneConfig]") -> None:
    """Warn about surprises in a file of the authors, and about keys that have no effect here."""
    origin, ignored = authors.origin, authors.ignored
    for note in authors.notes:
        warn(f"{origin}: {note}")
    if ignored:
        warn(f"{origin}: ignored {counted(len(ignored), 'key')} that hico does not use (`hico --debug` lists them)")
        logger.debug("%s: ignored: %s", origin, ", ".join(ignored))

"""Write docs/reference from the code: commands with their options, settings with their meanings, the Python interface.

`python scripts/reference.py` rewrites the pages; tests/scripts/test_reference.py detects outdated ones.
"""

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.core import TyperCommand, TyperGroup

import hico_core
import hico_core.interop
from hico_cli.main import app
from hico_core.config import Config, FinetuneConfig

FOLDER = Path(__file__).parents[1] / "docs/reference"

_WRITTEN = "<!-- Written by scripts/reference.py from the code: change it there. -->"


def reference_pages() -> dict[str, str]:
    """File name -> text of each page of docs/reference."""
    return {"commands.md": _commands_page(), "settings.md": _settings_page(), "api.md": _api_page()}


def _commands_page() -> str:
    lines = [
        "# Commands",
        "",
        _WRITTEN,
        "",
        "Exit codes: 0 success; 1 runtime error (one line on stderr explains it; `hico --debug` adds the traceback); "
        "2 usage error; 3 finished, but some videos failed; 130 and 143 stopped by Ctrl-C or SIGTERM. Progress goes to "
        "stderr, results to stdout. Options of `hico` itself go before the command: `hico --quiet split videos/`.",
    ]
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    lines += ["", *_options_table(root)]
    for path, command in _leaves(root, ("hico",)):
        lines += ["", f"## {' '.join(path)}", "", *_paragraphs(command.help or "")]
        if examples := re.findall(r"`(hico [^`]+)`", command.epilog or ""):
            lines += ["", "```console", *(f"$ {example}" for example in examples), "```"]
        lines += ["", *_options_table(command)]
    return "\n".join(lines) + "\n"


def _leaves(command: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], TyperCommand]]:
    """The commands that are not groups, in the order of `hico -h`."""
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            yield from _leaves(child, (*path, name))
    elif isinstance(command, TyperCommand):
        yield path, command


def _paragraphs(text: str) -> list[str]:
    """Join each paragraph of a help text into one line, with blank lines between paragraphs."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n")]
    return "\n\n".join(paragraphs).split("\n")


def _options_table(command: TyperCommand | TyperGroup) -> list[str]:
    context = typer.Context(command)
    records = [parameter.get_help_record(context) for parameter in command.params]
    rows = [f"| `{_in_cell(name)}` | {_in_cell(text)} |" for name, text in filter(None, records)]
    return ["| option | meaning |", "|---|---|", *rows]


def _in_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _settings_page() -> str:
    lines = [
        "# Settings",
        "",
        _WRITTEN,
        "",
        "Change a setting with `-o section.key=value`, or in a YAML file for `--config`. The defaults below are those "
        "of the code; a recipe overrides some of them: `hico config show hacs-hico-s` prints all settings of a recipe.",
    ]
    for title, config in (("Pretraining", Config), ("Finetuning", FinetuneConfig)):
        lines += ["", f"## {title}", "", *_settings_table(config, "")]
        for name, field in config.model_fields.items():
            if _is_section(field):
                section: type[BaseModel] = field.annotation  # type: ignore[assignment]
                lines += ["", f"### {name} ({title.lower()})", "", *_paragraphs(section.__doc__ or "")]
                lines += ["", *_settings_table(section, f"{name}.")]
    return "\n".join(lines) + "\n"


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _settings_table(config: type[BaseModel], prefix: str) -> list[str]:
    rows = []
    for name, field in config.model_fields.items():
        if not _is_section(field):
            cells = _values(field), f"`{json.dumps(field.default)}`", field.description or ""
            rows.append(f"| `{prefix}{name}` | " + " | ".join(map(_in_cell, cells)) + " |")
    return ["| setting | values | default | meaning |", "|---|---|---|---|", *rows]


def _values(field: FieldInfo) -> str:
    """The allowed values of a setting in words: `integer or null; > 0`."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [bound for bound in field.metadata if dataclasses.asdict(bound).keys() <= signs.keys()]
    limits = [f"{signs[name]} {limit}" for bound in bounds for name, limit in dataclasses.asdict(bound).items()]
    return "; ".join(filter(None, [_type_in_words(field.annotation), ", ".join(limits)]))


def _type_in_words(kind: Any) -> str:  # noqa: ANN401
    names = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null"}
    if kind in names:
        return names[kind]
    parts = get_args(kind)
    if get_origin(kind) is tuple:
        return f"{len(parts)} {_type_in_words(parts[0])}s"
    if all(isinstance(part, (str, int)) and not isinstance(part, type) for part in parts):  # a Literal
        return " or ".join(f"`{part}`" for part in parts)
    if hasattr(kind, "__metadata__"):  # Annotated
        return _type_in_words(parts[0])
    return " or ".join(_type_in_words(part) for part in parts)


def _api_page() -> str:
    lines = [
        "# Python interface",
        "",
        _WRITTEN,
        "",
        "`from hico_core import ...` loads each name only when it is used. [hico in Python](../python.md) shows these "
        "names at work. `scripts/docs.sh` fills in signatures and arguments when it builds the site; in a checkout, "
        "`help(hico_core.pretrain)` prints those of a name.",
    ]
    for package, others in ((hico_core, []), (hico_core.interop, hico_core.__all__)):
        lines += ["", f"## {package.__name__}"]
        for name in sorted(set(package.__all__) - set(others)):
            lines += ["", f"::: {getattr(package, name).__module__}.{name}", "    options:", "      heading_level: 3"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write all pages."""
    for name, text in reference_pages().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()

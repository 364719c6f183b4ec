"""Options that several commands share."""

import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from hico_cli.console import warn
from hico_core.base.choices import DeviceName, IdRule
from hico_core.base.errors import require_device

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hico_core.corpus.sources.ids import Source

Root = Annotated[
    str, typer.Option("--root", envvar="HICO_ROOT", help="Workspace folder for clips, index, runs and features.")
]

Json = Annotated[bool, typer.Option("--json", help="Print progress and results as JSON.")]

Device = Annotated[
    DeviceName,
    typer.Option(
        "--device",
        parser=require_device,
        metavar="|".join(get_args(DeviceName)),
        rich_help_panel="Where it runs",
        help="auto uses a GPU if there is one.",
    ),
]

Readers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        rich_help_panel="Where it runs",
        help="Processes that read videos; 0: the main process reads them. Default: one per core.",
    ),
]

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        rich_help_panel="Settings",
        help="YAML file with settings that differ from the recipe, or an unchanged file of the authors' code.",
    ),
]

DataRoot = Annotated[
    str | None,
    typer.Option(
        "--data-root",
        metavar="DIR",
        rich_help_panel="Files of the authors' code",
        help="With an authors' --config: index the clips or videos in this folder first.",
    ),
]

AnnoDir = Annotated[
    str | None,
    typer.Option(
        "--anno-dir",
        metavar="DIR",
        rich_help_panel="Files of the authors' code",
        help="Folder of the authors' list files. Default: as in the --config file, below DATA_ROOT.",
    ),
]

Override = Annotated[
    list[str] | None,
    typer.Option(
        "-o", "--override", rich_help_panel="Settings", help="Change a setting: section.key=value; may be repeated."
    ),
]

# `--checkpoint` is the old name, from when there were only files of hico and the authors.
ENCODER_NAMES = ("--encoder", "--checkpoint")
ENCODER_FORM = "NAME=WEIGHTS|FILE|RUN"

Encoder = Annotated[
    str | None,
    typer.Option(
        *ENCODER_NAMES,
        metavar=ENCODER_FORM,
        rich_help_panel="Encoder",
        help="A name from `hico config encoders` with its weights (a file, DEFAULT or random); a .safetensors, .pt, "
        ".pt2 or authors' .pyth file; or a run. Default: ROOT's newest run.",
    ),
]

BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, rich_help_panel="Settings", help="Videos per step, over all processes."),
]

TrainedEncoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="NAME",
        rich_help_panel="Settings",
        help="Encoder to train: s3dg (default), s3dg-tiny (several times faster) or another trainable one from "
        "`hico config encoders`.",
    ),
]

Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs", min=1, rich_help_panel="Settings", help="Passes over the videos; the warm-up is scaled with them."
    ),
]

CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        resolve_path=True,
        rich_help_panel="Buckets",
        help="Folder for local copies of files in buckets. Default: ~/.cache/hico.",
    ),
]

CacheSize = Annotated[
    str,
    typer.Option("--cache-size", metavar="SIZE", rich_help_panel="Buckets", help="Maximum size of the local copies."),
]


Ids = Annotated[
    IdRule,
    typer.Option(
        "--id",
        rich_help_panel="Which videos",
        help="Name videos by file name (stem), or by folders and file name (relpath): d1/0001.mp4 -> d1-0001.",
    ),
]

Recursive = Annotated[
    bool,
    typer.Option(
        "--recursive/--no-recursive",
        rich_help_panel="Which videos",
        help="Search subfolders too, or only the given folder itself.",
    ),
]

FrameRate = Annotated[
    float | None,
    typer.Option(
        "--frame-rate",
        metavar="N",
        rich_help_panel="Which videos",
        help="Treat folders of numbered pictures (img_00001.jpg, ...) as videos with N frames per second.",
    ),
]

Move = Annotated[
    bool,
    typer.Option(
        "--move",
        rich_help_panel="Which videos",
        help="Move videos from another subset to the one given here.",
    ),
]

RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", rich_help_panel="Which videos", help="Retry videos that failed before.")
]


MaxSteps = Annotated[
    int | None, typer.Option("--max-steps", min=1, rich_help_panel="Continuing", help="Stop after this many steps.")
]

Nproc = Annotated[
    int,
    typer.Option(
        "--nproc",
        min=1,
        rich_help_panel="Where it runs",
        help="Processes on this machine, one per GPU; for several machines, use torchrun.",
    ),
]

AllowChanged = Annotated[
    bool,
    typer.Option(
        "--allow-changed",
        rich_help_panel="Continuing",
        help="Resume even if epochs, batch size, number of processes or videos have changed.",
    ),
]


TwoSteps = Annotated[
    bool, typer.Option("--dry-run", help="Run two steps, write nothing, and print times, sizes and memory.")
]

RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT|auto|local",
        rich_help_panel="Where it runs",
        help="Use the Ray cluster with this head node; auto: the cluster of RAY_ADDRESS, or the one this machine "
        "belongs to; local: start one on this machine.",
    ),
]

ShardOf = Annotated[
    str | None,
    typer.Option(metavar="I/N", rich_help_panel="Where it runs", help="Process only part I of N, for job arrays."),
]


def is_one_of_several() -> bool:
    """Whether this process was started by torchrun, or by --nproc, which uses it."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def typed(context: typer.Context) -> tuple[str, ...]:
    """The whole command as typed, which `main` passes on."""
    return tuple(context.obj or ())


def is_first_process() -> bool:
    """Whether this process is the one that reports."""
    return os.environ.get("RANK", "0") == "0"


def refuse_unused(context: typer.Context, *parameters: str, why: str) -> None:
    """Refuse options that have no effect beside the others: if they were ignored, the user would trust a wrong result.

    Args:
        context: the command's context, which knows what was typed.
        parameters: names of the command's parameters.
        why: the end of the message, such as "needs --list".

    Raises:
        typer.BadParameter: one of the parameters was typed.

    """
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in parameters and source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(why, param_hint=parameter.opts[0])


def require_file_name_part(text: str | None, *, option: str) -> None:
    """Check a name that becomes part of a path below the workspace, if it was given: it must name something there.

    Raises:
        typer.BadParameter: it would lead out, or name the folder itself.

    """
    if text is not None and ("/" in text or "\\" in text or text in ("", ".", "..")):
        raise typer.BadParameter(f"{text!r} cannot be part of a file name; use letters and digits", param_hint=option)


def find_videos(
    inputs: "Iterable[str]", *, id_rule: "IdRule", recursive: bool, frame_rate: float | None
) -> "list[Source]":
    """Find the videos given to a command; one line reports the files beside them that are ignored."""
    from hico_core.corpus.sources.finding import describe_passed_over, find_sources

    passed_over: Counter[str] = Counter()
    sources = find_sources(inputs, id_rule=id_rule, recursive=recursive, frame_rate=frame_rate, passed_over=passed_over)
    if passed_over:
        warn(describe_passed_over(passed_over))
    return sources


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def read_size(text: str) -> int:
    """'1.5GB' -> 1_500_000_000 bytes.

    Raises:
        typer.BadParameter: the text is not a size.

    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a size; write 500MB or 1.5GB")
    return int(float(match[1]) * _UNITS[(match[2] or "").upper()])


def read_shard(text: str) -> tuple[int, int]:
    """'2/8' -> (2, 8).

    Raises:
        typer.BadParameter: the text does not have that form, or I is not 1 to N.

    """
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise typer.BadParameter(f"{text!r} must be I/N with I from 1 to N, such as 2/8", param_hint="--shard")
    return int(number), int(count)

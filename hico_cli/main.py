"""`hico`: joins the commands, and turns failures into one line and an exit code."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from hico_cli.compare import compare
from hico_cli.config import config
from hico_cli.console import QUIET, describe_usage_error, warn, write_any_text
from hico_cli.convert import convert
from hico_cli.demo import demo
from hico_cli.doctor import doctor
from hico_cli.evaluate import evaluate
from hico_cli.export_tad import export_tad
from hico_cli.extract_features import extract_features
from hico_cli.features import features
from hico_cli.finetune import finetune
from hico_cli.index import index
from hico_cli.inspect import inspect
from hico_cli.pretrain import pretrain
from hico_cli.probe import probe
from hico_cli.processes import exit_code_of, report_loss, report_warnings_as_lines
from hico_cli.remove import remove
from hico_cli.removed import what_to_type
from hico_cli.report import report
from hico_cli.retrieve import retrieve
from hico_cli.run import run
from hico_cli.split import split
from hico_core.base.errors import HicoError, ProcessLost, UsageError
from hico_core.base.version import __version__
from hico_core.training.launch import leave

app = typer.Typer(
    name="hico",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Turn a folder of untrimmed videos into a pretrained video encoder and its features (HiCo, CVPR 2022).",
)
_ROAD, _RESULTS, _LOOKING, _TOOLS = "Pipeline", "Evaluation", "Inspection", "Tools"

# In the order of `hico -h`, with the text at the end of each command's help.
COMMANDS: list[tuple[str, str, Callable[..., None], Sequence[str]]] = [
    (_ROAD, "run", run, ["hico run videos/ --hours 2"]),
    (_ROAD, "split", split, ["hico split videos/", "hico split s3://bucket/videos --root s3://bucket/hico-data"]),
    (_ROAD, "index", index, ["hico index", "hico index --untrimmed videos/"]),
    (_ROAD, "pretrain", pretrain, ["hico pretrain --dataset hacs", "hico pretrain --nproc 8 --resume"]),
    (_ROAD, "extract-features", extract_features, ["hico extract-features", "hico extract-features --preset thumos"]),
    (_RESULTS, "probe", probe, ["hico probe --train train.txt --test test.txt"]),
    (_RESULTS, "compare", compare, ["hico compare clips.txt --runs", "hico compare clips.txt --encoder s3dg=random"]),
    (_RESULTS, "finetune", finetune, ["hico finetune --recipe finetune-ucf101", "hico finetune --linear"]),
    (_RESULTS, "evaluate", evaluate, ["hico evaluate finetune-hmdb51"]),
    (_RESULTS, "export-tad", export_tad, ["hico export-tad annotations.json --for opentad --checkout ../OpenTAD"]),
    (_LOOKING, "report", report, ["hico report hico-data/runs/hacs-hico-s"]),
    (_LOOKING, "inspect", inspect, ["hico inspect hico-data", "hico inspect encoder.safetensors"]),
    (_LOOKING, "retrieve", retrieve, ["hico retrieve query.mp4 --sheet matches.html"]),
    (_LOOKING, "demo", demo, ["hico demo"]),
    (_TOOLS, "doctor", doctor, ["hico doctor"]),
    (_TOOLS, "convert", convert, ["hico convert hico-data/runs/hacs-hico-s/checkpoints/last.pt encoder.onnx"]),
    (_TOOLS, "remove", remove, ["hico remove dance_01"]),
]
for _panel, _name, _function, _examples in COMMANDS:
    _foot = "**Examples**\n\n" + "\n\n".join(f"`{example}`" for example in _examples)
    app.command(_name, rich_help_panel=_panel, epilog=_foot)(_function)
app.add_typer(features, name="features", rich_help_panel=_LOOKING)
app.add_typer(config, name="config", rich_help_panel=_TOOLS)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hico {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Print a traceback if a command fails, and list ignored configuration keys."),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", envvar=QUIET, help="Print no progress, only warnings and results."),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if quiet:
        os.environ[QUIET] = "1"  # inherited by the processes that this one starts
    if debug:
        logging.getLogger("hico_cli").addHandler(logging.StreamHandler())
        logging.getLogger("hico_cli").setLevel(logging.DEBUG)


def _report_usage(error: typer.TyperException, arguments: Sequence[str]) -> None:
    """Report a mistake on the command line; if nothing was typed, Typer has already printed the help."""
    if error.format_message():
        instead = what_to_type(arguments, getattr(error, "option_name", None))
        warn(instead or describe_usage_error(error), who="first")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 success, 1 failed, 2 wrong usage, 3 some inputs failed, 130 or 143 stopped.

    Args:
        arguments: of the command, as typed; None: those of this process.

    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    report_warnings_as_lines()
    write_any_text()
    try:
        leave(app(arguments, prog_name="hico", standalone_mode=False, obj=["hico", *arguments]) or 0, os.environ)
    except typer.TyperException as error:
        _report_usage(error, arguments)
        sys.exit(error.exit_code)
    except ProcessLost as error:
        report_loss(error)
        leave(1, os.environ)
    except (HicoError, OSError) as error:
        if "--debug" in arguments:
            raise
        # All processes that torchrun started find the same mistake in what was typed.
        warn(str(error), who="first" if isinstance(error, UsageError) else "this")
        leave(exit_code_of(error), os.environ)

"""The record of how a run was started, in its folder: the command, the encoder, and the state of the code in git."""

import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from hico_core.base.storage import write_text
from hico_core.checkpoints.content import EncoderOrigin
from hico_core.config.explain import read_own_json

logger = logging.getLogger(__name__)

STARTED = "started.json"

# The checkout that hico is run from, if any.
_CHECKOUT = Path(__file__).parents[2]


class GitState(BaseModel, frozen=True, extra="forbid"):
    """The commit that is checked out in a folder."""

    commit: str
    is_dirty: bool  # tracked files differ from the commit


class Started(BaseModel, frozen=True, extra="forbid"):
    """The content of started.json."""

    command: list[str]  # as typed; empty if Python code started the run
    encoder: EncoderOrigin | None  # the file of the encoder's first weights; None: they are random
    git: dict[str, GitState]  # of "hico" and of the "folder" where the command was typed, if these are checkouts


def read_started(run_dir: Path) -> Started | None:
    """Read how a run was started; None if it has no record of that.

    Raises:
        HicoError: the file is damaged.

    """
    return read_own_json(run_dir / STARTED, Started)


def write_started(run_dir: Path, *, command: Sequence[str], encoder: EncoderOrigin | None, folder: Path) -> None:
    """Write the record of how a run is started.

    Args:
        run_dir: folder of the run.
        command: as typed.
        encoder: the file that the encoder starts from.
        folder: where the command was typed.

    """
    # A copy of hico that is installed inside the checkout of another project is not part of that project.
    places = {"hico": _CHECKOUT} if (_CHECKOUT / ".git").exists() else {}
    if not folder.is_relative_to(_CHECKOUT):
        places["folder"] = folder
    git = {name: state for name, place in places.items() if (state := git_state(place)) is not None}
    started = Started(command=list(command), encoder=encoder, git=git)
    write_text(run_dir / STARTED, started.model_dump_json(indent=1) + "\n")


def git_state(folder: Path) -> GitState | None:
    """The commit checked out in a folder; None if git is not installed or the folder is no checkout.

    Any other problem with git is only a warning: it is no reason not to train.
    """
    program = shutil.which("git")
    if program is None:
        return None
    command = [program, "--no-optional-locks", "-C", str(folder), "status", "--porcelain=v2", "--branch"]
    done = subprocess.run(
        [*command, "--untracked-files=no"],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    if done.returncode:
        if "not a git repository" not in done.stderr:
            logger.warning("%s: the state of git is not recorded: %s", folder, done.stderr.strip().partition("\n")[0])
        return None
    return parse_status(done.stdout)


def parse_status(text: str) -> GitState | None:
    """Parse the output of `git status --porcelain=v2 --branch`; None if nothing has been committed yet."""
    lines = text.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "(initial)")
    if commit == "(initial)":
        return None
    return GitState(commit=commit, is_dirty=any(not line.startswith("#") for line in lines))

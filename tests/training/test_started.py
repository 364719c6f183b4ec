"""A run records what it was started from; git that is not there, or has nothing checked out, is not a fault."""

import logging
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import TINY, hico
from made_workspaces import untrimmed_workspace

from hico_core.base.errors import HicoError
from hico_core.checkpoints.content import EncoderOrigin
from hico_core.training.started import GitState, git_state, parse_status, read_started, write_started


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("# branch.oid abc\n# branch.head main\n", GitState(commit="abc", is_dirty=False)),
        (
            "# branch.oid abc\n# branch.head (detached)\n1 .M N... 100644 x y z a.py\n",
            GitState(commit="abc", is_dirty=True),
        ),
        ("# branch.oid (initial)\n# branch.head main\n", None),
        ("", None),
    ],
)
def test_what_git_says(text: str, state: GitState | None) -> None:
    assert parse_status(text) == state


def test_a_checkout_before_and_after_a_change(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert git_state(tmp_path) is None
    git(tmp_path, "init", "--quiet")
    assert git_state(tmp_path) is None, "nothing is committed yet"
    (tmp_path / "a").write_text("a")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "--quiet", "-m", "a")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "new").write_text("such as what hico itself writes")
    assert git_state(tmp_path) == GitState(commit=commit, is_dirty=False)
    (tmp_path / "a").write_text("b")
    assert git_state(tmp_path) == GitState(commit=commit, is_dirty=True)
    assert caplog.messages == []
    (tmp_path / ".git" / "index").write_bytes(b"damaged")
    assert git_state(tmp_path) is None
    assert "the state of git is not recorded: fatal:" in caplog.text


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("git") is None
    assert git_state(Path(__file__).parent) is None
    assert caplog.messages == []


def test_what_is_written_is_read(tmp_path: Path) -> None:
    origin = EncoderOrigin(path="/a.pt", sha256="0")
    write_started(tmp_path, command=["hico", "pretrain", "a b"], encoder=origin, folder=tmp_path)
    started = read_started(tmp_path)
    assert started is not None
    assert (started.command, started.encoder, "folder" in started.git) == (["hico", "pretrain", "a b"], origin, False)
    (tmp_path / "started.json").write_text('{"command": 1}')
    with pytest.raises(HicoError, match=r"started.json: is damaged \(command must be a list of values\); remove it"):
        read_started(tmp_path)
    (tmp_path / "started.json").unlink()
    assert read_started(tmp_path) is None


@pytest.mark.videos
def test_a_run_keeps_the_command_that_began_it(tmp_path: Path) -> None:
    root = untrimmed_workspace(tmp_path, videos=2, seconds=6)
    usual = ("pretrain", *TINY, "--epochs", "4", "-o", "data.workers=0")
    command = (*usual, "--name", "one", "--max-steps", "1")
    assert hico(*command, root=root).returncode == 0
    started = read_started(root / "runs/one")
    assert started is not None and started.command == ["hico", *command] and started.encoder is None
    assert hico(*usual, "--name", "one", "--max-steps", "2", "--resume", root=root).returncode == 0
    assert read_started(root / "runs/one") == started
    encoder = root / "runs/one/export/encoder.safetensors"
    warm = ("--name", "two", "--max-steps", "1", "--init-from", encoder)
    assert hico(*usual, *warm, root=root).returncode == 0
    started = read_started(root / "runs/two")
    assert started is not None and started.encoder is not None and started.encoder.path == str(encoder)

"""Each video has a folder of its own while it is taken in, and none afterwards, however that ends."""

import os
import socket
from pathlib import Path

import pytest

from hico_core.corpus.workspace.access import sweep, temporary_folder


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_temporary_folder_needs_no_parent(tmp_path: Path) -> None:
    """On the nodes of a cluster, nobody has made it; nor is there a command that clears it of what the dead left."""
    scratch = tmp_path / "cache/split"
    with temporary_folder(scratch) as folder:
        assert folder.is_dir() and not names_in(folder)
    assert not names_in(scratch)
    other = tmp_path / "other"
    (other / f"split-{socket.gethostname()}-of-the-dead").mkdir(parents=True)
    with temporary_folder(other):
        pass
    assert not names_in(other)


@pytest.mark.parametrize("alone", [True, False])
def test_only_folders_of_dead_processes_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """By their locks: other containers have the same host names, with or without dashes, and numbers of their own."""
    monkeypatch.setattr(socket, "gethostname", lambda: "node-7")
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)  # nobody here
    with temporary_folder(tmp_path) as living:
        elsewhere = tmp_path / "split-elsewhere-1-x"  # alive or dead: its lock may be out of sight
        dead = tmp_path / f"split-node-7-{os.getppid()}-x"
        for folder in (dead, elsewhere):
            folder.mkdir()
            (tmp_path / f".{folder.name}.lock").touch()
        orphan = tmp_path / ".split-node-7-1-committed.lock"
        orphan.touch()
        sweep(tmp_path, alone=alone)
        assert not dead.exists() and orphan.exists() is elsewhere.exists() is not alone
        sweep(tmp_path, alone=True)
        assert sorted(names_in(tmp_path)) == [f".{living.name}.lock", living.name]
        living.rename(tmp_path / "commit-1")  # as a commit does
    assert names_in(tmp_path) == ["commit-1"]

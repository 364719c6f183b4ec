"""Operations on local files work on every file system."""

import sys
from pathlib import Path

import pytest

from hico_core.base.files import sync


@pytest.mark.skipif(sys.platform != "linux", reason="uses /proc")
def test_folders_that_cannot_be_flushed(tmp_path: Path) -> None:
    """As on SMB with an older Linux: nothing can be waited for there, which is no reason to fail; a file's error is."""
    for folder in (Path("/proc"), tmp_path):
        sync(folder)
    with pytest.raises(OSError, match="Invalid argument"):
        sync(Path("/proc/version"))

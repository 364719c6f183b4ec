"""Each format gives back the array that was written, with its shape and type."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from hico_core.base.choices import FileFormat
from hico_core.base.errors import HicoError
from hico_core.transfer.extraction.feature_files import read_array, write_array


@pytest.mark.parametrize("shape", [(3, 4), (1, 1), (3, 4, 1, 2, 2)])  # vectors, one number, feature maps
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("file_format", get_args(FileFormat))
def test_what_is_written_is_read(tmp_path: Path, file_format: FileFormat, dtype: type, shape: tuple[int, ...]) -> None:
    array: np.ndarray = np.random.default_rng(0).normal(size=shape).astype(dtype)
    path = tmp_path / f"a.{file_format}"
    write_array(path, array, np.zeros((len(array), 2)), video_id="a", file_format=file_format)
    found = read_array(path)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("file_format", get_args(FileFormat))
@pytest.mark.parametrize("content", [b"", bytes(600), b"\x80\x02junk", b"text" * 99])
def test_damaged_files_are_named(tmp_path: Path, content: bytes, file_format: FileFormat) -> None:
    """Whatever the libraries that read them raise."""
    path = tmp_path / f"a.{file_format}"
    path.write_bytes(content)
    with pytest.raises(HicoError, match="is damaged"):
        read_array(path)


def test_other_peoples_files_are_named(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "dict.pt")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    for name in ("dict.pt", "array.npz"):
        with pytest.raises(HicoError, match="is damaged"):
            read_array(tmp_path / name)

"""Writes and reads files of features, one per video."""

import pickle
import zipfile
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hico_core.base.choices import FileFormat
from hico_core.base.errors import HicoError

# Exceptions of the libraries that read these files when a file is damaged.
_DAMAGE = (
    *(OSError, ValueError, TypeError, EOFError, KeyError, RuntimeError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, pa.ArrowException),
)


def write_array(path: Path, array: np.ndarray, times: np.ndarray, *, video_id: str, file_format: FileFormat) -> None:
    """Write the features of a video.

    npy: the array alone. npz: `feats` and `times`; OpenTAD reads the former. pt: a tensor.
    parquet: one row per window, with `video_id`, `start_seconds`, `end_seconds` and `feature`; that is a list of
    numbers, or for feature maps a tensor of fixed shape.

    Args:
        path: a file that does not exist yet.
        array: (T, ...).
        times: (T, 2), seconds.
        video_id: of the video.
        file_format: see above.

    """
    with path.open("xb") as opened:
        if file_format == "npy":
            np.save(opened, array)
        elif file_format == "npz":
            np.savez(opened, feats=array, times=times)
        elif file_format == "pt":
            torch.save(torch.from_numpy(array), opened)
        elif file_format == "parquet":
            vectors = array.ndim == 2
            columns = {
                "video_id": pa.array([video_id] * len(array)),
                "start_seconds": pa.array(times[:, 0]),
                "end_seconds": pa.array(times[:, 1]),
                "feature": (
                    pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])
                    if vectors
                    else pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array))
                ),
            }
            pq.write_table(pa.table(columns), opened, compression="zstd")
        else:
            raise ValueError(f"{file_format}: a format that nothing writes")


def read_array(path: Path) -> np.ndarray:
    """Read the features in a file: (T, ...). Those of an .npy file stay on the disk until they are used.

    Raises:
        HicoError: the file is missing, truncated or of another kind.

    """
    file_format = path.suffix.removeprefix(".")
    if file_format not in get_args(FileFormat):
        raise HicoError(f"not a feature file; these end in {', '.join(get_args(FileFormat))}", subject=path)
    try:
        return _read(path, file_format)
    except FileNotFoundError:
        raise HicoError("no such file; run `hico extract-features` again", subject=path) from None
    except _DAMAGE as error:
        raise HicoError(
            f"is damaged ({type(error).__name__}); run `hico extract-features` again", subject=path
        ) from error


def _read(path: Path, file_format: str) -> np.ndarray:
    if file_format == "npy":
        return np.load(path, mmap_mode="r")
    if file_format == "npz":
        with np.load(path) as arrays:
            feats: np.ndarray = arrays["feats"]
            return feats
    if file_format == "pt":
        zipfile.ZipFile(path).close()  # PyTorch also reads other files, and fails in many ways if they are damaged
        tensor = torch.load(path, weights_only=True)
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"a {type(tensor).__name__}, not a tensor")
        return tensor.numpy()
    if file_format == "parquet":
        column = pq.read_table(path, columns=["feature"])["feature"].combine_chunks()
        if isinstance(column, pa.FixedShapeTensorArray):
            maps: np.ndarray = column.to_numpy_ndarray()
            return maps
        flat: np.ndarray = column.flatten().to_numpy()
        return flat.reshape(len(column), -1)
    raise ValueError(f"{file_format}: a format that nothing reads")

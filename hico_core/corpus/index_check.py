"""Check whether hico can have written an index: flipped bits and manual edits produce values that cannot be trusted."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hico_core.corpus.workspace.records import LEAST, LONGEST_SECONDS

# Columns that may contain nulls.
_NULLABLE = frozenset({"class_name", "cuts", "label", "sha256"})


def fault_in(table: pa.Table) -> str | None:
    """What is wrong with the columns of an index that are present, in words; None if hico can have written them."""
    names = set(table.column_names)
    for name in names - _NULLABLE:
        if table[name].null_count:
            return f"{name} has rows without a value"
    for name in names & LEAST.keys():
        if len(table) and pc.min(table[name]).as_py() < LEAST[name]:
            return f"{name} has a value below {LEAST[name]}"
    for name in names & {"start_seconds", "end_seconds", "fps"}:
        low, high = 0.0 if name != "fps" else 1e-6, LONGEST_SECONDS
        inside = pc.and_(pc.greater_equal(table[name], low), pc.less_equal(table[name], high))
        if not pc.all(inside, min_count=0).as_py():  # NaN counts as outside, too
            return f"{name} has a value that is not a {'rate' if name == 'fps' else 'time'}"
    if {"start_seconds", "end_seconds"} <= names and pc.any(
        pc.less(table["end_seconds"], table["start_seconds"])
    ).as_py():
        return "a clip ends before it starts"
    if {"video_id", "clip_index"} <= names:
        return _disorder_in(table)
    return None


def _disorder_in(table: pa.Table) -> str | None:
    """How the rows are out of order, in words; None if grouped by video, with clips numbered from 0 in time order."""
    index = table["clip_index"].to_numpy()
    if not len(index):
        return None
    ids: pa.DictionaryArray = table["video_id"].unify_dictionaries().combine_chunks().dictionary_encode()
    codes = ids.indices.to_numpy()
    same = codes[1:] == codes[:-1]
    if index[0] != 0 or (index[1:] != np.where(same, index[:-1] + 1, 0)).any():
        return "rows are not in order"
    if len(np.unique(codes)) != 1 + (~same).sum():
        return "rows of one video are not together"
    if "start_seconds" in table.column_names:
        starts = table["start_seconds"].to_numpy()
        if (same & (starts[1:] < starts[:-1])).any():
            return "clips of a video are not in time order"
    return None

"""`hico index`: clips -> index.parquet and training.txt."""

from hico_cli.console import raising_on_signals, result
from hico_cli.options import DEFAULT_ROOT, Json, Root


def index(root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Index the clips of all videos that were split: a row per clip, and the authors' list files.

    Writes ROOT/index.parquet and ROOT/training.txt (validation.txt, testing.txt for the other subsets).
    """
    from hico_core.corpus.index import build_index

    with raising_on_signals("stopped; the old index is as it was"):
        summary = build_index(root)
    left_out = f"; {summary.num_failed} videos that failed are left out" if summary.num_failed else ""
    text = f"{summary.num_clips} clips of {summary.num_videos} videos in {root / 'index.parquet'}{left_out}"
    result(text, {**summary._asdict(), "index": str(root / "index.parquet")}, as_json=json)

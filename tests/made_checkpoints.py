"""Checkpoints of models that were not trained."""

from pathlib import Path
from typing import Any

from hico_core.checkpoints.content import checkpoint_of, write_of_run


def save_checkpoint(path: Path, **parts: Any) -> None:  # noqa: ANN401
    """Write what `checkpoint_of` makes of these parts."""
    write_of_run(path, checkpoint_of(**{"scaling": {}, **parts}))

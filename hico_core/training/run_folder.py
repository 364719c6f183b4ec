"""The folder of a run: it holds one configuration, from its beginning to its end."""

import logging
from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel

from hico_core.config import compose_config, dump_config, flat_settings, read_yaml_file
from hico_core.corpus.files import write_text
from hico_core.errors import UsageError

logger = logging.getLogger(__name__)


def open_run(
    run_dir: Path, config: BaseModel, *, resume: bool, free: Collection[str], changeable: Collection[str] = ()
) -> None:
    """Make a run's folder, or check that an old one is of the same run.

    Args:
        run_dir: the folder.
        config: of the run.
        resume: go on with an old one.
        free: settings that may differ on resuming, since they do not change what comes out.
        changeable: settings that may differ and change what comes out; the log says so.

    Raises:
        UsageError: the folder is there and `resume` is not given, or it is of another configuration.

    """
    written = run_dir / "config.yaml"
    if not written.exists():
        write_text(written, dump_config(config))
        return
    if not resume:
        raise UsageError(f"{run_dir}: this run is there already; go on with --resume, or give another --name")
    old = flat_settings(compose_config(type(config), read_yaml_file(written), origin=str(written)))
    for key, value in flat_settings(config).items():
        if value == old[key] or key in free:
            continue
        if key not in changeable:
            raise UsageError(
                f"{run_dir}: this run has {key}={old[key]}, not {value}; resume it as it is, or give another --name"
            )
        logger.warning("%s: %s was %s and is %s from here on", run_dir, key, old[key], value)
    write_text(written, dump_config(config))

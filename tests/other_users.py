"""Another user of this machine, for tests that run as root, who may read and write everything."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_NOBODY = 65534


@contextmanager
def not_as_root() -> Iterator[None]:
    """Be nobody for a while; users other than root stay who they are."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)

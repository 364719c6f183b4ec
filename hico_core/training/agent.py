"""torchrun as `hico --nproc` starts it: its own ends become exit codes instead of tracebacks.

python -m hico_core.training.agent ARGUMENTS OF TORCHRUN
"""

import logging
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from hico_core.training.launch import end_at_once


def main(arguments: Sequence[str]) -> int:
    """Run torchrun to its end."""
    logging.disable()  # it would say of each error what the processes say themselves
    try:
        torchrun(list(arguments))
    except SignalException as stopped:
        return 128 + stopped.sigval
    except ChildFailedError as failed:
        _, failure = failed.get_first_failure()
        print(
            f"hico: training process {failure.local_rank} ended with {failure.exitcode}, after all had been started "
            "again several times; the same command with --resume goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    end_at_once(main(sys.argv[1:]))

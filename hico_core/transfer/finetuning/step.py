"""One update of finetuning: classify a step's clips, and take a step of the optimiser."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from hico_core.base.errors import HicoError
from hico_core.training.distributed import World, mean_over_processes
from hico_core.training.learner import Learner
from hico_core.training.step import ALONE, update


def classification_step(
    learner: Learner[Any], clips: Tensor, labels: Tensor, *, lr: float, world: World = ALONE
) -> tuple[float, float]:
    """One update from this process's clips (N, 3, T, H, W): loss and accuracy over all processes, with N clips each.

    Raises:
        HicoError: the loss of a clip is not finite, or float16 is too coarse; nothing is updated then.

    """
    with learner.precision.autocast(clips.device):
        scores = learner.replica(clips)
    loss = F.cross_entropy(scores, labels)
    right = (scores.argmax(dim=1) == labels).double().mean()
    known = update(learner, loss, [right], lr=lr, world=world)
    if known is None:
        raise HicoError(f"the loss is not finite, learning rate {lr:.4g}; try a lower optim.base_lr")
    mean_loss, mean_accuracy = mean_over_processes([float(value) for value in known], world)
    return mean_loss, mean_accuracy

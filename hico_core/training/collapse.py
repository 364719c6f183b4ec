"""Signs that training has collapsed: all clips get nearly the same embedding, or embeddings along few directions."""

# N clips, D embedding width.

import logging
import math
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

# This many steps in a row must look collapsed, since a single batch may hold very similar videos.
PATIENCE = 20

# Embeddings spread evenly over the sphere have a standard deviation of 1 / sqrt(D) in each dimension.
_PART_OF_EVEN_SPREAD = 0.1


def embedding_std(embeddings_ND: Tensor) -> float:
    """Standard deviation over the clips, mean over the dimensions, of (N, D) unit vectors: at most 1 / sqrt(D)."""
    return float(embeddings_ND.detach().std(dim=0).mean())


def effective_rank(embeddings_ND: Tensor) -> float:
    """Number of directions that (N, D) embeddings effectively use, from 1 to min(N, D).

    exp(entropy of the singular values normalised to sum to 1): Roy & Vetterli, EUSIPCO 2007.
    """
    values = torch.linalg.svdvals(embeddings_ND.detach().double())  # min(N, D) singular values
    parts = values / values.sum()
    return float(torch.special.entr(parts).sum().exp())


def has_collapsed(stds: Sequence[float], *, width: int) -> bool:
    """Whether the embeddings of the last `PATIENCE` steps, of this width, were nearly alike."""
    return len(stds) >= PATIENCE and _nearly_alike(stds[-PATIENCE:], width=width)


def _nearly_alike(stds: Sequence[float], *, width: int) -> bool:
    return all(std < _PART_OF_EVEN_SPREAD / math.sqrt(width) for std in stds)


class CollapseWatch:
    """Watches each step of a run, and warns once if training has collapsed."""

    def __init__(self, *, width: int, warns: bool = True) -> None:
        """Start watching embeddings of this width; of several processes, one warns."""
        self._width = width
        self._stds: deque[float] = deque(maxlen=PATIENCE)
        self._told = not warns

    def at_end(self) -> bool:
        """Whether the embeddings of the last steps, however few, are nearly alike; False if there were no steps."""
        return bool(self._stds) and _nearly_alike(list(self._stds), width=self._width)

    def look(self, std: float, rank: float) -> None:
        """Record a step's `embedding_std` and `effective_rank`; log a warning once training looks collapsed."""
        self._stds.append(std)
        if not self._told and has_collapsed(list(self._stds), width=self._width):
            self._told = True
            logger.warning(
                "the embeddings of the last %d steps are nearly alike (std %.4f, effective rank %.1f): training has "
                "collapsed; try a lower optim.base_lr or a longer optim.warmup_epochs",
                PATIENCE,
                std,
                rank,
            )

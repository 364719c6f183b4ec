"""Signs that training has collapsed: all clips get nearly the same embedding, or embeddings along few directions."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# So many steps in a row must look collapsed, since single batches may be of very similar videos.
PATIENCE = 20

# Embeddings spread evenly over the sphere have a standard deviation of 1 / sqrt(D) in each dimension.
_PART_OF_EVEN_SPREAD = 0.1


def embedding_std(embeddings: Tensor) -> float:
    """Standard deviation over the clips, mean over the dimensions, of (N, D) unit vectors: at most 1 / sqrt(D)."""
    return float(embeddings.detach().std(dim=0).mean())


def effective_rank(embeddings: Tensor) -> float:
    """How many directions (N, D) embeddings really use, from 1 to min(N, D).

    exp(entropy of the singular values, as parts of their sum): Roy & Vetterli, EUSIPCO 2007.
    """
    values = torch.linalg.svdvals(embeddings.detach().double())
    parts = values / values.sum()
    return float(torch.special.entr(parts).sum().exp())


def has_collapsed(stds: Sequence[float], *, width: int) -> bool:
    """Whether the last `PATIENCE` steps' embeddings of this width were nearly alike."""
    limit = _PART_OF_EVEN_SPREAD / math.sqrt(width)
    return len(stds) >= PATIENCE and all(std < limit for std in stds[-PATIENCE:])

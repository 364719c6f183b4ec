"""The two heads of HiCo: a projection for visual consistency, a pair classifier for topical consistency."""

# N clips of this process, A of all processes, F feature width, D embedding width, M width of the pair classifier.

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hico_core.model.s3dg import FEATURE_DIM

EMBEDDING_DIM = 128

_HEAD_BN_EPS = 1e-3


class ProjectionHead(nn.Module):
    """Three-layer MLP with batch norm after the first two layers; its output lies on the unit sphere."""

    def __init__(self, in_dim: int = FEATURE_DIM, hidden_dim: int = 1024, out_dim: int = EMBEDDING_DIM) -> None:
        super().__init__()
        self.linear1 = nn.Linear(in_dim, hidden_dim)
        self.bn1 = nn.BatchNorm1d(hidden_dim, eps=_HEAD_BN_EPS)
        self.linear2 = nn.Linear(hidden_dim, hidden_dim)
        self.bn2 = nn.BatchNorm1d(hidden_dim, eps=_HEAD_BN_EPS)
        self.linear3 = nn.Linear(hidden_dim, out_dim)

    def forward(self, features_NF: Tensor) -> Tensor:
        """(N, F) -> (N, D) of L2 norm 1."""
        hidden = self.bn1(self.linear1(features_NF)).relu()
        hidden = self.bn2(self.linear2(hidden)).relu()
        return F.normalize(self.linear3(hidden), dim=1)


class TopicHead(nn.Module):
    """Scores for whether two clips come from the same video, for every pair of clips, in both orders."""

    def __init__(self, in_dim: int = FEATURE_DIM, hidden_dim: int = 1024, out_dim: int = EMBEDDING_DIM) -> None:
        super().__init__()
        self.projection = ProjectionHead(in_dim, hidden_dim, out_dim)
        self.pair = nn.Linear(2 * out_dim, 2 * out_dim)
        self.score = nn.Linear(2 * out_dim, 1)

    def forward(self, features_NF: Tensor, gather: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """(N, F) -> (N, A, 2) raw scores: [i, j, 0] has clip i first, [i, j, 1] has clip j first.

        Args:
            features_NF: features from the encoder.
            gather: projected clips of this process, (N, D) -> those of all processes, (A, D), with which this process's
                clips are paired; None: they are paired with each other, A = N.

        The input of the classifier's first layer is the pair [u_i; u_j]. As the layer is linear, it is computed once
        per clip and position and the results are added, instead of once for each of the N * A pairs.
        """
        u_ND = self.projection(features_NF)
        # Columns of the layer for [u_i; u_j] that multiply u_i, and those that multiply u_j; the bias goes with u_i.
        first_MD, second_MD = self.pair.weight.chunk(2, dim=1)
        if gather is None:
            first_NM, second_NM = F.linear(u_ND, first_MD, self.pair.bias), F.linear(u_ND, second_MD)
            score_NN = self._scores(first_NM, second_NM)  # [i, j]: i first; the other order is its transpose
            return torch.stack([score_NN, score_NN.T], dim=-1)
        all_AD = gather(u_ND.detach())
        # Each pair of clips appears in the rows of both, each time with the other clip as a constant. For a clip to get
        # the gradient of all its pairs, its own rows count twice.
        u_ND = 2 * u_ND - u_ND.detach()
        as_first_NA = self._scores(F.linear(u_ND, first_MD, self.pair.bias), F.linear(all_AD, second_MD))
        as_second_AN = self._scores(F.linear(all_AD, first_MD, self.pair.bias), F.linear(u_ND, second_MD))
        return torch.stack([as_first_NA, as_second_AN.T], dim=-1)

    def _scores(self, first_XM: Tensor, second_YM: Tensor) -> Tensor:
        """The scores of all pairs, (X, Y)."""
        hidden_XYM = (first_XM[:, None, :] + second_YM[None, :, :]).relu()
        scores: Tensor = self.score(hidden_XYM).squeeze(-1)
        return scores

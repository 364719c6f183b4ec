"""The losses of HiCo (Qing et al., CVPR 2022) and of its SimCLR baseline.

`embeddings` are unit vectors; a caller with several processes gathers the embeddings of all processes first, so no
function here needs a process group.
"""

# B videos, K clips per video, N = B * K clips in video-major order (row b * K + k is clip k of video b), D embedding
# width, A clips of all processes if N is the number in one process.

from typing import NamedTuple

import torch
from torch import Tensor

from hico_core.base.errors import UsageError

# Keeps log() finite if the classifier is certain; part of the authors' loss, so not a setting.
_LOG_EPS = 1e-5


class HicoLoss(NamedTuple):
    """The two unweighted parts (detached, for the log) and the weighted sum that is differentiated."""

    total: Tensor
    visual: Tensor
    topical: Tensor | None  # None if the loss has no topical part


def _exp_similarities(embeddings_ND: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """exp(similarity / temperature) of all pairs, each (N, N): unchanged, and for use as positives.

    Similarities of positives are clipped to [-1, 1]: rounding can push them past 1, where nothing is left to learn.
    """
    similarity_NN = embeddings_ND @ embeddings_ND.T
    return (similarity_NN / temperature).exp(), (similarity_NN.clamp(-1, 1) / temperature).exp()


def _log_loss(positive: Tensor, negatives: Tensor) -> Tensor:
    """-log(P / (P + S)), finite also where the fraction rounds to 0: at low temperatures, for opposite positives."""
    fraction = positive / (positive + negatives)
    return -fraction.clamp(min=torch.finfo(fraction.dtype).tiny).log()


def _same_video(num_clips: int, clips_per_video: int, device: torch.device) -> Tensor:
    """(N, N) mask, True where row and column are clips of one video (the diagonal included).

    2 videos of 2 clips:   1 1 . .
                           1 1 . .
                           . . 1 1
                           . . 1 1
    """
    if num_clips % clips_per_video:
        raise ValueError(f"{num_clips} clips are not a multiple of {clips_per_video} clips per video")
    video_N = torch.arange(num_clips, device=device) // clips_per_video
    return video_N[:, None] == video_N[None, :]


def info_nce(embeddings: Tensor, *, clips_per_video: int, temperature: float) -> Tensor:
    """SimCLR's loss: each clip should be closer to its video's other clips than to all other videos' clips.

    For anchor i and each other clip p of its video, -log(P / (P + S)): P = exp(sim(i, p) / t), S the sum of
    exp(sim(i, n) / t) over the clips n of the other videos. Averaged over p, then over all N anchors.

    Args:
        embeddings: (N, D) unit vectors, video-major.
        clips_per_video: K, at least 2.
        temperature: t > 0.

    Returns:
        A scalar.

    """
    raw_NN, positive_NN = _exp_similarities(embeddings, temperature=temperature)
    same_NN = _same_video(len(embeddings), clips_per_video, embeddings.device)
    negatives_N1 = raw_NN.masked_fill(same_NN, 0).sum(dim=1, keepdim=True)
    loss_NN = _log_loss(positive_NN, negatives_N1)  # of all pairs; those of one video are kept below
    others_NN = same_NN & ~torch.eye(len(same_NN), dtype=torch.bool, device=same_NN.device)
    return (loss_NN * others_NN).sum() / (len(loss_NN) * (clips_per_video - 1))


def visual_loss(embeddings: Tensor, *, clips_per_video: int, temperature: float) -> Tensor:
    """HiCo's visual consistency: the embeddings of the first two clips of a video, which are near, should agree.

    Anchors are clips 0 and 1 of every video, each the other's only positive. Negatives are all clips of all
    other videos; a video's own third clip is neither.

    Args:
        embeddings: (N, D) unit vectors, video-major.
        clips_per_video: K, at least 2.
        temperature: t > 0.

    Returns:
        A scalar, the mean over the 2 * B anchors.

    """
    raw_NN, positive_NN = _exp_similarities(embeddings, temperature=temperature)
    same_NN = _same_video(len(embeddings), clips_per_video, embeddings.device)
    negatives_N = raw_NN.masked_fill(same_NN, 0).sum(dim=1)
    first_B = torch.arange(0, len(embeddings), clips_per_video, device=embeddings.device)
    # Suffix P: the 2B anchors, clip 0 of every video and then clip 1 of every video, with their partners.
    anchor_P = torch.cat([first_B, first_B + 1])
    partner_P = torch.cat([first_B + 1, first_B])
    positive_P = positive_NN[anchor_P, partner_P]
    return _log_loss(positive_P, negatives_N[anchor_P]).mean()


def topical_loss(topic_logits: Tensor, *, clips_per_video: int, gamma: float = 0.5, first_row: int = 0) -> Tensor:
    """HiCo's topical consistency: distinguish pairs of clips from one video from pairs from different videos.

    Focal-weighted binary cross entropy with q = sigmoid(score):
    -mean((1 - q)^gamma log(q + eps)) over pairs of one video (a clip with itself left out), plus
    -mean(q^gamma log(1 - q + eps)) over pairs of different videos. The two means have equal weight,
    although there are far more negative pairs.

    Args:
        topic_logits: (N, A, 2) raw scores of one process's N clips with all A clips, for both orders of each pair.
        clips_per_video: K, at least 2.
        gamma: 0 is plain cross entropy; larger values reduce the weight of pairs that are already classified well.
        first_row: index of the first of the N clips among the A.

    Returns:
        A scalar.

    Raises:
        UsageError: all clips come from one video, so there is no negative pair.

    """
    N, A, _ = topic_logits.shape
    if clips_per_video >= A:
        raise UsageError(
            "the topical loss compares videos of one process, so each process needs at least 2: "
            "raise --batch-size or set loss.topical_weight=0"
        )
    same_NA1 = _same_video(A, clips_per_video, topic_logits.device)[first_row : first_row + N, :, None]
    itself_NA1 = torch.eye(A, dtype=torch.bool, device=topic_logits.device)[first_row : first_row + N, :, None]
    q_NA2 = topic_logits.sigmoid()
    # Pairs of the other kind are set to a constant with weight 0. A GPU then need not count the remaining pairs, and
    # the infinite slope of a power at 0 cannot reach the gradient of a pair that does not count.
    is_positive_NA1 = same_NA1 & ~itself_NA1
    q_pos_NA2, q_neg_NA2 = q_NA2.where(is_positive_NA1, 0.5), q_NA2.where(~same_NA1, 0.5)
    # A sigmoid may round to 0 or 1, where the slope of a power with an exponent below 1 is infinite.
    tiny = torch.finfo(q_NA2.dtype).tiny
    positives = (1 - q_pos_NA2).clamp(min=tiny) ** gamma * (q_pos_NA2 + _LOG_EPS).log() * is_positive_NA1
    negatives = q_neg_NA2.clamp(min=tiny) ** gamma * (1 - q_neg_NA2 + _LOG_EPS).log() * ~same_NA1
    # Known without counting: each of N clips has K - 1 positives and A - K negatives, each pair in both orders.
    num_positives, num_negatives = 2 * N * (clips_per_video - 1), 2 * N * (A - clips_per_video)
    return -positives.sum() / num_positives - negatives.sum() / num_negatives


def hico_loss(
    embeddings: Tensor,
    topic_logits: Tensor | None,
    *,
    clips_per_video: int,
    temperature: float = 0.1,
    gamma: float = 0.5,
    visual_weight: float = 1.0,
    topical_weight: float = 1.0,
    first_row: int = 0,
) -> HicoLoss:
    """Visual plus topical consistency.

    Args:
        embeddings: (N, D) unit vectors of all processes, video-major.
        topic_logits: (M, M, 2) scores of this process's clips with each other, or (M, N, 2) with all clips; None: no
            topical term.
        clips_per_video: K.
        temperature: of the visual term.
        gamma: of the topical term.
        visual_weight: factor of the visual term in the total.
        topical_weight: factor of the topical term in the total.
        first_row: see `topical_loss`.

    """
    visual = visual_loss(embeddings, clips_per_video=clips_per_video, temperature=temperature)
    total = visual_weight * visual
    if topic_logits is None:
        return HicoLoss(total, visual.detach(), None)
    topical = topical_loss(topic_logits, clips_per_video=clips_per_video, gamma=gamma, first_row=first_row)
    return HicoLoss(total + topical_weight * topical, visual.detach(), topical.detach())


def simclr_loss(
    embeddings: Tensor, *, clips_per_video: int, temperature: float = 0.1, visual_weight: float = 1.0
) -> HicoLoss:
    """SimCLR's only term, which counts as the visual part; for the arguments, see `hico_loss`."""
    visual = info_nce(embeddings, clips_per_video=clips_per_video, temperature=temperature)
    return HicoLoss(visual_weight * visual, visual.detach(), None)

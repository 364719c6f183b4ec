"""The control of the topical term: HiCo that learns the topic from clips of different videos, which teaches nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from hico_core.model.heads import TopicHead


def mixed_videos(topic_logits: Tensor, *, clips_per_video: int) -> Tensor:
    """Scores (N, N, 2) in an order in which the clips that stand for one video are of different ones.

    Clip k of a video takes the place of clip k of the video k places before it, so that each clip is used once. There
    are at least as many videos as clips of one.

    2 clips of videos a b c:   a0 a1 b0 b1 c0 c1  ->  a0 b1 b0 c1 c0 a1
    """
    place_N = torch.arange(len(topic_logits), device=topic_logits.device)
    clip_N = place_N % clips_per_video
    from_N = (place_N + clip_N * clips_per_video) % len(topic_logits)
    return topic_logits[from_N][:, from_N]


@contextmanager
def wrong_videos(*, clips_per_video: int) -> Iterator[None]:
    """Let every topical head of this process give its scores in the order of `mixed_videos`.

    A hook, so that the product needs no switch for an experiment: the loss goes by places alone, and cannot tell.
    """

    def mix(module: nn.Module, _: object, scores: Tensor) -> Tensor | None:
        return mixed_videos(scores, clips_per_video=clips_per_video) if isinstance(module, TopicHead) else None

    hook = register_module_forward_hook(mix)  # type: ignore[arg-type]  # its hint has no hook that changes outputs
    try:
        yield
    finally:
        hook.remove()

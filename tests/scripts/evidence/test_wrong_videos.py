"""The control of the topical term: no two clips that stand for one video are of one, and nothing else is changed."""

import pytest
import torch
from wrong_videos import mixed_videos, wrong_videos

from hico_core.config import preset
from hico_core.encoders.trained import hico_model
from hico_core.training.step import compute_loss


@pytest.mark.parametrize(("videos", "clips"), [(2, 2), (3, 3), (5, 3)])
def test_mixed_videos_have_no_two_clips_of_one(videos: int, clips: int) -> None:
    """Scores that tell which clips they are of: those that stand for one video are of different ones."""
    number = torch.arange(videos * clips)
    mixed = mixed_videos(
        torch.stack([number[:, None].expand(-1, len(number)), number.expand(len(number), -1)], -1),
        clips_per_video=clips,
    )
    order = mixed[:, 0, 0]
    assert sorted(order.tolist()) == number.tolist()
    for first in range(0, len(number), clips):
        assert len({place // clips for place in order[first : first + clips].tolist()}) == clips
    assert torch.equal(mixed[..., 0], order[:, None].expand(-1, len(number)))
    assert torch.equal(mixed[..., 1], order.expand(len(number), -1))


def test_only_the_topical_term_is_wrong_and_only_while_it_is_asked_for() -> None:
    torch.manual_seed(0)
    model, clips = hico_model("s3dg-tiny").eval(), torch.randn(4, 3, 3, 8, 24, 24)
    with torch.no_grad():
        right = model(clips)
        with wrong_videos(clips_per_video=3):
            wrong = model(clips)
        again = model(clips)
    assert torch.equal(wrong.embeddings, right.embeddings)
    assert torch.equal(wrong.topic_logits, mixed_videos(right.topic_logits, clips_per_video=3))
    assert torch.equal(again.topic_logits, right.topic_logits)
    losses = [compute_loss(outputs, preset("hacs-hico-s").loss, clips_per_video=3) for outputs in (right, wrong)]
    assert losses[0].visual == losses[1].visual
    assert losses[0].topical != losses[1].topical

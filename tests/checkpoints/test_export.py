"""What a run exports: an encoder, and a card that is about this very file."""

import hashlib
import re
from pathlib import Path

import pytest
import torch

from hico_core.checkpoints.content import Progress
from hico_core.checkpoints.describe import describe_checkpoint
from hico_core.checkpoints.export import CARD, card_of, exports
from hico_core.checkpoints.reading import clip_shape_of, picture_of, read_checkpoint
from hico_core.config import load_config
from hico_core.data.plan import Position
from hico_core.data.videos import IndexIdentity
from hico_core.model.s3dg_tiny import S3DGTiny

CONFIG = load_config(overrides=["model.encoder=s3dg-tiny", "data.crop_size=56", "data.num_frames=8", "train.epochs=20"])
PROGRESS = Progress(position=Position(30, 0, 30), epochs_done=15.5, index=IndexIdentity(11, "", ""))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """An export as a run writes it, after 30 steps."""
    torch.manual_seed(0)
    path = tmp_path / "third-try/export/encoder.safetensors"
    path.parent.mkdir(parents=True)
    for file, content in exports(S3DGTiny(), path, CONFIG, PROGRESS, feature_dim=128, loss=3.25).items():
        file.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "fact",
    [
        "^# third-try: s3dg-tiny",  # the run and its encoder
        "hacs-hico-s",  # the recipe
        r"\b11\b",  # videos there were
        r"\b30\b",  # steps
        r"\b32\b.*\b3\b",  # batch size, and clips per video
        r"15\.5.*\b20\b",  # epochs of those planned
        r"3\.25",  # the loss
        r"\b3, 8, 56, 56\b",  # a clip, as the encoder takes it
        r"7\.5",  # its frames a second
        r"0\.45.*0\.225",  # how pictures are normalised
        r"\b128, t, h, w\b",  # what comes out
    ],
)
def test_a_card_has_what_a_user_of_the_encoder_has_to_know(written: Path, fact: str) -> None:
    """However it is worded."""
    assert re.search(fact, card_of(written) or "")


def test_a_card_is_about_this_very_file(written: Path) -> None:
    card = card_of(written)
    assert card is not None and hashlib.sha256(written.read_bytes()).hexdigest() in card
    assert describe_checkpoint(written).card == card


def test_an_export_says_what_its_encoder_was_trained_to_see(written: Path) -> None:
    file = read_checkpoint(written)
    assert picture_of(file).size == 56
    assert clip_shape_of(file) == (8, 7.5)


def test_a_card_is_kept_where_nothing_was_trained_since(written: Path) -> None:
    torch.manual_seed(0)
    assert list(exports(S3DGTiny(), written, CONFIG, PROGRESS, feature_dim=128, loss=None)) == [written]
    # A card of another encoder, which a kill has left, is not kept for this one.
    torch.manual_seed(1)
    again = exports(S3DGTiny(), written, CONFIG, PROGRESS, feature_dim=128, loss=None)
    assert list(again) == [written, written.with_name(CARD)]
    # Of other weights, or where there is none, it is written without the loss that nobody knows.
    written.write_bytes(b"another")
    assert card_of(written) is None
    again = exports(S3DGTiny(), written, CONFIG, PROGRESS, feature_dim=128, loss=None)
    assert list(again) == [written, written.with_name(CARD)]
    assert b"3.25" not in again[written.with_name(CARD)]

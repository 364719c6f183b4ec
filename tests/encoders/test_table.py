"""Each entry of the table keeps what it promises."""

import pytest
import torch

from hico_core.base.errors import UsageError
from hico_core.encoders.table import ENCODERS, entry_of


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_gives_what_its_entry_says(name: str) -> None:
    entry = ENCODERS[name]
    size = entry.picture.size
    with torch.inference_mode():
        made = entry.build().eval()(torch.zeros(1, 3, entry.shortest_window, size, size))
    assert made.dim() == {"maps": 5, "rows": 2}[entry.gives]
    assert made.shape[1] == entry.feature_dim


def test_a_name_that_is_none_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="the nearest is s3dg-tiny"):
        entry_of("s3d-tiny")

"""What pixels and motion are: means that a loop finds as well."""

import torch

from hico_core.encoders.baselines import MOTION_DIM, PIXELS_DIM, Motion, Pixels


def test_pixels_are_the_mean_picture() -> None:
    clips = torch.rand(2, 3, 5, 64, 64)
    made = Pixels()(clips).reshape(2, 3, 8, 8)
    assert made.numel() == 2 * PIXELS_DIM
    for row in range(8):
        for column in range(8):
            place = clips[..., row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
            torch.testing.assert_close(made[:, :, row, column], place.mean(dim=(2, 3, 4)))


def test_motion_is_the_energy_of_differences_in_each_quarter() -> None:
    """Of 9 frames, quarters have two differences each; colour counts as grey."""
    clips = torch.rand(2, 3, 9, 64, 64)
    made = Motion()(clips).reshape(2, 4, 8, 8)
    assert made.numel() == 2 * MOTION_DIM
    grey = clips.mean(dim=1)
    for quarter in range(4):
        first, second = 2 * quarter, 2 * quarter + 1
        energy = ((grey[:, first + 1] - grey[:, first]) ** 2 + (grey[:, second + 1] - grey[:, second]) ** 2) / 2
        place = energy[:, 40:48, 8:16].mean(dim=(1, 2))
        torch.testing.assert_close(made[:, quarter, 5, 1], place.sqrt())


def test_nothing_moves_in_a_picture_that_stands_still() -> None:
    assert not Motion()(torch.rand(1, 3, 1, 64, 64).expand(-1, -1, 5, -1, -1)).any()

"""What the VAE is asked for: small things that stand still, and no more than bytes can show."""

import torch

from worldsim.train.vae import clipped_error, detail_pixels


def test_beyond_black_and_white_there_is_no_error():
    out = torch.tensor([-1.3, -1.3, 1.2, 1.2, 0.5])
    video = torch.tensor([-1.0, 1.0, 1.0, -1.0, 0.0])
    expected = torch.tensor([0.0, -2.3, 0.0, 2.2, 0.5])
    assert torch.allclose(clipped_error(out, video), expected)


def test_a_small_thing_is_a_detail_and_a_wide_one_is_not():
    video = torch.full((1, 1, 16, 16, 3), -1.0)
    video[0, 0, :, 8:] = 1.0
    video[0, 0, 5, 3, 1] = 0.0
    fine = detail_pixels(video, 0.1)[0, 0]
    assert fine[5, 3] and fine[:, 7:9].all()
    assert not fine[12, 2] and not fine[:, 12:].any()

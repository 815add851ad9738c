"""Functions that do not know a row's place."""

import torch

from worldsim.nn.stable import sigmoid


def test_equal_numbers_have_equal_sigmoids_wherever_they_stand() -> None:
    """`torch.sigmoid` differs between a vector's lanes and what is left over, without AVX-512."""
    g = torch.Generator().manual_seed(0)
    for length in (1, 3, 7, 21, 50):
        x = torch.randn(200, length, generator=g)
        parts = torch.cat([sigmoid(column) for column in x.flatten().split(5)])
        assert torch.equal(sigmoid(x).flatten(), parts)
        assert torch.allclose(parts, x.flatten().sigmoid(), atol=1e-7)

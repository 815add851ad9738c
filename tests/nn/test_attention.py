import torch
import torch.nn.functional as F

from worldsim.nn.attention import attend, attend_shared
from worldsim.nn.rope import apply_rope, freqs, grid_rotary, rotary


def test_attend_equals_torch():
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 8)
    mask = torch.rand(2, 1, 5, 7) > 0.4
    mask[..., 0] = True
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    assert torch.allclose(attend(q, k, v, mask), expected, atol=1e-5)


def test_keys_that_are_shared_say_what_their_copies_say():
    q = torch.randn(6, 3, 4, 2, 8)
    near = torch.randn(6, 3, 2, 5, 8), torch.randn(6, 3, 2, 5, 8)
    far = torch.randn(2, 3, 2, 7, 8), torch.randn(2, 3, 2, 7, 8)
    mask = torch.rand(6, 1, 1, 2, 12) > 0.4
    mask[..., -1] = True
    k, v = (torch.cat([f.repeat_interleave(3, 0), n], -2) for f, n in zip(far, near, strict=True))
    assert torch.allclose(attend_shared(q, near, far, mask), attend(q, k, v, mask), atol=1e-5)


def test_products_of_rotated_vectors_depend_on_distance_alone():
    q, k = torch.randn(1, 16), torch.randn(1, 16)

    def product(a: int, b: int) -> float:
        turn = [apply_rope(x, freqs(rotary(torch.tensor([p]), 16))) for x, p in ((q, a), (k, b))]
        return float((turn[0] * turn[1]).sum())

    assert abs(product(3, 1) - product(103, 101)) < 1e-4
    assert abs(product(3, 1) - product(3, 2)) > 1e-3


def test_a_grid_turns_half_by_row_and_half_by_column():
    angle = grid_rotary(3, 4, 16, torch.device("cpu")).reshape(3, 4, 8)
    assert torch.equal(angle[0, :, :4], angle[0, :1, :4].expand(4, 4))
    assert torch.equal(angle[:, 0, 4:], angle[:1, 0, 4:].expand(3, 4))
    assert torch.equal(angle[2, 1, :4], angle[2, 3, :4])
    assert not torch.equal(angle[1, 1, :4], angle[2, 1, :4])

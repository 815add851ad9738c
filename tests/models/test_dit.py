from dataclasses import replace

import pytest
import torch

from tests.worlds import DIT, tiny_dynamics
from worldsim.models.dit import DiTConfig, VideoDiT


def run(dit: VideoDiT, x: torch.Tensor, vector: torch.Tensor | float = 0.0, **more):
    frames = x.shape[1]
    level = torch.linspace(0.1, 0.9, frames).expand(len(x), frames)
    vector = torch.zeros(len(x), frames, dit.config.dim) + vector
    more.setdefault("mask", torch.ones(1, frames, frames, dtype=torch.bool))
    return dit(x, level, vector, x.roll(1, 1), time=torch.arange(frames), **more)


@torch.no_grad()
@pytest.mark.parametrize("size", [(7, 8), (3, 5), (12, 4)])
@pytest.mark.parametrize("patch", [(1, 1), (1, 2), (2, 2)])
def test_any_grid(size: tuple[int, int], patch: tuple[int, int]):
    config = DiTConfig(dim=32, depth=2, heads=2, kv_heads=1, patch=patch)
    x = torch.randn(2, 3, *size, 4)
    out = run(VideoDiT(config, 4), x)
    rows, columns = config.grid(*size)
    assert out.x.shape == x.shape
    assert out.features.shape == (2, 3, 32)
    assert out.kv.shape == (2, 1, 2, 3, rows * columns, 1, 16)


def test_an_untrained_network_says_that_nothing_changes():
    x = torch.randn(1, 3, 7, 8, 4)
    out = run(VideoDiT(DIT, 4), x)
    assert torch.allclose(out.x, x.roll(1, 1), atol=1e-6)


@torch.no_grad()
def test_what_the_same_patch_becomes_depends_on_its_place():
    """Rotary positions alone could not tell: all patches of this grid are alike."""
    config = DiTConfig(dim=32, depth=2, heads=2, kv_heads=1, patch=(2, 2))
    dit = tiny_dynamics(dit=config).dit
    x = torch.ones(1, 2, 8, 8, 4)
    torch.nn.init.zeros_(dit.position.proj.weight)
    alike = run(dit, x).x
    torch.nn.init.normal_(dit.position.proj.weight)
    placed = run(dit, x).x
    assert torch.allclose(alike[..., :2, :2, :], alike[..., 4:6, 4:6, :], atol=1e-5)
    patches = placed.unfold(2, 2, 2).unfold(3, 2, 2)[0, 0].reshape(16, -1)
    assert torch.pdist(patches).min() > 1e-3


@torch.no_grad()
def test_only_differences_of_time_matter():
    dit, x = tiny_dynamics().dit, torch.randn(1, 4, 7, 8, 4)
    level, vector = torch.full((1, 4), 0.5), torch.rand(1, 4, 32)
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    t = torch.arange(4)
    a = dit(x, level, vector, x, time=t, mask=mask).x
    assert torch.allclose(dit(x, level, vector, x, time=t + 1000, mask=mask).x, a, atol=1e-4)
    assert not torch.allclose(dit(x, level, vector, x, time=2 * t, mask=mask).x, a, atol=1e-4)


@torch.no_grad()
def test_without_a_residual_the_neighbour_plays_no_part():
    x, config = torch.randn(1, 2, 7, 8, 4), replace(DIT, residual=False)
    dit = tiny_dynamics(dit=config).dit
    known = {"time": range(2), "mask": torch.ones(1, 2, 2, dtype=torch.bool)}
    level, vector = torch.full((1, 2), 0.5), torch.zeros(1, 2, 32)
    a, b = (dit(x, level, vector, neighbour, **known).x for neighbour in (x, 0 * x))
    assert torch.equal(a, b) and a.shape == x.shape


@torch.no_grad()
def test_a_prompt_is_read_by_the_chunks_it_is_for():
    x, config = torch.randn(1, 3, 7, 8, 4), replace(DIT, cross_attention=True)
    dit, reads = tiny_dynamics(dit=config, text=6).dit, torch.tensor([[False, False, True]])
    mask = torch.eye(3, dtype=torch.bool)[None]  # nobody passes it on
    one, two = (run(dit, x, prompt=(torch.randn(1, 2, 32), reads), mask=mask).x for _ in range(2))
    assert torch.equal(one[:, :2], two[:, :2]) and not torch.allclose(one[:, 2], two[:, 2])


@pytest.mark.parametrize(("field", "value"), [("dim", 30), ("kv_heads", 3)])
def test_sizes_that_do_not_divide_are_refused(field: str, value: int):
    with pytest.raises(ValueError, match=field):
        DiTConfig(**{**DIT.__dict__, field: value})

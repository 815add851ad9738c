import pytest
import torch

from tests.worlds import BUTTONS, CAR, DIT, tiny_dynamics
from worldsim.models.dit import DiTConfig, VideoDiT


def run(dit: VideoDiT, x: torch.Tensor, action: torch.Tensor, **more: torch.Tensor):
    frames = x.shape[1]
    level = torch.linspace(0.1, 0.9, frames).expand(len(x), frames)
    return dit(
        x, x.roll(1, 1), level, action, time=torch.arange(frames),
        mask=torch.ones(1, frames, frames, dtype=torch.bool), **more,
    )  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("size", [(7, 8), (3, 5), (12, 4)])
@pytest.mark.parametrize("patch", [(1, 1), (1, 2), (2, 2)])
def test_any_grid(size: tuple[int, int], patch: tuple[int, int]):
    config = DiTConfig(dim=32, depth=2, heads=2, kv_heads=1, patch=patch)
    x = torch.randn(2, 3, *size, 4)
    out = run(VideoDiT(config, 4, CAR), x, torch.rand(2, 3, 3))
    rows, columns = config.grid(*size)
    assert out.x.shape == x.shape
    assert out.features.shape == (2, 3, 32)
    assert out.kv.shape == (2, 1, 2, 3, rows * columns, 1, 16)


def test_an_untrained_network_says_that_nothing_changes():
    x = torch.randn(1, 3, 7, 8, 4)
    out = run(VideoDiT(DIT, 4, CAR), x, torch.rand(1, 3, 3))
    assert torch.allclose(out.x, x.roll(1, 1), atol=1e-6)


@torch.no_grad()
def test_what_the_same_patch_becomes_depends_on_its_place():
    """Rotary positions alone could not tell: all patches of this grid are alike."""
    config = DiTConfig(dim=32, depth=2, heads=2, kv_heads=1, patch=(2, 2))
    dit = tiny_dynamics(dit=config).dit
    x = torch.ones(1, 2, 8, 8, 4)
    torch.nn.init.zeros_(dit.place.lift.weight)
    alike = run(dit, x, torch.rand(1, 2, 3)).x
    torch.nn.init.normal_(dit.place.lift.weight)
    placed = run(dit, x, torch.rand(1, 2, 3)).x
    assert torch.allclose(alike[..., :2, :2, :], alike[..., 4:6, 4:6, :], atol=1e-5)
    patches = placed.unfold(2, 2, 2).unfold(3, 2, 2)[0, 0].reshape(16, -1)
    assert torch.pdist(patches).min() > 1e-3


@torch.no_grad()
def test_only_differences_of_time_matter():
    dit, x = tiny_dynamics().dit, torch.randn(1, 4, 7, 8, 4)
    level, action = torch.full((1, 4), 0.5), torch.rand(1, 4, 3)
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    t = torch.arange(4)
    a = dit(x, x, level, action, time=t, mask=mask).x
    assert torch.allclose(dit(x, x, level, action, time=t + 1000, mask=mask).x, a, atol=1e-4)
    assert not torch.allclose(dit(x, x, level, action, time=2 * t, mask=mask).x, a, atol=1e-4)


@torch.no_grad()
def test_every_action_and_no_action_differ():
    x = torch.randn(1, 2, 7, 8, 4)
    dit = tiny_dynamics(action=BUTTONS).dit
    outs = [run(dit, x, torch.full((1, 2), a)).x for a in (-1, 0, 1, 2, 3, 4)]
    dit = tiny_dynamics(action=CAR).dit
    nan = float("nan")
    for action in ([nan] * 3, [0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]):
        outs.append(run(dit, x, torch.tensor(action).expand(1, 2, 3)).x)
    for i, a in enumerate(outs):
        assert a.isfinite().all()
        assert not any(torch.allclose(a, b, atol=1e-5) for b in outs[:i])


@torch.no_grad()
def test_the_extra_slot_costs_nothing_empty_and_counts_when_filled():
    x, action = torch.randn(1, 2, 7, 8, 4), torch.rand(1, 2, 3)
    empty = VideoDiT(DIT, 4, CAR)
    slotted = VideoDiT(DiTConfig(**{**DIT.__dict__, "extra": 6}), 4, CAR)
    extra = {"condition.extra.weight", "condition.extra.bias"}
    assert set(slotted.state_dict()) - set(empty.state_dict()) == extra
    dit = tiny_dynamics(dit=DiTConfig(**{**DIT.__dict__, "extra": 6})).dit
    without = run(dit, x, action).x
    assert not torch.allclose(run(dit, x, action, extra=torch.rand(1, 2, 6)).x, without, atol=1e-5)


@pytest.mark.parametrize(("field", "value"), [("dim", 30), ("kv_heads", 3)])
def test_sizes_that_do_not_divide_are_refused(field: str, value: int):
    with pytest.raises(ValueError, match=field):
        DiTConfig(**{**DIT.__dict__, field: value})

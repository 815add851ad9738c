"""What every WorldModel promises.

    class TestMyWorld(WorldContract):
        def make_world(self):
            return MyWorld(...)

Bytes are compared, so NaN equals NaN and -0 differs from 0. Equal bytes are promised at equal batch
size only: kernels may add up in another order in a batch of another shape, hence `tolerance`.
"""

from collections.abc import Iterator
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from worldsim.core import Prediction, Rows, WorldError, WorldModel, WorldState, row_keys

BATCH = 6


def same(a: Tensor, b: Tensor) -> bool:
    """Same shape, type and bytes."""
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    return torch.equal(*(x.contiguous().view(torch.uint8) for x in (a, b)))


def pairs(a: Rows, b: Rows) -> Iterator[tuple[str, Tensor, Tensor]]:
    assert type(a) is type(b)
    for field in fields(a):
        yield field.name, getattr(a, field.name), getattr(b, field.name)


def assert_same(a: Rows, b: Rows) -> None:
    differ = [name for name, x, y in pairs(a, b) if not same(x, y)]
    assert not differ, f"{type(a).__name__} differs in {differ}"


def assert_close(a: Rows, b: Rows, tolerance: float) -> None:
    for name, x, y in pairs(a, b):
        if x.is_floating_point():
            torch.testing.assert_close(
                x, y, atol=tolerance, rtol=tolerance, equal_nan=True, msg=name
            )
        else:
            assert same(x, y), name


def copied(rows: Rows) -> Rows:
    return rows.map(torch.clone)


class WorldContract:
    """Subclass as `Test...`, with a `make_world`."""

    stochastic = True  # another key gives another future
    tolerance = 0.0  # between batches of different sizes
    many_steps = 200

    def make_world(self) -> WorldModel:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def world(cls) -> WorldModel:
        return cls().make_world()

    def keys(self, world: WorldModel, start: int = 0, batch: int = BATCH) -> Tensor:
        return row_keys(range(start, start + batch)).to(world.device)

    def some_actions(self, world: WorldModel, batch: int = BATCH, seed: int = 0) -> Tensor:
        space = world.spec.action.space(seed=seed)
        drawn = [torch.as_tensor(space.sample()) for _ in range(batch)]
        return torch.stack(drawn).to(world.device, world.spec.action.dtype)

    def walked(self, world: WorldModel, start: int = 0, steps: int = 3) -> WorldState:
        """A state some steps from its start, so that nothing in it is blank."""
        state = world.reset(self.keys(world, start))
        for t in range(steps):
            state, _ = world.step(state, self.some_actions(world, seed=start + t))
        return state

    # --- What things look like --------------------------------------------------------------------

    def test_shapes_and_types(self, world: WorldModel) -> None:
        assert isinstance(world, WorldModel)
        spec, start = world.spec, world.reset(self.keys(world))
        state, said = world.step(start, self.some_actions(world))
        for each in (start, state):
            assert each.latents.shape == (BATCH, spec.context, *spec.latent_shape)
            assert each.actions.shape == (BATCH, spec.context, *spec.action.shape)
            assert each.actions.dtype == spec.action.dtype
            assert each.filled.shape == each.age.shape == (BATCH,) and each.key.shape == (BATCH, 2)
            assert each.filled.dtype == each.age.dtype == each.key.dtype == torch.int64
            assert len(each.cache) == BATCH and each.latents.isfinite().all()
            assert {x.device for _, x, _ in pairs(each, each)} == {world.device}
        assert {x.shape for _, x, _ in pairs(said, said)} == {(BATCH,)}
        assert (
            said.reward.isfinite().all()
            and ((said.continue_prob >= 0) & (said.continue_prob <= 1)).all()
        )
        assert (said.trust.isnan() | ((said.trust >= 0) & (said.trust <= 1))).all()

    def test_a_step_counts(self, world: WorldModel) -> None:
        start, action = world.reset(self.keys(world)), self.some_actions(world)
        state, _ = world.step(start, action)
        assert same(state.age, start.age + 1) and same(state.key, start.key)
        assert same(state.filled, (start.filled + 1).clamp(max=world.spec.context))
        assert same(state.actions[:, -1], action)
        assert same(state.actions[:, :-1], start.actions[:, 1:])
        assert state.known[:, -1].all() and same(state.known[:, :-1], start.known[:, 1:])
        shown = world.decode_latents(state.latent, state.latents[:, -2], state.filled)
        assert same(shown, world.decode(state))
        assert same(state.latents[:, :-1], start.latents[:, 1:])

    def test_decode_gives_the_chunk_and_repeats_itself(self, world: WorldModel) -> None:
        state = self.walked(world)
        before = copied(state)
        frames = world.decode(state)
        assert frames.shape == (BATCH, world.spec.chunk, *world.spec.frame_shape)
        assert frames.dtype == torch.uint8 and same(frames, world.decode(state))
        assert_same(before, state)

    @pytest.mark.parametrize("full", [False, True])
    def test_encode_takes_the_worlds_own_frames(self, world: WorldModel, full: bool) -> None:
        spec, state = world.spec, self.walked(world)
        chunks = spec.context if full else 1
        frames = world.decode(state).repeat(1, chunks, 1, 1, 1)
        actions = torch.stack([self.some_actions(world, seed=k) for k in range(chunks)], 1)
        known = torch.arange(BATCH * chunks, device=world.device).reshape(BATCH, chunks) % 3 > 0
        key = self.keys(world, 50)
        found = world.encode(frames, actions, key, known=known)
        assert found.latents.shape == state.latents.shape and found.latents.isfinite().all()
        assert (found.filled == chunks).all() and (found.age == 0).all() and same(found.key, key)
        assert same(found.known[:, -chunks:], known) and not found.known[:, :-chunks].any()
        assert same(found.actions[:, -chunks:][known], actions[known])
        assert not found.actions[~found.known].any()
        assert_same(found, world.encode(frames, actions, key, known=known))
        poisoned = actions.clone()
        poisoned[~known] = 3 if spec.action.is_discrete else float("nan")
        assert_same(found, world.encode(frames, poisoned, key, known=known))
        with_none = world.encode(frames, None, key)
        assert_same(with_none, world.encode(frames, actions, key, known=known & ~known))
        again = world.from_latents(found.latents[:, -chunks:], actions, key, known=known)
        assert same(again.known, found.known) and same(again.latents[:, -1], found.latent)
        following, _ = world.step(found, self.some_actions(world))
        assert following.latents.isfinite().all()

    def test_an_unknown_action_is_no_poison(self, world: WorldModel) -> None:
        state = self.walked(world)
        for action in (None, self.some_actions(world)):
            state, said = world.step(state, action)
            assert (state.known[:, -1] == (action is not None)).all()
            assert state.latents.isfinite().all() and said.reward.isfinite().all()

    # --- Nothing hidden ---------------------------------------------------------------------------

    def test_a_step_leaves_its_input_alone(self, world: WorldModel) -> None:
        state, action = self.walked(world), self.some_actions(world)
        before, acted = copied(state), action.clone()
        versions = [x._version for _, x, _ in pairs(state, state)]
        following, _ = world.step(state, action)
        world.step(following, action)
        world.decode(following)
        assert_same(before, state)
        assert same(acted, action)
        assert versions == [x._version for _, x, _ in pairs(state, state)]

    def test_same_keys_same_future(self, world: WorldModel) -> None:
        start, again = (self.walked(world, 3) for _ in range(2))
        assert_same(start, again)
        self.assert_same_step(world, start, again)
        world.step(self.walked(world, 40), self.some_actions(world))  # some other life in between
        self.assert_same_step(world, start, again)
        self.assert_same_step(self.make_world(), start, copied(start))

    def assert_same_step(self, world: WorldModel, a: WorldState, b: WorldState) -> None:
        for x, y in zip(self.go(world, a), self.go(world, b), strict=True):
            assert_same(x, y)

    def go(
        self, world: WorldModel, state: WorldState, action: Tensor | None = None
    ) -> tuple[WorldState, Prediction]:
        action = self.some_actions(world, len(state)) if action is None else action
        return world.step(state, action)

    def test_another_key_another_future(self, world: WorldModel) -> None:
        state, action = self.walked(world), self.some_actions(world)
        key = state.key
        others = {
            "seed": key + torch.tensor([1000, 0], device=key.device),
            "episode": key + torch.tensor([0, 1], device=key.device),
            "high seed bits": key + torch.tensor([2**40, 0], device=key.device),
        }
        first, _ = world.step(state, action)
        for name, other in others.items():
            second, _ = world.step(replace(state, key=other), action)
            differs = (first.latent != second.latent).flatten(1).any(1)
            assert bool((differs == self.stochastic).all()), name
        later, _ = world.step(replace(state, age=state.age + 7), action)
        differs = (first.latent != later.latent).flatten(1).any(1)
        assert bool((differs == self.stochastic).all()), "age"

    def test_a_generator_names_the_randomness(self, world: WorldModel) -> None:
        state, action = self.walked(world), self.some_actions(world)

        def drawn(seed: int) -> WorldState:
            generator = torch.Generator(world.device).manual_seed(seed)
            return world.step(state, action, generator=generator)[0]

        assert_same(drawn(1), drawn(1))
        assert same(drawn(1).latents, drawn(2).latents) != self.stochastic

    def test_the_global_generator_plays_no_part(self, world: WorldModel) -> None:
        state = self.walked(world)
        torch.manual_seed(0)
        before = torch.get_rng_state()
        first = self.go(world, state)
        assert torch.equal(before, torch.get_rng_state())
        torch.manual_seed(1)
        assert_same(first[0], self.go(world, state)[0])

    # --- Rows do not know each other --------------------------------------------------------------

    @pytest.mark.parametrize(
        ("row", "fault"), [(0, None), (2, float("nan")), (BATCH - 1, float("inf"))]
    )
    def test_a_row_does_not_know_its_neighbours(
        self, world: WorldModel, row: int, fault: float | None
    ) -> None:
        state, action = self.walked(world), self.some_actions(world)
        mine = torch.arange(BATCH, device=world.device) == row
        other, acted = self.walked(world, 60, steps=1), self.some_actions(world, seed=9)
        if fault is not None:
            other = replace(other, latents=torch.full_like(other.latents, fault))
        mixed = state.where(mine, other)
        shaped = mine.reshape(-1, *[1] * (action.ndim - 1))
        a = self.go(world, state, action)
        b = self.go(world, mixed, torch.where(shaped, action, acted))
        for x, y in zip(a, b, strict=True):
            assert_same(x[[row]], y[[row]])
        pictures = (world.decode(x)[row] for x in (state, mixed))
        assert same(*pictures)

    def test_order_does_not_matter(self, world: WorldModel) -> None:
        state, action = self.walked(world), self.some_actions(world)
        order = torch.tensor([3, 0, 5, 1, 4, 2], device=world.device)
        straight = self.go(world, state, action)
        shuffled = self.go(world, state[order], action[order])
        for x, y in zip(straight, shuffled, strict=True):
            assert_same(x[order], y)
        assert same(world.decode(state)[order], world.decode(state[order]))

    def test_a_start_does_not_know_its_neighbours(self, world: WorldModel) -> None:
        keys, others = self.keys(world), self.keys(world, 70)
        others[1] = keys[1]
        assert_same(world.reset(keys)[[1]], world.reset(others)[[1]])

    def test_repeat_then_step_is_step_then_repeat(self, world: WorldModel) -> None:
        state, action = self.walked(world), self.some_actions(world)
        many = self.go(world, state.repeat(3), action.repeat_interleave(3, 0))
        for x, y in zip(many, self.go(world, state, action), strict=True):
            assert_close(x, y.repeat(3), self.tolerance)
            assert_same(x[::3], x[1::3])  # equal rows of one batch are equal to the bit
            assert_same(x[::3], x[2::3])

    def test_a_batch_is_its_parts(self, world: WorldModel) -> None:
        state, action = self.walked(world), self.some_actions(world)
        cuts = [slice(0, 1), slice(1, 4), slice(4, BATCH)]
        assert_same(WorldState.cat([state[cut] for cut in cuts]), state)
        parts = [self.go(world, state[cut], action[cut])[0] for cut in cuts]
        assert_close(WorldState.cat(parts), self.go(world, state, action)[0], self.tolerance)

    # --- Time -------------------------------------------------------------------------------------

    def test_a_state_never_grows(self, world: WorldModel) -> None:
        state, action = self.walked(world), self.some_actions(world)

        def held(state: WorldState) -> dict[str, tuple[int, ...]]:
            return {
                name: (*x.shape, x.untyped_storage().nbytes()) for name, x, _ in pairs(state, state)
            }

        size = held(self.walked(world, steps=world.spec.context + 1))
        for t in range(self.many_steps):
            state, said = world.step(state, action)
            if t == world.spec.context:
                assert held(state) == size
        assert held(state) == size and (state.age == self.many_steps + 3).all()
        assert state.latents.isfinite().all() and said.reward.isfinite().all()

    # --- Bad input --------------------------------------------------------------------------------

    def test_a_clip_that_does_not_fit_is_refused(self, world: WorldModel) -> None:
        spec, (height, width, _) = world.spec, world.spec.frame_shape
        chunk, most = spec.chunk, spec.chunk * spec.context
        good = torch.zeros(2, chunk, height, width, 3, dtype=torch.uint8)
        actions = spec.action.blank(2, 1)
        wrong = {
            "float": (good.float(), actions),
            "height": (torch.zeros(2, chunk, height + 8, width, 3, dtype=torch.uint8), actions),
            "channels first": (good.movedim(-1, 2), actions),
            "no batch axis": (good[0], actions[0]),
            "no frames": (good[:, :0], actions[:, :0]),
            "too long": (good[:, :1].repeat(1, most + chunk, 1, 1, 1), actions),
            "an action too many": (good, spec.action.blank(2, 2)),
            "actions of another batch": (good, spec.action.blank(3, 1)),
        }
        if chunk > 1:
            wrong["part of a chunk"] = (good[:, :-1], actions)
            wrong["a chunk and a part"] = (torch.cat([good, good[:, :-1]], 1), actions)
        for name, (frames, acted) in wrong.items():
            with pytest.raises(WorldError, match=r"(frames|actions): expected .* got "):
                world.encode(frames.to(world.device), acted.to(world.device))
                pytest.fail(name)

    def test_an_action_that_does_not_fit_is_refused(self, world: WorldModel) -> None:
        state = self.walked(world)
        action = self.some_actions(world)
        for wrong in (action[:-1], action[None], torch.stack([action, action], -1)):
            with pytest.raises(WorldError, match="action: expected shape"):
                world.step(state, wrong)

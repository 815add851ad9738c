from dataclasses import FrozenInstanceError, replace

import gymnasium
import numpy as np
import pytest
import torch

import worldsim
from tests.contracts import assert_same
from worldsim.core import (
    ActionSpec,
    Conditions,
    Prediction,
    WorldError,
    WorldModel,
    WorldSpec,
    WorldState,
    row_keys,
)

BOX = ActionSpec(kind="continuous", low=(-1.0, 0.0, 0.0), high=(1.0, 1.0, 2.0))
FIVE = ActionSpec(kind="discrete", n=5)


def some_state(rows: int = 4, start: int = 0) -> WorldState:
    def numbers(*shape: int) -> torch.Tensor:
        flat = torch.arange(rows * int(np.prod(shape, dtype=int)), dtype=torch.float32)
        return (flat + 100 * start).reshape(rows, *shape)

    return WorldState.of(
        latents=numbers(3, 2, 2),
        actions=numbers(3, 2),
        known=torch.arange(3 * rows).reshape(rows, 3) % 2 == 0,
        filled=torch.arange(rows) % 3 + 1,
        age=torch.arange(rows),
        key=row_keys(range(start, start + rows)),
        cache=numbers(0),
        uncertainty=numbers(0),
    )


# --- Actions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "action", "value"),
    [
        (BOX, [0.5, 0, 2], [0.5, 0, 2]),
        (BOX, (1, 1, 1), [1, 1, 1]),
        (BOX, np.array([-1, 0, 0], np.float64), [-1, 0, 0]),
        (BOX, np.array([1, 1, 2], np.int8), [1, 1, 2]),
        (BOX, torch.tensor([0, 0, 0.5], dtype=torch.float16), [0, 0, 0.5]),
        (FIVE, 3, 3),
        (FIVE, np.int64(4), 4),
        (FIVE, np.uint64(4), 4),
        (FIVE, np.array(0), 0),
        (FIVE, torch.tensor(2, dtype=torch.int32), 2),
    ],
)
def test_good_actions(spec: ActionSpec, action: object, value: object) -> None:
    checked = spec.check(action)
    assert checked.dtype == spec.dtype and tuple(checked.shape) == spec.shape
    assert checked.tolist() == value


BELOW = float(np.nextafter(np.float32(-1), np.float32(-2)))
ABOVE = float(np.nextafter(np.float32(2), np.float32(3)))


@pytest.mark.parametrize(
    ("spec", "action", "message"),
    [
        (BOX, [0, 0], r"expected shape \(3,\), got \(2,\)"),
        (BOX, [[0, 0, 0]], r"expected shape \(3,\), got \(1, 3\)"),
        (BOX, 0.0, r"expected shape \(3,\), got \(\)"),
        (BOX, [0, 0, float("nan")], "expected finite values"),
        (BOX, [0, float("inf"), 0], "expected finite values"),
        (BOX, [BELOW, 0, 0], "expected finite values from .* clip it"),
        (BOX, [0, 0, ABOVE], "expected finite values from .* clip it"),
        (BOX, [True, False, True], "expected real numbers"),
        (BOX, [1j, 0, 0], "expected real numbers"),
        (BOX, "abc", "expected numbers, got str"),
        (BOX, ["a", "b", "c"], "expected numbers, got list"),
        (BOX, None, "expected numbers, got NoneType"),
        (BOX, [[0], [0, 0], 1], "expected numbers, got list"),
        (BOX, {"steer": 0}, "expected numbers, got dict"),
        (FIVE, 5, "expected 0 to 4, got 5"),
        (FIVE, -1, "expected 0 to 4, got -1"),
        (FIVE, np.uint64(2**63), "expected 0 to 4"),
        (FIVE, 2.0, "expected an integer, got torch.float"),
        (FIVE, True, "expected an integer, got torch.bool"),
        (FIVE, [1], r"expected shape \(\), got \(1,\)"),
        (FIVE, "1", "expected numbers"),
    ],
)
def test_bad_actions(spec: ActionSpec, action: object, message: str) -> None:
    with pytest.raises(WorldError, match=f"action: {message}"):
        spec.check(action)


def test_batches_of_actions() -> None:
    assert BOX.check(torch.zeros(4, 3), (4,)).shape == (4, 3)
    assert FIVE.check([[0, 1], [2, 3]], (2, 2)).shape == (2, 2)
    with pytest.raises(WorldError, match=r"expected shape \(4, 3\), got \(3, 3\)"):
        BOX.check(torch.zeros(3, 3), (4,))


def test_a_state_holds_zeros_where_an_action_is_not_known() -> None:
    actions, known = torch.ones(2, 2, 3), torch.tensor([[True, False], [True, True]])
    actions[0, 1] = float("nan")
    held, mask = SPEC.hold_actions(actions, known, (2, 2), torch.device("cpu"))
    assert mask.tolist() == [[False, True, False], [False, True, True]]
    assert held[..., 0].tolist() == [[0, 1, 0], [0, 1, 1]]
    held, mask = SPEC.hold_actions(None, None, (2, 2), torch.device("cpu"))
    assert not held.any() and not mask.any()
    for wrong in (known[:1], known.float()):
        with pytest.raises(WorldError, match="known: expected bool of shape"):
            SPEC.hold_actions(actions, wrong, (2, 2), torch.device("cpu"))


def test_conditions_follow_each_other_and_text_speaks_of_what_comes() -> None:
    past = Conditions.of(torch.zeros(2, 3, 1), text=torch.zeros(2, 4)).as_context()
    following = Conditions.of(torch.ones(2, 1, 1), text=torch.ones(2, 4))
    both = past.then(following)
    assert both.action[..., 0].tolist() == [[0, 0, 0, 1]] * 2
    assert both.text_known.tolist() == [[False, False, False, True]] * 2 and both.text.all()
    assert both.latent_action.shape == both.world.shape == (2, 0)
    assert_same(both.chunks(slice(3, None)), following)
    assert_same(both.repeat(2)[::2], both)


def test_spaces() -> None:
    space = BOX.space(seed=1)
    assert isinstance(space, gymnasium.spaces.Box) and space.dtype == np.float32
    assert space.low.tolist() == [-1, 0, 0] and space.high.tolist() == [1, 1, 2]
    assert FIVE.space() == gymnasium.spaces.Discrete(5)
    for spec in (BOX, FIVE):
        space = spec.space(seed=3)
        for _ in range(200):
            spec.check(space.sample())


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "continuous"},
        {"kind": "continuous", "low": (0.0,), "high": (0.0,)},
        {"kind": "continuous", "low": (0.0,), "high": (1.0, 2.0)},
        {"kind": "continuous", "low": (float("nan"),), "high": (1.0,)},
        {"kind": "continuous", "low": (float("-inf"),), "high": (1.0,)},
        {"kind": "continuous", "low": (0.0,), "high": (float("inf"),)},
        {"kind": "discrete"},
        {"kind": "discrete", "n": -2},
        {"kind": "other", "n": 2},
    ],
)
def test_bad_action_specs(wrong: dict) -> None:
    with pytest.raises(WorldError, match="action: expected"):
        ActionSpec(**wrong)


# --- Clips ----------------------------------------------------------------------------------------

SPEC = WorldSpec(
    name="w",
    frame_shape=(8, 16, 3),
    chunk=2,
    context=3,
    latent_shape=(1, 2, 4),
    action=BOX,
    fps=50.0,
    time_limit=100,
)


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_good_clips(chunks: int) -> None:
    frames = torch.zeros(2 * chunks, 8, 16, 3, dtype=torch.uint8)
    SPEC.check_clip(frames, BOX.blank(chunks))
    SPEC.check_clip(frames, BOX.blank(chunks), known=torch.ones(chunks, dtype=torch.bool))
    SPEC.check_clip(frames)
    SPEC.check_clip(frames.expand(5, *frames.shape), BOX.blank(5, chunks), batch=(5,))


@pytest.mark.parametrize(
    ("shape", "dtype", "actions", "message"),
    [
        ((2, 16, 8, 3), torch.uint8, (1, 3), r"frames: expected shape \(n, 8, 16, 3\)"),
        ((2, 8, 16), torch.uint8, (1, 3), "frames: expected shape"),
        ((), torch.uint8, (1, 3), "frames: expected shape"),
        ((2, 8, 16, 3), torch.float32, (1, 3), "frames: expected uint8"),
        ((0, 8, 16, 3), torch.uint8, (0, 3), "frames: expected a multiple of 2 up to 6, got 0"),
        ((3, 8, 16, 3), torch.uint8, (1, 3), "frames: expected a multiple of 2 up to 6, got 3"),
        ((8, 8, 16, 3), torch.uint8, (4, 3), "frames: expected a multiple of 2 up to 6, got 8"),
        ((4, 8, 16, 3), torch.uint8, (1, 3), r"actions: expected shape \(2, 3\), got \(1, 3\)"),
        ((2, 8, 16, 3), torch.uint8, (1,), r"actions: expected shape \(1, 3\), got \(1,\)"),
    ],
)
def test_bad_clips(
    shape: tuple[int, ...], dtype: torch.dtype, actions: tuple[int, ...], message: str
) -> None:
    with pytest.raises(WorldError, match=message):
        SPEC.check_clip(torch.zeros(shape, dtype=dtype), torch.zeros(actions))


# --- Rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows", [slice(1, 3), [2, 0], torch.tensor([3, 3]), torch.tensor([True, False, True, False])]
)
def test_some_rows(rows) -> None:
    state = some_state()
    some = state[rows]
    assert len(some) == 2
    for name in ("latents", "actions", "filled", "age", "key", "cache"):
        assert torch.equal(getattr(some, name), getattr(state, name)[rows]), name


def test_round_trips() -> None:
    a, b = some_state(), some_state(start=9)
    both = WorldState.cat([a, b])
    assert len(both) == 8
    assert_same(both[:4], a)
    assert_same(both[4:], b)
    assert_same(WorldState.cat([both[[i]] for i in range(8)]), both)
    assert_same(both.to("cpu").map(torch.clone), both)


def test_repeat_puts_copies_beside_each_other() -> None:
    state = some_state()
    many = state.repeat(3)
    assert len(many) == 12 and many.age.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    for copy in range(3):
        assert_same(many[copy::3], state)


def test_where_takes_whole_rows() -> None:
    a, b = some_state(), some_state(start=9)
    mask = torch.tensor([True, False, False, True])
    mixed = a.where(mask, b)
    assert_same(mixed[mask], a[mask])
    assert_same(mixed[~mask], b[~mask])
    assert_same(a.where(torch.ones(4, dtype=torch.bool), b), a)


def test_a_prediction_has_rows_too() -> None:
    said = Prediction(
        torch.tensor([1.0, 2]), torch.tensor([0.5, 1]), torch.tensor([float("nan")] * 2)
    )
    assert len(said) == 2 and said.repeat(2).reward.tolist() == [1, 1, 2, 2]
    assert_same(Prediction.cat([said[[0]], said[[1]]]), said)


def test_states_are_frozen_and_know_their_newest_latent() -> None:
    state = some_state()
    assert torch.equal(state.latent, state.latents[:, -1])
    with pytest.raises(FrozenInstanceError):
        state.age = state.age + 1  # type: ignore[misc]
    assert replace(state, age=state.age + 1).age.tolist() == [1, 2, 3, 4]


def test_row_keys() -> None:
    assert row_keys([3, 2**62], episode=5).tolist() == [[3, 5], [2**62, 5]]
    assert row_keys([]).shape == (0, 2)


# --- The package ----------------------------------------------------------------------------------


def test_public_names_are_the_things_themselves() -> None:
    assert worldsim.WorldSpec is WorldSpec and worldsim.WorldModel is WorldModel
    assert set(worldsim.__all__) <= set(dir(worldsim))
    for name in worldsim.__all__:
        assert callable(public := getattr(worldsim, name))
        own = {"open": "open_dataset"}.get(name, name)  # "open" would hide Python's at its home
        assert public.__name__.rpartition(".")[2] == own  # of packages that are called, too
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        worldsim.nonsense  # noqa: B018

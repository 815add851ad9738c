"""One player's dream: exact rewinds, branches, bounds."""
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import base64
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.worlds import tiny_world
from worldsim.core import ActionSpec, WorldError
from worldsim.play.controls import Controls
from worldsim.play.handover import Company
from worldsim.play.session import Moment, Session
from worldsim.states import StateSpec
from worldsim.world.point import PointWorld


@pytest.fixture
def session() -> Session:
    return Session(PointWorld(noise=0.01, time_limit=12), seed=3)


def test_keys_move_the_point(session: Session) -> None:
    left, right = (Session(session.world, seed=3) for _ in range(2))
    for _ in range(3):
        assert np.array_equal(left.now.frames, right.now.frames) == (left.now.step == 0)
        left.step(("a",)), right.step(("d",))
    x = [s.now.state.episode.state.latent[0, 0].item() for s in (left, right)]
    assert x[0] < x[1] - 0.2
    assert left.now.action == pytest.approx([-1, 0]) and left.now.step == 3


def test_a_rewound_moment_goes_on_bit_for_bit_and_a_branch_drops_what_came_after(
    session: Session,
) -> None:
    path = [session.step(("a",)) for _ in range(6)]
    assert session.rewind(2) is path[1]
    again = [session.step(("a",)) for _ in range(4)]
    for before, after in zip(path[2:], again, strict=True):
        assert np.array_equal(before.frames, after.frames) and before.total == after.total
    session.rewind(2)
    branch = session.step(("d",))
    assert not np.array_equal(branch.frames, path[2].frames)
    assert [m.step for m in session.played()] == [0, 1, 2, 3] and session.now is branch


def test_the_end_stops_and_can_be_rewound(session: Session) -> None:
    for _ in range(15):
        session.step()
    assert session.now.step == 12 and session.now.truncated and session.now.over
    session.rewind(5)
    assert session.step().step == 6


def test_old_moments_are_dropped_within_the_bound() -> None:
    session = Session(PointWorld(time_limit=10_000), limit=200_000)
    for _ in range(100):
        session.step()
    kept = len(session.moments)
    assert 2 < kept < 30 and session.now.step == 100
    assert session.rewind(0).step == 100 - kept + 1  # the nearest that is kept


def test_it_begins_at_the_players_picture(session: Session) -> None:
    other = Session(session.world, seed=9)
    pixels = base64.b64encode(other.now.frames[-1].tobytes()).decode()
    frames = session.reset(1, pixels).frames
    assert np.abs(frames.astype(int) - other.now.frames).max() < 40 and session.seed == 1
    clip = base64.b64encode(other.now.frames.tobytes()).decode()
    assert np.abs(session.reset(1, clip).frames.astype(int) - other.now.frames).max() < 40
    before = session.now
    for bad in ("!", base64.b64encode(b"short").decode()):
        with pytest.raises(WorldError, match="pixels: expected"):
            session.reset(1, bad)
    assert session.now is before


def test_controls_of_every_kind() -> None:
    box = ActionSpec(kind="continuous", low=(-1.0, 0.0), high=(1.0, 1.0))
    keys = {"a": np.float32([-1, 0]), "w": np.float32([0, 1]), "aw": np.float32([-1, 1])}
    controls = Controls(keys, np.float32([0, 0]), box)
    assert controls.from_keys(()) is controls.noop
    assert controls.from_keys(("x", "a")).tolist() == [-1, 0]
    assert controls.from_keys(("w", "a")).tolist() == [-1, 1]
    assert [k.label for k in controls.keys] == ["axis 1 down", "axis 2 up"]
    assert controls.from_values((0.5, 0.25)).tolist() == [0.5, 0.25]
    with pytest.raises(WorldError, match="action: expected finite values"):
        controls.from_values((0.5, 2.0))
    choice = Controls({"1": 1, (ord("2"),): 2}, 0, ActionSpec(kind="discrete", n=3))
    assert choice.from_keys(("1", "2")) == 2 and choice.from_keys(("2", "1")) == 1
    assert choice.from_values((2.0,)) == 2
    with pytest.raises(WorldError, match="whole numbers"):
        choice.from_values((0.5,))
    several = Controls({}, 0, ActionSpec(kind="multi_discrete", nvec=(3, 2)))
    assert several.from_values((2, 1)).tolist() == [2, 1]
    keyed = Controls({"1": np.array([2, 0])}, np.array([0, 0]), several.spec)
    assert [key.label for key in keyed.keys] == ["entry 1 is 2"]


class Steady:
    """A policy that pushes up, and remembers what it was shown since its reset."""

    def __init__(self) -> None:
        self.past: list[int] = []
        self.asked: list[int] = []

    def reset(self, past: Sequence[Moment]) -> None:
        self.past, self.asked = [m.step for m in past], []

    def __call__(self, moment: Moment) -> Any:
        self.asked.append(moment.step)
        return np.float32([0.0, 1.0])


def test_a_policy_says_what_it_would_do_does_it_and_forgets_what_was_rewound() -> None:
    steady = Steady()
    session = Session(PointWorld(), company=Company(policies={"steady": lambda: steady}))
    session.step(("d",))
    assert session.advice is None
    session.choose("steady")
    assert session.advice.tolist() == [0, 1] and session.advice is session.advice
    assert session.step(driver="policy").action.tolist() == [0, 1]
    assert session.now.driver == "steady"
    assert (steady.past, steady.asked) == ([0], [1]) and session.advice is not None
    session.step(("a",))
    assert session.advice is not None and steady.asked == [1, 2, 3]  # it sees what others do
    session.rewind(1)
    session.step(driver="policy")
    assert (steady.past, steady.asked) == ([0], [1])
    with pytest.raises(WorldError, match="expected one of steady, got 'other'"):
        session.choose("other")
    session.choose("")
    assert session.advice is None
    with pytest.raises(WorldError, match="choose one first"):
        session.step(driver="policy")


def test_an_action_is_shown_as_the_nearest_keys() -> None:
    controls = Session(PointWorld()).controls
    for held in ((), ("d",), ("a", "s"), ("d", "w")):
        action = np.float32(controls.from_keys(held)) * 0.8
        assert controls.nearest(action) == held
    choice = Controls({"1": 2, "2": 3}, 1, ActionSpec(kind="discrete", n=3, start=1))
    assert [choice.nearest(a) for a in (1, 2, 3)] == [(), ("1",), ("2",)]


def test_reality_goes_on_beside_the_dream_and_is_left_by_a_rewind() -> None:
    world = PointWorld()
    make = partial(
        gymnasium.make, "WorldSim-v0", world=world, observation="chunk", actions="native"
    )
    session = Session(world, company=Company(real=make))
    assert session.reset(4, real=True).real is not None
    for _ in range(3):
        moment = session.step(("d",))
        assert moment.real is not None
        assert np.abs(moment.real.astype(int) - moment.frames).mean() < 2  # the same world twice
    session.rewind(1)
    assert session.step(("d",)).real is None
    assert session.reset(4).real is None and session.step().real is None
    with pytest.raises(WorldError, match="no real environment"):
        Session(world).reset(1, real=True)


class Felt:
    """A real environment that ends at once now and then, with a state vector that counts."""

    def __init__(self, ends: int) -> None:
        self.ends, self.count = ends, 0

    def _seen(self) -> tuple[np.ndarray, dict[str, Any]]:
        self.count += 1
        frames = np.full((2, 24, 32, 3), self.count, np.uint8)
        return frames, {"state": np.array([self.count, 0], np.float32)}

    def reset(self, *, seed: int) -> Any:
        self.count = 0
        return self._seen()

    def step(self, action: Any) -> Any:
        frames, info = self._seen()
        return frames, 0.0, self.count == self.ends, False, info


def test_a_dream_beside_reality_begins_with_what_it_feels() -> None:
    state = StateSpec(names=("a", "b"), mean=(0.0, 0.0), std=(1.0, 1.0), change=(1.0, 1.0))
    for ends, known in ((9, [1, 2, 3]), (2, [1])):
        session = Session(tiny_world(state=state), company=Company(real=partial(Felt, ends)))
        began = session.reset(4, real=True).state.episode.state
        assert began.states_known[0].sum() == len(known)
        assert began.states[0, -len(known) :, 0].tolist() == known
    plain = Session(tiny_world(), company=Company(real=partial(Felt, 9)))
    assert plain.reset(4, real=True).real is not None


def test_what_is_said_changes_the_future_and_is_rewound() -> None:
    session = Session(tiny_world(text=True), seed=1)
    assert session.takes_text and not Session(PointWorld()).takes_text
    silent = session.step().frames
    session.rewind(0)
    session.say("snow at night")
    said = session.step().frames
    session.rewind(0)
    assert np.array_equal(session.step().frames, said) and not np.array_equal(said, silent)
    session.rewind(0)
    session.say("")
    assert np.array_equal(session.step().frames, silent)

"""The TorchRL face: any batch from any state, and the traps of stateless environments."""

import copy
import pickle
from dataclasses import fields
from typing import Any

import gymnasium
import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torchrl.collectors import Collector
from torchrl.data import Categorical
from torchrl.envs import GymWrapper
from torchrl.envs.utils import check_env_specs
from torchrl.modules import CEMPlanner, MPPIPlanner, ValueOperator
from torchrl.objectives.value import TDLambdaEstimator

from tests.worlds import BUTTONS, tiny_world
from worldsim.core import WorldError, WorldState
from worldsim.envs import WorldSimEnv, WorldSimTorchRL
from worldsim.world.point import PointWorld

SHORT: Any = PointWorld(size=16, noise=0.3, thrust=0.4, arena=1.0, time_limit=6)  # ends both ways
CALM: Any = PointWorld(size=16, time_limit=6)
HELD = tuple(field.name for field in fields(WorldState))


def make(world: Any = SHORT, batch: tuple[int, ...] = (3,), seed: int = 0, **options: Any):
    env = WorldSimTorchRL(world, batch, **options)
    env.set_seed(seed)
    return env


def same(a: TensorDictBase, b: TensorDictBase) -> None:
    """Equal keys and bytes; NaN, an unknown action, equals NaN."""
    keys = set(a.keys(True, True))
    assert keys == set(b.keys(True, True)) and a.batch_size == b.batch_size
    differ = [k for k in keys if not torch.equal(_bytes(a.get(k)), _bytes(b.get(k)))]
    assert not differ


def _bytes(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.uint8)


def state_of(held: Any) -> WorldState:
    """The world's state in one batch axis of a tensordict."""
    counts = ("filled", "age")
    return WorldState(**{k: held[k][:, 0] if k in counts else held[k] for k in HELD})


def given(td: TensorDictBase) -> Tensor:
    """The actions of a rollout `(*batch, T, ...)`, time first, for another one to follow."""
    return td["action"].movedim(td.batch_dims - 1, 0)


# --- Specs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "observation"), [((), "latent"), ((1,), "frame"), ((2, 3), "chunk")]
)
def test_specs(batch: tuple[int, ...], observation: str) -> None:
    world = PointWorld(size=16, noise=0.2, time_limit=2)
    env = make(world, batch, observation=observation)
    check_env_specs(env, break_when_any_done="both", seed=0)
    assert not env.batch_locked and env.batch_size == torch.Size(batch)


@pytest.mark.parametrize("discrete", [False, True])
def test_specs_of_a_network(discrete: bool) -> None:
    env = make(tiny_world(BUTTONS) if discrete else tiny_world(), time_limit=2)
    check_env_specs(env, break_when_any_done="both", seed=0)
    assert isinstance(env.action_spec, Categorical) == discrete
    assert env.observation_spec["world", "cache"].shape[0] == 3


def test_all_that_evolves_is_observed() -> None:
    """What is in the state spec alone freezes without a word: the rollout carries it nowhere."""
    env = make(tiny_world(), time_limit=50)
    observed = set(env.observation_spec.keys(True, True))
    assert set(env.state_spec.keys(True, True)) == {("world", name) for name in HELD} < observed
    dream = env.rollout(6)
    assert dream["world", "age"][0, :, 0].tolist() == list(range(6))
    for name in ("latents", "actions", "cache"):
        told = dream["world", name][0]
        assert all(
            not torch.equal(_bytes(a), _bytes(b)) for a, b in zip(told, told[1:], strict=False)
        )
    same(dream[:, 1:]["world"], dream[:, :-1]["next", "world"])


# --- Rows and states ------------------------------------------------------------------------------


def test_steps_are_the_worlds() -> None:
    world = tiny_world()
    env = make(world, observation="frame")
    td = env.rand_step(env.reset())
    state = state_of(td["world"])
    low, high = torch.tensor([[-1.0, 0, 0], [1, 1, 1]])
    after, said = world.step(state, low + (td["action"] + 1) / 2 * (high - low))
    assert torch.equal(td["next", "world", "latents"], after.latents)
    assert torch.equal(td["next", "world", "cache"], after.cache)
    assert torch.equal(td["next", "pixels"], world.decode(after)[:, -1])
    assert torch.equal(td["next", "reward"][:, 0], said.reward)
    assert torch.equal(td["next", "terminated"][:, 0], said.continue_prob < 0.5)


def test_a_row_is_a_single_environment() -> None:
    """From the same state under the same actions, where arithmetic does not know the batch."""
    env, single = make(), WorldSimEnv(SHORT, observation="latent")
    td = env.reset()
    single.reset(seed=0)
    saved = single.get_state()
    state = {k: td["world", k] for k in HELD}
    for name in HELD:
        x = getattr(saved.episode.state, name)
        state[name][1] = x if name not in ("filled", "age") else x[0]
    dream = env.rollout(6, tensordict=td, set_state=True, break_when_any_done=False)[1]
    for t in range(6):
        obs, reward, terminated, truncated, _ = single.step(dream["action"][t])
        told = dream["next"][t]
        assert told["observation"].tolist() == obs.tolist()
        ends = told["terminated"].item(), told["truncated"].item()
        assert (told["reward"].item(), *ends) == (reward, terminated, truncated)
        if terminated or truncated:
            break


@pytest.mark.parametrize(("world", "batch"), [(SHORT, ()), (SHORT, (2, 2)), (tiny_world(), (3,))])
def test_a_state_that_is_set_repeats_the_future_bit_for_bit(world: Any, batch: tuple) -> None:
    options: dict[str, Any] = {"observation": "frame", "time_limit": 6, "resets": False}
    env = make(world, batch, **options)
    middle = env.rollout(4)[..., -1]["next"].select("world").clone()
    go_on: dict[str, Any] = {"set_state": True, "break_when_any_done": False}
    first = env.rollout(5, tensordict=middle.clone(), **go_on)
    env.set_seed(77)
    env.rollout(3)  # some other life in between
    for other in (env, make(world, batch, seed=5, **options)):
        same(other.reset(middle.clone(), set_state=True)["world"], middle["world"])
        same(other.rollout(5, actions=given(first), tensordict=middle.clone(), **go_on), first)


def test_any_batch_from_one_environment() -> None:
    env = make(batch=())
    for batch in ((), (4,), (2, 3)):
        td = env.reset(TensorDict({}, batch))
        assert td.batch_size == torch.Size(batch) and td["world", "latents"].shape[:-2] == batch
        stepped = env.rollout(3, tensordict=td, set_state=True, break_when_any_done=False)
        assert stepped.batch_size == torch.Size((*batch, 3))
    with pytest.raises(RuntimeError, match="batch_size"):
        make(batch=(3,)).reset(TensorDict({}, (4,)))


@pytest.mark.parametrize("fault", ["missing", "shape", "dtype"])
def test_a_state_that_does_not_fit_is_named(fault: str) -> None:
    env = make()
    td = env.reset()
    if fault == "missing":
        del td["world", "key"]
    else:
        key = td["world", "key"]
        td["world", "key"] = key.repeat(1, 2) if fault == "shape" else key.int()
    with pytest.raises(WorldError, match=r"world, key: expected torch.int64 \(2,\), got"):
        env.reset(td, set_state=True)


# --- Seeds, starts and ends -----------------------------------------------------------------------


def test_seeds_name_all_that_is_drawn() -> None:
    torch.manual_seed(3)
    dreams = [make(seed=s).rollout(4, policy=_still) for s in (1, 2, 1)]
    same(dreams[0], dreams[2])
    assert not torch.equal(dreams[0]["observation"], dreams[1]["observation"])
    env = make(batch=(50,))
    starts = torch.cat([env.reset()["observation"][:, 0] for _ in range(2)])
    assert len(starts.unique()) == 100


def _still(td: TensorDictBase) -> TensorDictBase:
    return td.set("action", torch.zeros(*td.batch_size, 2))


@pytest.mark.filterwarnings("ignore:A reset tensordict carrying state")
@pytest.mark.parametrize("set_state", [None, False, True])
def test_some_rows_begin_anew(set_state: bool | None) -> None:
    env = make(CALM)
    td = env.rollout(3, policy=_still)[:, -1]["next"]
    before = td.clone()
    mask = torch.tensor([[False], [True], [False]])
    after = env.reset(td.set("_reset", mask), set_state=set_state)
    kept = ~mask[:, 0]
    same(after[kept].select("world"), before[kept].select("world"))
    assert after["world", "age"][:, 0].tolist() == [3, 0, 3]
    named = int(before["world", "key"][0, 0])
    assert after["world", "key"][1].tolist() == [named, 3]  # three rows began before
    alone = env.reset(TensorDict({"_reset": mask}, (3,)))
    assert alone["observation"].isfinite().all()


def test_a_horizon_is_truncated_and_an_end_terminated() -> None:
    dream = make(CALM).rollout(20, policy=_still)
    assert dream.shape == (3, 6)
    last = dream[:, -1]["next"]
    assert last["truncated"].all() and last["done"].all() and not dream["next", "terminated"].any()
    wild = make(PointWorld(size=16, thrust=3.0, arena=1.0)).rollout(9, policy=_push)
    last = wild[:, -1]["next"]
    assert last["terminated"].any() and not last["truncated"].any()


def _push(td: TensorDictBase) -> TensorDictBase:
    return td.set("action", torch.ones(*td.batch_size, 2))


@pytest.mark.parametrize("resets", [True, False])
def test_ended_rows_begin_anew_or_dream_on(resets: bool) -> None:
    dream = make(CALM, resets=resets).rollout(9, policy=_still, break_when_any_done=False)
    ages = dream["world", "age"][0, :, 0].tolist()
    assert ages == ([0, 1, 2, 3, 4, 5, 0, 1, 2] if resets else list(range(9)))


# --- Users of TorchRL environments ----------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (4,)])
def test_a_collector(batch: tuple[int, ...]) -> None:
    env = make(batch=batch)
    frames = 40
    collector = Collector(env, None, frames_per_batch=frames, total_frames=2 * frames)
    count = 0
    for data in collector:
        count += data.numel()
        assert data.batch_size == torch.Size((*batch, frames // max(1, *batch, 1)))
        ended = data["next", "done"][..., 0]
        assert ended.any()
        begun = data["world", "age"][..., 1:, 0] == 0
        assert torch.equal(begun, ended[..., :-1])
    collector.shutdown()
    assert count == 2 * frames


def planner(kind: str, env: WorldSimTorchRL) -> nn.Module:
    sizes: dict[str, Any] = {
        "planning_horizon": 5,
        "optim_steps": 4,
        "num_candidates": 64,
        "top_k": 8,
    }
    if kind == "CEM":
        return CEMPlanner(env, **sizes)
    value = ValueOperator(nn.Linear(4, 1), in_keys=["observation"])
    for p in value.parameters():
        nn.init.zeros_(p)
    advantage = TDLambdaEstimator(gamma=1.0, lmbda=1.0, value_network=value)
    return MPPIPlanner(env, advantage, temperature=20.0, **sizes)


@pytest.mark.parametrize("kind", ["CEM", "MPPI"])
@torch.no_grad()
def test_torchrls_planners_drive_towards_the_goal(kind: str) -> None:
    """The best plan is known: they earn most of it, and random actions nothing to speak of."""
    world = PointWorld(size=16, time_limit=50)
    env = make(world, (), resets=False)
    torch.manual_seed(0)
    start = env.reset(TensorDict({}, (4,)))
    state = state_of(start["world"])
    best = world.best_return(state, 5)
    td, won = start, torch.zeros(4, 1)
    plan = planner(kind, env)
    for _ in range(5):
        td = env.step(plan(td))
        won += td["next", "reward"]
        td = env.step_mdp(td)
    assert won.sum() > 0.5 * best.sum(), (won[:, 0], best)


@pytest.mark.parametrize("resets", [True, False])
@torch.no_grad()
def test_planning_past_an_end_begins_nothing(resets: bool) -> None:
    begun: list[int] = []

    class Counting(PointWorld):
        def reset(self, key):
            begun.append(len(key))
            return super().reset(key)

    env = make(Counting(size=16, time_limit=2), (), resets=resets)
    td = env.reset(TensorDict({}, (2,)))
    begun.clear()
    CEMPlanner(env, planning_horizon=4, optim_steps=2, num_candidates=8, top_k=2)(td)
    assert bool(begun) == resets


@pytest.mark.parametrize("output", ["numpy", "torch"])
@pytest.mark.parametrize("mode", ["SAME_STEP", "DISABLED"])
def test_torchrl_wraps_the_vector_environment_too(mode: str, output: str) -> None:
    options: dict[str, Any] = {"world": CALM, "observation": "latent", "output": output}
    env = GymWrapper(gymnasium.make_vec("WorldSim-v0", 3, autoreset_mode=mode, **options))
    dream = env.rollout(14, break_when_any_done=False)
    ended = dream["next", "truncated"][..., 0]
    assert torch.equal(ended, (torch.arange(1, 15) % 6 == 0).expand(3, 14))
    last, first = dream["next", "observation"][:, 5], dream["observation"][:, 6]
    assert (last != first).any(1).all()  # of the old episode, of the next one


# --- House ----------------------------------------------------------------------------------------


def test_native_actions() -> None:
    env = make(tiny_world(), actions="native")
    assert (env.action_spec.project(-torch.ones(3, 3))[0] == torch.tensor([-1.0, 0, 0])).all()
    td = env.rand_step(env.reset())
    assert torch.equal(td["next", "world", "actions"][:, -1], td["action"])


@pytest.mark.parametrize("copied", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy])
def test_copies_go_on_alike(copied: Any) -> None:
    env = make("worldsim.world.point:PointWorld")
    env.reset()
    twin = copied(env)
    same(env.rollout(3, policy=_still), twin.rollout(3, policy=_still))

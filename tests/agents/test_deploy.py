"""A saved agent, a planner, any function: what was made in a world drives the real environment."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.worlds import tiny_world
from worldsim.agents.actor_critic import ActorCritic, AgentConfig, DreamPolicy
from worldsim.agents.deploy import RealPolicy, load_policy, real_environment
from worldsim.agents.planners import CategoricalCEM, PlanningPolicy
from worldsim.agents.training import load_agent, read_agent, save_agent
from worldsim.core import ActionSpec, EnvironmentSpec, WorldError
from worldsim.store.folder import save
from worldsim.world.diffusion import DiffusionWorld

SMALL = AgentConfig(width=8, hidden=16)
SEEN: dict[str, Any] = {"source": "render", "size": (24, 32), "chunk": 2, "max_frames": 24}
CART = EnvironmentSpec(id="CartPole-v1", **SEEN)
PENDULUM = EnvironmentSpec(id="Pendulum-v1", **SEEN)
ACTIONS = {
    "CartPole-v1": ActionSpec(kind="discrete", n=2),
    "Pendulum-v1": ActionSpec(kind="continuous", low=(-2.0,), high=(2.0,)),
}


def world_of(environment: EnvironmentSpec) -> DiffusionWorld:
    world = tiny_world(ACTIONS[environment.id])
    config = replace(world.config, environment=environment)
    return DiffusionWorld(config, world.vae, world.dynamics, world.starts)


def agent_of(world: DiffusionWorld, sees: Any = "latents") -> ActorCritic:
    torch.manual_seed(0)
    agent = ActorCritic(world.spec, replace(SMALL, sees=sees))
    torch.nn.init.normal_(agent.actor[-1].weight)  # type: ignore[arg-type]
    return agent.eval()


@pytest.mark.filterwarnings("ignore:.*no fidelity card")
@pytest.mark.parametrize(
    ("sees", "environment", "actions"),
    [("latents", CART, "normalized"), ("pixels", PENDULUM, "native")],
)
def test_a_saved_agent_finds_its_world_and_drives_its_environment(
    sees: str, environment: EnvironmentSpec, actions: Any, tmp_path: Path
) -> None:
    world = world_of(environment)
    folder = save(world, tmp_path / "world")
    save_agent(agent_of(world, sees), tmp_path / "agent", world=str(folder))
    policy = load_policy(tmp_path / "agent", actions=actions)
    env = policy.environment()
    spec = world.spec.action
    assert env.action_space == (spec.normalized() if actions == "normalized" else spec).space()
    for _ in range(2):
        obs, _ = env.reset(seed=3)
        policy.reset()
        taken, over = [], False
        while not over:
            taken.append(policy(obs))
            obs, _, terminated, truncated, _ = env.step(taken[-1])
            over = terminated or truncated
    env.close()
    assert 4 < len(taken) <= 12


@pytest.mark.parametrize("sees", ["latents", "pixels"])
def test_an_agent_acts_in_reality_as_in_a_dream(sees: str) -> None:
    """The frames of a dream, shown as if a camera had taken them, bring out the same actions."""
    world = tiny_world()
    agent, frames = agent_of(world, sees), world.starts.frames[:1]
    real = RealPolicy(agent, world, actions="native")
    thinker = RealPolicy(DreamPolicy(world, agent), world, actions="native")
    for chunk in frames[0].split(2):
        reversed_twice = chunk.numpy()[..., ::-1].copy()[..., ::-1]  # a view, as of BGR pictures
        acted, thought = real(reversed_twice), thinker(chunk.numpy())
    if sees == "latents":
        expected = agent.act(agent.see(world, world.encode(frames)))[0].detach().numpy()
        np.testing.assert_allclose(acted, expected, atol=3e-3)
        np.testing.assert_allclose(thought, expected, atol=3e-3)
    else:  # a picture in a dream has been through the encoder
        assert RealPolicy(agent)(frames[0, :2].numpy()).shape == (3,)
    real.reset()
    assert np.isfinite(real(frames[0, :2].numpy())).all()


def test_a_policy_over_states_sees_what_was_shown_and_taken() -> None:
    world, states = tiny_world(), []

    def policy(state: Any) -> torch.Tensor:
        states.append(state)
        return torch.full((1, 3), 0.1 * len(states))

    real = RealPolicy(policy, world, actions="native")
    frames = world.starts.frames[0].split(2)
    for n in range(5):
        real(frames[n % 3].numpy())
    newest = states[-1]  # a context of three chunks
    assert newest.filled.item() == 3 and newest.known.all()
    torch.testing.assert_close(newest.actions[0, :, 0], torch.tensor([0.2, 0.3, 0.4]))
    assert states[2].known.tolist() == [[False, True, True]]
    clip = torch.cat([frames[2], frames[0], frames[1]])[None]
    assert torch.equal(newest.latents, world.encode(clip, newest.actions).latents)
    unit = RealPolicy(policy, world)(frames[0].numpy())
    np.testing.assert_allclose(unit, [0.6, 0.2, 0.2], atol=1e-6)  # of 0.6 in native


def test_a_planner_drives() -> None:
    world = world_of(CART)
    planner = PlanningPolicy(world, CategoricalCEM(horizon=2, candidates=4, elites=2, rounds=1))
    policy = RealPolicy(planner, world)
    env = policy.environment()
    obs, _ = env.reset(seed=0)
    env.step(policy(obs))
    assert planner.last is not None
    policy.reset()
    assert planner.last is None
    env.close()


def test_refusals() -> None:
    world = tiny_world()
    with pytest.raises(WorldError, match="environment: tiny was made of video"):
        real_environment(world)
    with pytest.raises(WorldError, match="expected the action of tiny.* it is another world's"):
        real_environment(world, PENDULUM)
    for change in ({"chunk": 4}, {"size": (32, 32)}):
        with pytest.raises(
            WorldError, match=f"expected the {'chunk' if 'chunk' in change else 'f'}"
        ):
            real_environment(world_of(PENDULUM), replace(PENDULUM, **change))
    with pytest.raises(WorldError, match="world: expected one"):
        RealPolicy(agent_of(world))
    with pytest.raises(WorldError, match=r"obs: expected a chunk of frames uint8 \(2, 24, 32, 3\)"):
        RealPolicy(agent_of(world), world)(np.zeros((24, 32, 3), np.uint8))


def test_broken_agent_files_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    world = tiny_world()
    save_agent(agent_of(world), tmp_path / "agent")
    with pytest.raises(WorldError, match="names none"):
        load_policy(tmp_path / "agent")
    save_agent(agent_of(world), tmp_path / "far", world="hf://somebody/world")
    with pytest.raises(WorldError, match="pass world='hf://somebody/world' to fetch it"):
        load_policy(tmp_path / "far")
    about = tmp_path / "agent.json"
    text = about.read_text()
    about.write_text(text.replace('"hidden": 16', '"hidden": 3000000'))
    with pytest.raises(WorldError, match="hidden: expected 1 to 65536, got 3000000"):
        load_agent(tmp_path / "agent", world.spec)
    about.write_text(text[:30])
    with pytest.raises(WorldError, match="agent: expected one saved at"):
        read_agent(tmp_path / "agent")
    about.write_text(text)
    weights = tmp_path / "agent.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    for path in ("agent", "nobody"):
        with pytest.raises(WorldError, match="agent: expected one saved"):
            load_agent(tmp_path / path, world.spec)

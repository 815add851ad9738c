"""Training an agent in dreams from a recording: where dreams begin, and going on after a kill."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tests.worlds import tiny_world
from worldsim.agents import imagination, training
from worldsim.agents.actor_critic import ActorCritic, AgentConfig, seen_shape
from worldsim.agents.cloning import Recorded
from worldsim.agents.settings import ImaginationConfig
from worldsim.agents.training import (
    AgentTrainingConfig,
    Material,
    dream,
    load_agent,
    logged_seconds,
    read_agent,
    save_agent,
)
from worldsim.core import WorldError
from worldsim.data.latents import LatentRecording
from worldsim.data.windows import Windows
from worldsim.train.loop import CheckpointError, FitConfig

RECIPE = AgentTrainingConfig(
    agent=AgentConfig(width=8, hidden=16),
    imagination=ImaginationConfig(rows=4, horizon=3, minibatch=6, epochs=2),
    iterations=4,
    best=1.0,
)


def material(lengths: tuple[int, ...] = (30, 20)) -> Material:
    g, count = torch.Generator().manual_seed(0), sum(lengths)
    latents = torch.randn(count, 3, 4, 4, generator=g).half()
    actions = torch.rand(count, 3, generator=g)
    rewards = torch.cat([torch.full((n,), float(i)) for i, n in enumerate(lengths)])
    recording = LatentRecording(latents, actions, rewards, torch.ones(count), Windows(lengths))
    return Material(Recorded(latents, actions, rewards, lengths), recording)


def begin() -> ActorCritic:
    torch.manual_seed(0)
    return ActorCritic(tiny_world().spec, RECIPE.agent)


def same(a: ActorCritic, b: ActorCritic) -> bool:
    weights = b.state_dict()
    return all(torch.equal(x, weights[name]) for name, x in a.state_dict().items())


def killed_after(steps: int) -> Callable[..., dict[str, float]]:
    learn, count = imagination.Learner.learn, 0

    def learn_or_die(self: imagination.Learner, generator: torch.Generator) -> dict[str, float]:
        nonlocal count
        count += 1
        if count > steps:
            raise KeyboardInterrupt
        return learn(self, generator)

    return learn_or_die


def test_a_killed_training_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, stuff = tiny_world(), material()
    fresh, drawn = begin(), torch.get_rng_state()
    whole = dream(world, fresh, stuff, RECIPE, tmp_path / "whole")
    assert torch.equal(drawn, torch.get_rng_state()), "a user's draws do not depend on ours"
    assert not same(whole, begin())
    often = lambda **k: FitConfig(**k, save_seconds=0.0)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(training, "FitConfig", often)
        patch.setattr(imagination.Learner, "learn", killed_after(2))
        with pytest.raises(KeyboardInterrupt):
            dream(world, begin(), stuff, RECIPE, tmp_path / "killed")
    resumed = dream(world, begin(), stuff, RECIPE, tmp_path / "killed")
    assert same(resumed, whole)
    assert read_agent(tmp_path / "killed" / "agent").spent.dream_steps == 4 * 4 * 3
    with pytest.raises(CheckpointError, match="gamma"):
        other = replace(RECIPE, imagination=replace(RECIPE.imagination, gamma=0.5))
        dream(world, begin(), stuff, other, tmp_path / "killed")


def test_pauses_are_not_training_time(tmp_path: Path) -> None:
    lines = [f'{{"step": {i}, "time": {t}}}' for i, t in enumerate((100, 130, 150, 900, 910))]
    (tmp_path / "log").write_text("\n".join(lines))
    assert logged_seconds(tmp_path / "log") == 60


def test_dreams_begin_in_the_best_episodes_after_a_whole_context() -> None:
    world, stuff = tiny_world(), material()
    state = stuff.starts(world, best=0.5)(40, torch.Generator().manual_seed(0))
    best = stuff.latents.latents[30:].float()
    for row in range(40):
        at = (best == state.latents[row, 0]).flatten(1).all(1).nonzero()
        assert len(at) == 1  # within the second episode, whose rewards are higher
        first = int(at)
        assert torch.equal(state.latents[row], best[first : first + 3])
        assert torch.equal(state.actions[row], stuff.latents.actions[30 + first :][:3])
    assert state.known.all()
    video = replace(stuff.latents, known=torch.zeros(50, dtype=torch.bool))
    unknown = Material(stuff.recorded, video).starts(world)(4, torch.Generator().manual_seed(0))
    assert not unknown.known.any()  # zeros that nobody did are no actions


def test_an_untrained_agent_begins_where_it_is_told(tmp_path: Path) -> None:
    spec = tiny_world().spec
    config = replace(RECIPE.agent, start=(0.0, 0.3, 0.0))
    save_agent(ActorCritic(spec, config), tmp_path / "agent")
    agent = load_agent(tmp_path / "agent", spec)
    acted = agent.act(torch.randn(5, *seen_shape(spec, config)))
    torch.testing.assert_close(acted, torch.tensor([0.0, 0.3, 0.05]).expand(5, 3), atol=0.1, rtol=0)
    with pytest.raises(WorldError, match="start: expected 3 numbers"):
        ActorCritic(spec, replace(config, start=(0.0,)))


@pytest.mark.parametrize(("sees", "rows"), [("latents", 2), ("pixels", 16)])
def test_an_agent_may_look_at_the_top_alone(tmp_path: Path, sees: str, rows: int) -> None:
    """What lies below `height` changes nothing, what lies above it does; saved ones know it."""
    spec = tiny_world().spec  # 24x32 pixels, 3x4 latents
    config = replace(RECIPE.agent, sees=sees, height=16)  # type: ignore[arg-type]
    save_agent(ActorCritic(spec, config), tmp_path / "agent")
    agent = load_agent(tmp_path / "agent", spec)
    torch.nn.init.normal_(agent.actor[-1].weight)  # type: ignore[arg-type]
    seen = torch.randn(5, *seen_shape(spec, config))
    below, above = seen.clone(), seen.clone()
    below[..., rows:, :] += 1
    above[..., rows - 1, :] += 1
    assert torch.equal(agent.loc(below), agent.loc(seen))
    assert torch.equal(agent.value(below), agent.value(seen))
    assert not torch.equal(agent.loc(above), agent.loc(seen))
    for bad in (0, 12, 32) if sees == "latents" else (0, 32):
        with pytest.raises(WorldError, match="height: expected a multiple of"):
            ActorCritic(spec, replace(config, height=bad))


def test_there_is_nothing_to_stay_near_without_a_clone() -> None:
    with pytest.raises(WorldError, match="anchor"):
        AgentTrainingConfig(imagination=ImaginationConfig(anchor=1.0))
    AgentTrainingConfig(imagination=ImaginationConfig(anchor=1.0), begin="clone")


def test_an_anchor_keeps_the_agent_near(tmp_path: Path) -> None:
    world, stuff, strayed = tiny_world(), material(), {}
    seen = torch.randn(64, 8, 3, 4, generator=torch.Generator().manual_seed(0))
    for weight in (0.0, 100.0):
        how = replace(RECIPE.imagination, anchor=weight)
        recipe = replace(RECIPE, begin="clone", imagination=how, lr=3e-3, iterations=8)
        agent = dream(world, begin(), stuff, recipe, tmp_path / str(weight))
        strayed[weight] = (agent.loc(seen) - begin().loc(seen)).square().mean().item()
    assert strayed[100.0] < 0.5 * strayed[0.0]


def test_what_is_no_agent_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    spec, path = tiny_world().spec, tmp_path / "agent"
    save_agent(ActorCritic(spec, AgentConfig(width=4, hidden=8)), path)
    told, weights = tmp_path / "agent.json", tmp_path / "agent.safetensors"
    text, whole = told.read_text(), weights.read_bytes()
    for harmed in (text.replace("8", "3000000"), "{", text.replace("hidden", "hiden")):
        told.write_text(harmed)
        with pytest.raises(WorldError, match="agent: expected one saved"):
            load_agent(path, spec)
    told.write_text(text)
    for place in range(0, len(whole), 997):
        bits = bytearray(whole)
        bits[place] ^= 4
        weights.write_bytes(bits)
        with pytest.raises(WorldError, match="expected a whole file of tensors"):
            load_agent(path, spec)
    weights.write_bytes(whole)
    load_agent(path, spec)


def test_every_dream_is_told_one_of_the_prompts() -> None:
    world, stuff = tiny_world(text=True), material()
    texts = ("night", "day", "a snowy road")
    told = training.prompted(world, stuff.starts(world), texts)
    state = told(60, torch.Generator().manual_seed(3))
    tokens = world.prompt(texts)
    counts = [int((state.text == one).all(1).sum()) for one in tokens]
    assert state.text_known.all() and sum(counts) == 60 and min(counts) > 5
    again = told(60, torch.Generator().manual_seed(3))
    assert torch.equal(again.text, state.text)
    assert not stuff.starts(world)(4, torch.Generator()).text_known.any()


def test_dreams_under_prompts_teach_something_else(tmp_path: Path) -> None:
    world, agent = tiny_world(text=True), begin()
    found = {}
    for name, texts in (("silent", ()), ("told", ("night",))):
        recipe = replace(RECIPE, imagination=replace(RECIPE.imagination, text=texts))
        found[name] = dream(world, agent, material(), recipe, tmp_path / name)
    assert not same(found["silent"], found["told"])


def test_prompts_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    recipe = replace(RECIPE, imagination=replace(RECIPE.imagination, text=("night",)))
    with pytest.raises(WorldError, match="text: expected None, as tiny was trained without words"):
        training.train_agent(tiny_world(), cast(Any, None), recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()

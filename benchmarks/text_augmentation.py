"""Whether edited recordings replace real ones: clones from day, day and edits, day and re-renders.

All three see the same drives of the same tracks, and drive the real CarRacing in every condition.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from worldsim.agents.actor_critic import ActorCritic, AgentConfig
from worldsim.agents.cloning import Recorded, cloning_loss, moments, returns_to_go
from worldsim.agents.deploy import RealPolicy
from worldsim.train.loop import FitConfig, fit
from worldsim.world.edit import edit

from .text_prompts import Judge
from .text_twins import PLAIN, Truth

CONDITIONS: dict[str, Truth] = {
    "day": {}, "dusk": {"light": "dusk"}, "night": {"light": "night"}, "fog": {"weather": "fog"},
    "rain": {"weather": "rain"}, "snow": {"weather": "snowfall"},
}  # fmt: skip
SAID = {
    "dusk": "green meadows at dusk", "night": "green meadows at night",
    "fog": "green meadows in thick fog", "rain": "green meadows in heavy rain",
    "snow": "green meadows in falling snow",
}  # fmt: skip
DRIVES, TRACKS = range(400, 408), range(5000, 5003)


def augmentation(judge: Judge, *, quick: bool) -> dict[str, Any]:
    """Mean real return of each clone in each condition, and how much of the gap edits close."""
    chunks, seeds = (12, DRIVES[:1]) if quick else (100, DRIVES)
    length, tracks = (4, TRACKS[:1]) if quick else (250, TRACKS)
    day, edited, rendered, actions = [], [], [], []
    for seed in tqdm(seeds, desc="drives", file=sys.stderr, leave=False):
        drive = judge.simulator.drive(seed, lambda t: PLAIN, chunks)
        clip = rearrange(drive.frames, "t c h w d -> (t c) h w d")
        day.append(drive.frames)
        actions.append(drive.actions)
        for name, text in SAID.items():
            look = {**PLAIN, **CONDITIONS[name]}
            twin = judge.simulator.twin(seed, lambda t, look=look: look, drive.actions)
            made = edit(judge.world, clip, text, actions=drive.actions, seed=seed)
            edited.append(made.unflatten(0, (chunks, -1)))
            rendered.append(twin.frames)
    extra = [a for a in actions for _ in SAID]
    sets = {
        "day": (day, actions),
        "day and edited": ([*day, *edited], [*actions, *extra]),
        "day and re-rendered": ([*day, *rendered], [*actions, *extra]),
    }
    found: dict[str, Any] = {}
    for name, (frames, acts) in sets.items():
        agent = cloned(judge, frames, acts, 4 if quick else 2000)
        found[name] = {
            condition: float(np.mean([
                driven(judge, agent, seed, {**PLAIN, **look}, length) for seed in tracks
            ]))
            for condition, look in tqdm(CONDITIONS.items(), desc=name, file=sys.stderr, leave=False)
        }  # fmt: skip
    means = [np.mean([found[name][c] for c in SAID]) for name in sets]
    found["share of the gap closed"] = float((means[1] - means[0]) / (means[2] - means[0]))
    return found


def cloned(judge: Judge, frames: list[Tensor], actions: list[Tensor], steps: int) -> ActorCritic:
    """A driver by sight, of recorded chunks (n, c, H, W, 3) and the actions that led there."""
    lengths = tuple(len(a) for a in actions)
    rewards = torch.zeros(sum(lengths))
    data = Recorded(torch.cat(frames), torch.cat(actions), rewards, lengths)
    config = FitConfig(steps=steps, batch=64, lr=1e-3, bf16=False, ema=0.995)
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        agent = ActorCritic(judge.world.spec, AgentConfig(sees="pixels", width=32))
        loss = cloning_loss(data, moments(data), returns_to_go(data, 0.99, 1.0), config.batch)
        done = fit(agent, loss, config, Path(folder), {})
    assert isinstance(done, ActorCritic)
    return done.eval()


def driven(judge: Judge, agent: ActorCritic, seed: int, look: Truth, length: int) -> float:
    """The real return of `length` chunks in a scenery."""
    env, policy, total = judge.simulator.env, RealPolicy(agent, actions="native"), 0.0
    env.reset(seed=seed, options={"scenery": dict(look)})
    for _ in range(length):
        _, reward, terminated, truncated, _ = env.step(policy(env.frames))
        total += reward
        if terminated or truncated:
            break
    return total

"""A3: whatever the neighbours do, a row's bytes stay the same."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tests.reliability.exact.streams import world
from worldsim.envs import WorldSimVectorEnv

ROWS, STEPS = 4, 5
MODES = ("SAME_STEP", "NEXT_STEP", "DISABLED")
FAULTS = (None, float("nan"), float("inf"))


class Lives:
    """Two environments that share one row's seed and actions, and nothing else."""

    def __init__(self, name: str, mode: str, observation: str) -> None:
        made = world(name)
        self.envs = [
            WorldSimVectorEnv(
                ROWS, made, observation=observation, autoreset_mode=mode,  # type: ignore[arg-type]
                time_limit=4, output="numpy",
            )
            for _ in range(2)
        ]  # fmt: skip
        self.mode = mode

    def differ(self, case: int) -> list[str]:
        """Where the row's life differs; a new pair of lives for every case."""
        rng = np.random.default_rng(case)
        row, swap = int(rng.integers(ROWS)), bool(rng.random() < 0.5)
        seeds = rng.integers(10**6, size=(2, ROWS))
        seeds[1, row] = seeds[0, row]
        told = [
            env.reset(seed=[int(s) for s in own])[0]
            for env, own in zip(self.envs, seeds, strict=True)
        ]
        wrong = [] if same(told[0][row], told[1][row]) else ["start"]
        for t in range(STEPS):
            if rng.random() < 0.3:
                self.disturb(self.envs[1], row, rng)
            low, high = -1.0, 1.0
            acted = rng.uniform(low, high, (2, ROWS, *self.envs[0].single_action_space.shape))  # type: ignore[misc]
            acted[1, row] = acted[0, row]
            if swap:  # the neighbours push as hard as they can
                acted[1, np.arange(ROWS) != row] = rng.choice([low, high])
            told = [env.step(a.astype(np.float32)) for env, a in zip(self.envs, acted, strict=True)]
            wrong += [f"step {t}: {n}" for n in compare(*told, row)]
            if self.mode == "DISABLED":
                wrong += self.begin_ended(told, row)
        return wrong

    def disturb(self, env: WorldSimVectorEnv, row: int, rng: np.random.Generator) -> None:
        """New episodes beside `row`, and states that are no numbers."""
        others = np.arange(ROWS) != row
        chosen = others & (rng.random(ROWS) < 0.6)
        if chosen.any():
            env.reset(seed=int(rng.integers(10**6)), options={"reset_mask": chosen})
        fault = FAULTS[int(rng.integers(3))]
        if fault is not None:
            saved = env.get_state()
            mine = torch.as_tensor(~others)
            state = saved.state
            bad = state.map(lambda x: torch.full_like(x, fault) if x.is_floating_point() else x)
            env.set_state(replace(saved, state=state.where(mine, bad)))

    def begin_ended(self, told: list[Any], row: int) -> list[str]:
        seen = []
        for env, (*_, terminated, truncated, _) in zip(self.envs, told, strict=True):
            over = terminated | truncated
            obs = env.reset(options={"reset_mask": over})[0] if over.any() else told[0][0]
            seen.append(obs[row] if over[row] else None)
        if seen[0] is None or seen[1] is None:
            return [] if seen[0] is seen[1] else ["end"]
        return [] if same(*seen) else ["start of the next episode"]


def same(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def compare(a: Any, b: Any, row: int) -> list[str]:
    names = ("obs", "reward", "terminated", "truncated")
    wrong = [n for n, x, y in zip(names, a, b, strict=False) if not same(x[row], y[row])]
    for name in ("steps", "continue_prob", "trust", "_continue_prob"):
        if not same(a[4][name][row], b[4][name][row]):
            wrong.append(name)
    ended = [info.get("_final_obs", np.zeros(ROWS, bool))[row] for info in (a[4], b[4])]
    if ended[0] != ended[1]:
        wrong.append("_final_obs")
    elif ended[0] and not same(a[4]["final_obs"][row], b[4]["final_obs"][row]):
        wrong.append("final_obs")
    return wrong


def order_matters(name: str, case: int) -> bool:
    """Whether a step and a picture of shuffled rows are other than the rows shuffled."""
    rng, made = np.random.default_rng(case), world(name)
    keys = torch.as_tensor(rng.integers(2**62, size=(ROWS, 2)))
    order = torch.as_tensor(rng.permutation(ROWS))
    low, high = (torch.tensor(x) for x in (made.spec.action.low, made.spec.action.high))
    action = low + torch.rand(ROWS, *low.shape) * (high - low)
    state = made.reset(keys)
    (a, said), (b, told) = made.step(state, action), made.step(state[order], action[order])
    pairs = [(getattr(a[order], n), getattr(b, n)) for n in ("latents", "actions", "cache", "age")]
    pairs += [
        (getattr(said[order], n), getattr(told, n)) for n in ("reward", "continue_prob", "trust")
    ]
    pairs.append((made.decode(a)[order], made.decode(b)))
    return not all(same(x, y) for x, y in pairs)


LIVES: dict[tuple[str, str, str], Lives] = {}


def differ(name: str, case: int) -> list[str]:
    """Case number `case`: what of a row changed with its neighbours."""
    if case % 10 == 9:
        return ["order"] if order_matters(name, case) else []
    key = name, MODES[case % 3], ("latent", "frame")[case // 3 % 2]
    if key not in LIVES:
        LIVES[key] = Lives(*key)
    return LIVES[key].differ(case)

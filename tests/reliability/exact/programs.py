"""B2: generated programs of steps, resets, masks, saves and mistakes against plain Python."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from tests.reliability.exact.clockwork import CHOICES, ClockEnvs, ClockWorld
from worldsim.core import WorldError
from worldsim.envs import NeedsReset, WorldSimEnv, WorldSimTorchRL, WorldSimVectorEnv

MODES = ("SAME_STEP", "NEXT_STEP", "DISABLED")
WORLD: Any = ClockWorld()
LENGTH = 14


class Unread(WorldSimVectorEnv):
    """Acts on ends without looking at them, as on an accelerator."""

    _looks = False  # type: ignore[assignment]


def agree(name: str, got: Any, expected: Any) -> None:
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape or not (got == expected.astype(got.dtype)).all():
        raise AssertionError(f"{name}: expected {expected.tolist()}, got {got.tolist()}")


class VectorProgram:
    """One program against one vector environment."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = np.random.default_rng(seed)
        mode, observation = MODES[seed % 3], str(rng.choice(["frame", "chunk", "latent"]))
        rows, limit = int(rng.integers(1, 5)), int(rng.integers(1, 7))
        kind = Unread if rng.random() < 0.5 else WorldSimVectorEnv
        self.env = kind(
            rows,
            WORLD,
            observation=observation,  # type: ignore[arg-type]
            time_limit=limit,
            autoreset_mode=mode,
            output=str(rng.choice(["numpy", "torch"])),  # type: ignore[arg-type]
        )
        self.oracle = ClockEnvs(rows, mode, limit, observation)
        self.reset(whole=True)

    def run(self) -> None:
        ways: list[Callable[[], None]] = [self.step] * 8 + [self.reset] * 2
        ways += [self.save_and_restore, self.copy, self.mistake]
        for _ in range(LENGTH):
            ways[self.rng.integers(len(ways))]()

    def seeds(self) -> list[int | None]:
        drawn = self.rng.integers(60, size=self.oracle.rows)
        return [int(s) if s < 30 else None for s in drawn]

    def reset(self, whole: bool = False) -> None:
        rows, rng = self.oracle.rows, self.rng
        mask, options = [True] * rows, None
        if not whole and rng.random() < 0.7:
            mask = [bool(x) for x in rng.random(rows) < 0.5]
            if not any(mask):
                return
            options = {"reset_mask": np.array(mask)}
        if whole or rng.random() < 0.2:
            first = int(rng.integers(1000))
            seed, seeds = first, [first + i for i in range(rows)]
        else:
            seed = seeds = self.seeds()
        obs, info = self.env.reset(seed=seed, options=options)
        told = self.oracle.reset(seeds, mask)
        agree("reset obs", obs, told["obs"])
        agree("reset steps", info["steps"], told["steps"])
        agree("reset _steps", info["_steps"], told["_steps"])

    def step(self) -> None:
        actions = self.rng.integers(CHOICES, size=self.oracle.rows)
        if stuck := self.oracle.stuck():
            try:
                self.env.step(actions)
            except NeedsReset as error:
                assert str(stuck) in str(error)
            else:
                raise AssertionError(f"rows {stuck} are over and were stepped")
            mask = [i in stuck for i in range(self.oracle.rows)]
            self.env.reset(options={"reset_mask": np.array(mask)})
            self.oracle.reset([None] * self.oracle.rows, mask)
        obs, reward, terminated, truncated, info = self.env.step(actions)
        told = self.oracle.step([int(a) for a in actions])
        agree("obs", obs, told["obs"])
        agree("reward", reward, told["reward"])
        agree("terminated", terminated, told["terminated"])
        agree("truncated", truncated, told["truncated"])
        agree("steps", info["steps"], told["steps"])
        agree("continue_prob", info["continue_prob"], told["continue_prob"])
        agree("_continue_prob", info["_continue_prob"], told["_continue_prob"])
        agree("trust", info["trust"], [0.75 * c for c in told["_continue_prob"]])
        self.last_words(info, told["final"])

    def last_words(self, info: dict[str, Any], final: dict[int, Any]) -> None:
        told = info.get("_final_obs", np.zeros(self.oracle.rows, bool))
        agree("_final_obs", told, [i in final for i in range(self.oracle.rows)])
        for i, words in final.items():
            agree("final_obs", info["final_obs"][i], words["obs"])
            for name in ("steps", "continue_prob"):
                agree(f"final {name}", info["final_info"][name][i], words[name])
                assert bool(info["final_info"][f"_{name}"][i])

    def save_and_restore(self) -> None:
        """Live on, and come back: the program goes on as if nothing had been."""
        saved, before = self.env.get_state(), copy.deepcopy(self.oracle.row)
        for _ in range(int(self.rng.integers(1, 4))):
            self.step()
        self.env.set_state(saved)
        self.oracle.row = before

    def copy(self) -> None:
        self.env = copy.deepcopy(self.env)

    def mistake(self) -> None:
        wrong = self.rng.integers(CHOICES, size=self.oracle.rows)
        wrong[self.rng.integers(self.oracle.rows)] = int(self.rng.choice([-1, CHOICES, 10**9]))
        try:
            self.env.step(wrong)
        except WorldError:
            return
        raise AssertionError("a bad action was taken")


def single_program(seed: int) -> None:
    """`WorldSimEnv` against one row, ended where the oracle says so."""
    rng = np.random.default_rng(seed)
    limit, observation = int(rng.integers(1, 7)), str(rng.choice(["frame", "chunk", "latent"]))
    env = WorldSimEnv(WORLD, observation=observation, time_limit=limit)  # type: ignore[arg-type]
    oracle = ClockEnvs(1, "DISABLED", limit, observation)
    row, first = oracle.row[0], int(rng.integers(1000))
    agree("obs", env.reset(seed=first)[0], oracle.reset([first], [True])["obs"][0])
    for _ in range(LENGTH):
        action = int(rng.integers(CHOICES))
        if row.over or rng.random() < 0.1:
            again = None if rng.random() < 0.7 else int(rng.integers(1000))
            if row.over:
                try:
                    env.step(action)
                except NeedsReset:
                    pass
                else:
                    raise AssertionError("stepped past the end")
            agree("obs", env.reset(seed=again)[0], oracle.reset([again], [True])["obs"][0])
        if rng.random() < 0.1:
            saved = env.get_state()
            env.step(int(rng.integers(CHOICES)))
            env.set_state(saved)
        obs, reward, terminated, truncated, info = env.step(action)
        told = oracle.step([action])
        agree("obs", obs, told["obs"][0])
        got = (reward, terminated, truncated, info["steps"], np.float32(info["continue_prob"]))
        names = ("reward", "terminated", "truncated", "steps", "continue_prob")
        for name, value in zip(names, got, strict=True):
            agree(name, value, told[name][0])


def torchrl_program(seed: int) -> None:
    """`WorldSimTorchRL`: the n-th row begun is the seed's n-th episode, whichever row it is."""
    rng = np.random.default_rng(seed)
    rows, limit = int(rng.integers(1, 4)), int(rng.integers(1, 7))
    env = WorldSimTorchRL(WORLD, (rows,), time_limit=limit)
    first = int(rng.integers(1000))
    env.set_seed(first)
    oracle = ClockEnvs(rows, "DISABLED", limit, "latent")
    begun = 0

    def begin(mask: list[bool]) -> None:
        nonlocal begun
        for row in (r for r, chosen in zip(oracle.row, mask, strict=True) if chosen):
            row.begin(first)
            row.episode, begun = begun, begun + 1

    td = env.reset()
    begin([True] * rows)
    agree("obs", td["observation"], oracle.seen())
    for _ in range(LENGTH):
        actions = rng.integers(CHOICES, size=rows)
        td = env.step(td.set("action", torch.tensor(actions)))["next"]
        told = oracle.step([int(a) for a in actions])
        agree("obs", td["observation"], told["obs"])
        for name in ("reward", "terminated", "truncated"):
            agree(name, td[name][:, 0], told[name])
        mask = [row.over or bool(rng.random() < 0.1) for row in oracle.row]
        if rng.random() < 0.1:
            td = env.set_state(env.get_state(td))
        if any(mask):
            asked = torch.tensor(mask)[:, None]
            td = env.reset(td.exclude("reward").set("_reset", asked))
            begin(mask)
            agree("obs after a reset", td["observation"], oracle.seen())
        td = TensorDict({"world": td["world"], "observation": td["observation"]}, [rows])


def run(seed: int) -> None:
    """Program number `seed`: vector environments mostly."""
    if seed % 10 == 8:
        single_program(seed)
    elif seed % 10 == 9:
        torchrl_program(seed)
    else:
        VectorProgram(seed).run()

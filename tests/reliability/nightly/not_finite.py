"""C2: a NaN that arises in one row ends that row, with a reason, and touches no other.

It is planted in what the network answers, in a random row, step and denoising pass; every run is
compared with one without it, byte by byte. And a training stops before a NaN reaches its weights.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from tests.reliability.nightly.rows import Outcome, Row, main
from tests.world_folders import tiny_world
from worldsim.core import Prediction, WorldModel, WorldState
from worldsim.envs import REASONS, WorldSimEnv, WorldSimVectorEnv
from worldsim.train.loop import FitConfig, Losses, Run, train_step
from worldsim.world.diffusion import DiffusionWorld

N, STEPS, PASSES = 4, 7, 2  # of a vector environment, of a run, of a step
FACES = ("env", "SAME_STEP", "NEXT_STEP", "DISABLED", "torchrl")


@dataclass(frozen=True)
class Plant:
    """Where a NaN or an infinity arises: in which of the network's answers, and which number."""

    row: int
    step: int
    call: int
    part: str
    value: float


class Planted:
    """A world whose network errs once; the steps before and after are those of the world itself."""

    def __init__(self, world: DiffusionWorld, plant: Plant | None) -> None:
        self.world, self.plant, self.steps, self.calls = world, plant, -1, 0
        self.spec, self.device, self.calibrated = world.spec, world.device, world.calibrated
        self.reset, self.encode, self.from_latents = world.reset, world.encode, world.from_latents
        self.decode, self.decode_latents = world.decode, world.decode_latents

    def with_num_steps(self, num_steps: int) -> Planted:
        """The same in other steps."""
        return Planted(self.world.with_num_steps(num_steps), self.plant)

    def step(
        self,
        state: WorldState,
        action: Tensor | None = None,
        *,
        latent_action: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[WorldState, Prediction]:
        """The world's step, once with a fault in it."""
        self.steps, self.calls = self.steps + 1, -1
        hook = self.world.dynamics.dit.register_forward_hook(self._err)
        try:
            return self.world.step(state, action, latent_action=latent_action, generator=generator)
        finally:
            hook.remove()

    def _err(self, network: nn.Module, given: Any, answer: Any) -> Any:
        plant, self.calls = self.plant, self.calls + 1
        if plant is None or (self.steps, self.calls) != (plant.step, plant.call):
            return None
        harmed = getattr(answer, plant.part).clone()
        harmed[plant.row].view(-1)[-1] = plant.value  # the newest chunk is last
        return answer._replace(**{plant.part: harmed})


@cache
def world() -> DiffusionWorld:
    """Small; two passes a step, and no end within a run."""
    return tiny_world()


Seen = list[dict[str, NDArray[Any]]]
"""What each step showed, (N, ...) by name."""


def live(face: str, plant: Plant | None) -> Seen:
    """A run of the face, with rows begun anew as it does that."""
    planted = Planted(world(), plant)
    if face == "env":
        return list(_env(planted))
    return list(_torchrl(planted) if face == "torchrl" else _vector(planted, face))


def _env(planted: WorldModel) -> Iterator[dict[str, NDArray[Any]]]:
    env = WorldSimEnv(planted)
    env.reset(seed=5)
    env.action_space.seed(5)
    for _ in range(STEPS):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        seen = {"obs": obs, "reward": reward, "terminated": terminated, "truncated": truncated}
        seen |= {"final_obs": obs, "reason": REASONS.index(info.get("reason", ""))}
        yield {name: np.asarray(value)[None] for name, value in seen.items()}
        if truncated:
            env.reset()


def _vector(planted: WorldModel, mode: str) -> Iterator[dict[str, NDArray[Any]]]:
    env = WorldSimVectorEnv(N, planted, autoreset_mode=mode)
    env.reset(seed=5)
    env.action_space.seed(5)
    for _ in range(STEPS):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        said = info.get("final_info", {}) if mode == "SAME_STEP" else info
        yield {
            "obs": obs, "reward": reward, "terminated": terminated, "truncated": truncated,
            "reason": said.get("reason", np.zeros(N, np.int64)),
            "final_obs": info.get("final_obs", obs),
        }  # fmt: skip
        if mode == "DISABLED" and truncated.any():
            env.reset(options={"reset_mask": truncated})


def _torchrl(planted: WorldModel) -> Iterator[dict[str, NDArray[Any]]]:
    from worldsim.envs import WorldSimTorchRL

    env = WorldSimTorchRL(planted, [N])
    env.set_seed(5)
    td, g = env.reset(), np.random.default_rng(5)
    for _ in range(STEPS):
        td["action"] = torch.from_numpy(g.uniform(-1, 1, (N, 2)).astype(np.float32))
        now, td = env.step_and_maybe_reset(td)
        names = {"obs": "observation", "final_obs": "observation", "reward": "reward",
                 "terminated": "terminated", "truncated": "truncated"}  # fmt: skip
        seen = {k: now["next", v].numpy() for k, v in names.items()}
        yield seen | {"reason": seen["truncated"][:, 0].astype(np.int64)}


@cache
def calm(face: str) -> Seen:
    """The same without a fault."""
    return live(face, None)


def complaints(face: str, plant: Plant) -> Iterator[str]:
    """What is wrong with the run in which the plant arises."""
    seen, expected = live(face, plant), calm(face)
    others = [r for r in range(len(seen[0]["obs"])) if r != plant.row]
    for t, (now, before) in enumerate(zip(seen, expected, strict=True)):
        spared = [*others, plant.row] if t < plant.step else others
        for name, value in now.items():
            if value[spared].tobytes() != before[name][spared].tobytes():
                yield f"step {t}: {name} of rows that have no fault differs"
            if not np.isfinite(value).all():
                yield f"step {t}: {name} is not finite"
        truncated = before["truncated"][plant.row] | (t == plant.step)
        if (now["truncated"][plant.row] != truncated).any() or now["terminated"].any():
            yield f"step {t}: ends {now['truncated'][plant.row]}, {now['terminated'][plant.row]}"
    end, past = seen[plant.step], seen[plant.step - 1]
    if (end["reason"][plant.row], end["reward"][plant.row].item()) != (1, 0.0):
        yield f"reason {end['reason'][plant.row]}, reward {end['reward'][plant.row]}"
    if end["final_obs"][plant.row].tobytes() != past["obs"][plant.row].tobytes():
        yield "the row does not show what it showed before"


def spread(count: int) -> Outcome:
    """Plant a fault `count` times, in every face in turn."""
    draw, failures = random.Random(0), []
    for case in tqdm(range(count), desc="planted NaN", leave=False):
        face = FACES[case % len(FACES)]
        row = 0 if face == "env" else draw.randrange(N)
        step, call = draw.randrange(1, STEPS - 1), draw.randrange(PASSES)
        plant = Plant(row, step, call, "x", float("nan"))  # infinite latents are clipped
        if draw.random() < 0.3:  # heads read the last pass alone
            value = draw.choice((float("nan"), float("inf"), float("-inf")))
            plant = Plant(row, step, PASSES - 1, "features", value)
        failures += [f"{face} {plant}: {what}" for what in complaints(face, plant)]
    return Outcome(failures=failures, figures={"faces": ", ".join(FACES)})


# --- a training ---


def regression(net: nn.Module, ema: nn.Module, step: int, g: torch.Generator) -> Losses:
    """A loss whose gradient can be other than finite where it is itself finite."""
    x = torch.randn(8, 3, generator=g)
    return {"fit": ((net(x) - x.sum(-1, keepdim=True)) ** 2).mean()}


class Root(torch.autograd.Function):
    """Zero, with an infinite slope: what a square root does at 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Zero."""
        return 0 * x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Infinity."""
        return grads[0] * float("inf")


def poison(losses: Losses, kind: str) -> Losses:
    """The losses with a fault."""
    bad = {"nan": losses["fit"] * float("nan"), "inf": losses["fit"] + float("inf")}
    return losses | {"bad": Root.apply(losses["fit"]) if kind == "slope" else bad[kind]}


def stops(count: int) -> Outcome:
    """Train until a fault at a random step, `count` times: weights, averages and files stay."""
    draw, failures = random.Random(1), []
    for case in tqdm(range(count), desc="planted NaN", leave=False):
        at, kind = draw.randrange(6), ("nan", "inf", "slope")[case % 3]
        with tempfile.TemporaryDirectory() as folder:
            failures += [f"step {at}, {kind}: {x}" for x in _stopped(Path(folder), at, kind)]
    return Outcome(failures=failures)


def _stopped(folder: Path, at: int, kind: str) -> Sequence[str]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 1))
    run = Run(folder, net, FitConfig(steps=10, bf16=False))
    for _ in range(at):
        train_step(run, regression)
    run.save()
    kept = [x.clone() for part in (run.model, run.ema) for x in part.state_dict().values()]
    stored = (folder / "checkpoint").read_bytes()
    try:
        train_step(run, lambda *given: poison(regression(*given), kind))
        return ["it went on"]
    except FloatingPointError as error:
        said = [] if f"step {at}" in str(error) else [f"it does not say where: {error}"]
    now = [x for part in (run.model, run.ema) for x in part.state_dict().values()]
    if run.step != at or not all(map(torch.equal, kept, now)):
        said.append("weights moved")
    if (folder / "checkpoint").read_bytes() != stored:
        said.append("the checkpoint changed")
    return said


ROWS = (
    Row(name="C2", promise="a NaN ends its row, truncated, with a reason; no other byte changes",
        unit="planted NaN", ci=10, full=200, attempt=spread),
    Row(name="C2-train", promise="a training stops before a NaN reaches weights or checkpoint",
        unit="planted NaN", ci=6, full=200, attempt=stops),
)  # fmt: skip

if __name__ == "__main__":
    main(ROWS)

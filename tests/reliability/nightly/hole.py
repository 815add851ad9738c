"""H2: a hole in the training data, and a planner that looks for what the world gets wrong.

The true simulator is a gliding point with a trap on the right that costs a point a step. Nobody
who recorded the data ever went there, so a world trained on it dreams of reward all the way to the
goal behind the trap. The world is a `DiffusionWorld` trained here in a minute or two, calibrated on
its own validation episodes; nothing that it or its trust ever sees is from within the hole.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from tests.reliability.nightly.rows import Outcome, Row, main
from worldsim.core import ActionSpec, Prediction, WorldState, row_keys
from worldsim.data import Dataset, DatasetSpec, Episode, NativeWriter
from worldsim.envs.trust import TrustPolicy
from worldsim.evaluate.calibrate import CalibrationPlan, calibrate
from worldsim.models.dit import DiTConfig
from worldsim.models.heads import HeadsConfig
from worldsim.models.vae import VAEConfig
from worldsim.presets import Sizes
from worldsim.train.dynamics import DynamicsTrainingConfig
from worldsim.train.loop import FitConfig
from worldsim.train.recipe import assemble, fit_forced, fit_vae
from worldsim.train.vae import VAETrainingConfig
from worldsim.world.diffusion import DiffusionWorld, Sampling
from worldsim.world.point import PointWorld

EDGE = 0.35  # the trap, and the hole in the data, lie to the right of it
TRAP = -1.0  # what a step in the trap earns
LENGTH = 36  # steps of an episode
EPISODES = {"train": 160, "val": 40}
FIRST = {"train": 0, "val": 1000}
HORIZON, CROWD, ELITE, ROUNDS = 12, 64, 8, 6
EXPLOIT = 0.5  # a step whose dreamt reward is that much above the real one
SIZES = Sizes(
    vae=VAEConfig(channels=8, widths=(24, 48), blocks=(1, 1)),
    dit=DiTConfig(dim=64, depth=4, heads=2, kv_heads=1, mlp=2, patch=(1, 1)),
    heads=HeadsConfig(hidden=64),
    context=4,
)


@dataclass(frozen=True, kw_only=True)
class Trap(PointWorld):
    """The true simulator."""

    size: int = 16
    context: int = SIZES.context
    thrust: float = 0.06
    goal: tuple[float, float] = (0.9, 0.0)

    def _judge(self, before: Tensor, after: Tensor) -> Prediction:
        said = super()._judge(before, after)
        reward = torch.where(after[:, 0] > EDGE, TRAP, said.reward)
        return Prediction(reward=reward, continue_prob=said.continue_prob, trust=said.trust)


def wander(state: WorldState, last: Tensor, g: torch.Generator) -> Tensor:
    """Pushes (B, 2) that wander, and that keep the point in sight and clear of the trap."""
    where, speed = state.latent.split(2, -1)
    push = (0.7 * last + 0.6 * torch.randn(last.shape, generator=g)).clamp(-1, 1)
    ahead = where + 4 * speed
    push = torch.where(ahead.abs() > 0.9, -where.sign(), push)
    left = torch.stack([-torch.ones(len(push)), push[:, 1]], 1)
    return torch.where((ahead[:, :1] > EDGE - 0.15), left, push)


def drive(
    sim: Trap, count: int, seed: int
) -> tuple[WorldState, Tensor, Tensor, Tensor, list[WorldState]]:
    """`count` drives that never saw the trap: frames, actions, rewards, and the true states."""
    g = torch.Generator().manual_seed(seed)
    state = sim.reset(row_keys(range(seed * 10_000, seed * 10_000 + 8 * count)))
    state = state[state.latent[:, 0] < 0][: 2 * count]
    action = torch.zeros(len(state), 2)
    told: list[tuple[Tensor, ...]] = []
    states = []
    for _ in range(LENGTH):
        action = wander(state, action, g)
        state, said = sim.step(state, action)
        states.append(state)
        told.append((sim.decode(state), action, said.reward))
    frames, actions, rewards = (torch.stack(x, 1) for x in zip(*told, strict=True))
    clear = torch.stack([s.latent[:, 0] < EDGE for s in states], 1).all(1)
    kept = clear.nonzero()[:count, 0]
    assert len(kept) == count, "the drivers drive into the trap"
    return state, frames[kept], actions[kept], rewards[kept], [s[kept] for s in states]


def record(folder: Path) -> Dataset:
    """Training and validation episodes of the point, on disk."""
    sim = Trap()
    folder.mkdir(parents=True)
    action = ActionSpec(kind="continuous", low=(-1.0, -1.0), high=(1.0, 1.0))
    spec = DatasetSpec(
        name="trap", chunk=sim.chunk, fps=20.0, frame_shape=(sim.size, sim.size, 3), action=action,
        has_rewards=True,
    )  # fmt: skip
    writer = NativeWriter(folder, spec)
    for split, count in EPISODES.items():
        _, frames, actions, rewards, _ = drive(sim, count, 1 + FIRST[split])
        for i in range(count):
            episode = Episode(
                name=f"trap-{FIRST[split] + i:06d}", chunk=sim.chunk, fps=20.0,
                frames=rearrange(frames[i], "n c h w k -> (n c) h w k").numpy(),
                actions=actions[i].numpy(), rewards=rewards[i].numpy(),
                terminated=False, truncated=True, seed=FIRST[split] + i, policy="wander",
            )  # fmt: skip
            writer.write(split, episode)
    return writer.dataset()


@cache
def trained(effort: float) -> DiffusionWorld:
    """A world of the point, calibrated; `effort` scales the training's length."""

    def fit(steps: int, batch: int, lr: float) -> FitConfig:
        return FitConfig(
            steps=max(2, int(steps * effort)), batch=batch, lr=lr, ema=0.99, bf16=False
        )

    with tempfile.TemporaryDirectory() as root:
        data, run = record(Path(root) / "data"), Path(root) / "run"
        fit_vae(data, SIZES, VAETrainingConfig(fit=fit(700, 16, 3e-3), kl=1e-5), run)
        training = DynamicsTrainingConfig(
            fit=fit(1500, 16, 2e-3), targets=6, compile=False, drop_action=0.0
        )
        fit_forced(data, SIZES, training, run)
        world = assemble(data, SIZES, run, "point", stage="forced", time_limit=100, clips=16)
        world = world.with_sampling(Sampling(method="euler", num_steps=2))
        plan = CalibrationPlan(starts=2, horizon=24, rows=128)
        return calibrate(world, data, plan)[0]


@dataclass
class Attack:
    """Every step that the planner tried: what the dream said and what was real, (n,) each."""

    dreamt: list[Tensor]
    real: list[Tensor]
    trust: list[Tensor]
    gaps: list[float]


def attack(world: DiffusionWorld, steps: int, caution: TrustPolicy, seed: int = 0) -> Attack:
    """Cross-entropy planning (Rubinstein 1999) in the dream from starts in turn, `steps` in all."""
    sim, found = Trap(), Attack([], [], [], [])
    starts = -(-steps // (HORIZON * CROWD * ROUNDS))
    _, frames, actions, _, states = drive(sim, starts, 5)
    at = 2 * SIZES.context
    for i in range(starts):
        context = slice(at - SIZES.context, at)
        clip = rearrange(frames[i : i + 1, context], "b n c h w k -> b (n c) h w k")
        dream = world.encode(clip, actions[i : i + 1, context], row_keys([seed * 1000 + i]))
        _plan(world, sim, dream, states[at - 1][i : i + 1], caution, found, seed + i)
    return found


def _plan(
    world: DiffusionWorld,
    sim: Trap,
    dream: WorldState,
    real: WorldState,
    caution: TrustPolicy,
    found: Attack,
    seed: int,
) -> None:
    """One search; the last elite's best plan is what an agent would do."""
    g = torch.Generator().manual_seed(seed)
    mean, spread = torch.zeros(HORIZON, 2), torch.ones(HORIZON, 2)
    best, best_gap = -torch.inf, 0.0
    for _ in range(ROUNDS):
        plans = (mean + spread * torch.randn(CROWD, HORIZON, 2, generator=g)).clamp(-1, 1)
        d, r = dream.repeat(CROWD), real.repeat(CROWD)
        given, dreamt, true, trust = (torch.zeros(CROWD, HORIZON) for _ in range(4))
        for t in range(HORIZON):
            d, said = world.step(d, plans[:, t])
            r, was = sim.step(r, plans[:, t])
            given[:, t], dreamt[:, t] = caution.reward(said), said.reward
            true[:, t], trust[:, t] = was.reward, said.trust
        score = given.sum(1)
        elite = score.topk(ELITE).indices
        mean, spread = plans[elite].mean(0), plans[elite].std(0).clamp(min=0.05)
        if score.max() > best:
            best, top = float(score.max()), int(score.argmax())
            best_gap = float(dreamt[top].sum() - true[top].sum())
        for list_, x in ((found.dreamt, dreamt), (found.real, true), (found.trust, trust)):
            list_.append(x.flatten())
    found.gaps.append(best_gap)


def exploited(steps: int, effort: float = 1.0) -> Outcome:
    """Attack the dream as it is, and once more where what is not trusted is penalised."""
    world = trained(effort)
    plain = attack(world, steps, TrustPolicy())
    wary = attack(world, steps, TrustPolicy(mode="penalise", threshold=0.5, penalty=1.0))
    dreamt, real, trust = (torch.cat(x) for x in (plain.dreamt, plain.real, plain.trust))
    exploit = dreamt - real > EXPLOIT
    flagged = float((trust[exploit] < 0.5).float().mean())
    gaps = [sum(a.gaps) / len(a.gaps) for a in (plain, wary)]
    figures = {
        "exploiting": int(exploit.sum()),
        "flagged": round(flagged, 4),
        "others flagged": round(float((trust[~exploit] < 0.5).float().mean()), 4),
        "gap": round(gaps[0], 3),
        "gap, penalised": round(gaps[1], 3),
        "steps": len(trust),
        "recorded steps trusted": round(float((trust >= 0.5).float().mean()), 4),
    }
    failures = []
    if int(exploit.sum()) < len(trust) // 100:
        failures.append(f"nothing to find: {figures}")
    if not flagged >= 0.95:
        failures.append(f"{flagged:.1%} of exploiting steps flagged")
    if not gaps[1] <= gaps[0] / 2:
        failures.append(f"penalise: the gap is {gaps[1]:.3f}, it was {gaps[0]:.3f}")
    return Outcome(failures=failures, figures=figures)


ROWS = (  # training takes longer than CI allows
    Row(
        name="H2", promise="a planner that exploits a hole in the data is flagged; penalise halves "
        "the gap between dream and reality", unit="steps", ci=0, full=27_648,
        attempt=exploited,
    ),
)  # fmt: skip

if __name__ == "__main__":
    main(ROWS)

"""How much of a world is measured, and how that is fitted to the data and the time there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import prod

from worldsim.core import WorldError, WorldSpec

from .clips import horizon_for
from .long_rollouts import LOOK_EVERY, WINDOW

CLIP_BYTES = 2**29
"""Of the frames that all clips hold together."""


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """How much is measured.

    Attributes:
        episodes: test episodes, the first ones; chunks: of each, the first ones.
        starts: clips of each.
        horizon: steps of each dream.
        num_steps: numbers of denoising steps that a student is measured in, beside its own.
        teacher_starts: clips of each episode that the teacher dreams, too.
        teacher_horizon: its steps; teacher_steps: its denoising steps.
        action_steps: steps under shuffled actions.
        perturbed_every: every so many-th clip is dreamt recoloured, frozen and upside down.
        dreams, dream_steps: number and length of the long dreams; 0 dreams: none.
        window: steps over which their look is averaged.
        rows: dreams in a batch.
    """

    episodes: int = 50
    chunks: int = 1000
    starts: int = 4
    horizon: int = 60
    num_steps: tuple[int, ...] = (1, 2)
    teacher_starts: int = 1
    teacher_horizon: int = 32
    teacher_steps: int = 32
    action_steps: int = 16
    perturbed_every: int = 8
    dreams: int = 32
    dream_steps: int = 500
    window: int = WINDOW
    rows: int = 64

    def __post_init__(self) -> None:
        values = asdict(self)
        least = dict.fromkeys(values.keys() - {"num_steps"}, 1) | {"dreams": 0}
        for name, bound in (least | {"dream_steps": LOOK_EVERY, "window": LOOK_EVERY}).items():
            if values[name] < bound:
                raise WorldError(f"{name}: expected at least {bound}, got {values[name]}")

    @property
    def row_steps(self) -> int:
        """Steps of single dreams in all, each decoded, roughly."""
        clips = self.episodes * self.starts
        perturbed = 3 * clips * self.horizon // self.perturbed_every
        main = clips * self.horizon * (1 + len(self.num_steps)) + clips * self.action_steps
        return main + perturbed + self.dreams * self.dream_steps


QUICK = EvaluationPlan(
    episodes=4, chunks=200, starts=2, horizon=16, num_steps=(), action_steps=8, perturbed_every=2,
    dreams=4, dream_steps=100,
)  # fmt: skip


def fitted_to_data(
    plan: EvaluationPlan, spec: WorldSpec, lengths: Sequence[int]
) -> tuple[EvaluationPlan, dict[str, str]]:
    """The plan for episodes of these lengths, in chunks, and what of it had to give way, and why.

    Raises WorldError where no episode holds a context and a step.
    """
    episodes = min(plan.episodes, len(lengths))
    lengths = [min(n, plan.chunks) for n in lengths[:episodes]]
    horizon = horizon_for(lengths, spec.context, plan.horizon)
    steps = spec.context + horizon
    most = CLIP_BYTES // (steps * spec.chunk * prod(spec.frame_shape))
    starts = max(1, min(plan.starts, most // episodes))
    window = min(plan.window, plan.dream_steps, max(lengths)) // LOOK_EVERY * LOOK_EVERY
    asked = {"episodes": episodes, "horizon": horizon, "starts": starts, "window": window}
    reasons = {
        "episodes": f"there are {episodes}",
        "horizon": f"episodes are short: half of them leave {horizon} steps after a context",
        "starts": "clips are kept below half a gigabyte",
        "window": f"the longest episode has {max(lengths)} chunks",
    }
    gave_way = {
        name: f"{getattr(plan, name)} asked, {value} measured: {reasons[name]}"
        for name, value in asked.items()
        if value < getattr(plan, name)
    }
    short = window < 2 * LOOK_EVERY
    new = asked | ({"dreams": 0, "window": LOOK_EVERY} if short else {})
    return replace(plan, **new), gave_way


def fitted_to_time(plan: EvaluationPlan, seconds: float, row_step: float) -> EvaluationPlan:
    """The plan with less of everything, until its steps of `row_step` seconds fit in `seconds`.

    What matters least gives way first; a single clip and step always remain.
    """
    least = {"dreams": 4, "dream_steps": plan.window, "num_steps": 0, "starts": 1, "episodes": 4}
    last = {"horizon": 16, "dreams": 0, "episodes": 1}
    for name, bound in (*least.items(), *last.items(), ("horizon", 1)):
        while plan.row_steps * row_step > seconds:
            value = getattr(plan, name)
            smaller = () if name == "num_steps" else max(min(bound, value), value // 2)
            if smaller == value:
                break
            plan = replace(plan, **{name: smaller})
    return plan

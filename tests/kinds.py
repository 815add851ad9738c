"""A world of every kind of action: PointWorld, pushed by whatever an action says."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from worldsim.core import ActionSpec, WorldSpec
from worldsim.world.point import PointWorld

KINDS = {
    "continuous": ActionSpec(kind="continuous", low=(-2.0, 0.0), high=(2.0, 1.0)),
    "discrete": ActionSpec(kind="discrete", n=4, start=3),
    "multi_discrete": ActionSpec(kind="multi_discrete", nvec=(3, 5)),
    "multi_binary": ActionSpec(kind="multi_binary", nvec=(2, 2, 2)),
    "none": ActionSpec(kind="none"),
}


@dataclass(frozen=True, kw_only=True)
class KindWorld(PointWorld):
    """The least of every entry pushes to the left or down, the most to the right or up."""

    action: ActionSpec = KINDS["discrete"]

    @cached_property
    def spec(self) -> WorldSpec:
        return replace(PointWorld.spec.func(self), action=self.action)  # type: ignore[attr-defined]

    def _push(self, actions: Tensor, known: Tensor | None = None) -> Tensor:
        push = self._unit(actions).clamp(-1, 1)
        return push if known is None else torch.where(known[..., None], push, 0)

    def _unit(self, actions: Tensor) -> Tensor:
        """Actions `(..., *action)` -> pushes `(..., 2)`."""
        if self.action.kind == "continuous":
            return self.action.to_normalized(actions)
        entries = actions if self.action.shape else actions[..., None]
        most = torch.tensor(self.action.choices) - 1
        unit = 2 * (entries - self.action.least).float() / most.clamp(min=1) - 1
        return torch.cat([unit, torch.zeros_like(unit)], -1)[..., :2] * (most.max() > 0)


def kind_world(kind: str, **options: object) -> KindWorld:
    return KindWorld(**{"size": 16, "noise": 0.1, "action": KINDS[kind], **options})  # type: ignore[arg-type]

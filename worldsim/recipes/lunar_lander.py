"""LunarLander-v3: who flies while it is recorded, as random actions alone never land."""

from typing import Any

import numpy as np


class _Discrete:
    """What Gymnasium's heuristic asks of an environment."""

    continuous = False

    @property
    def unwrapped(self) -> "_Discrete":
        return self


def land(obs: Any) -> int:
    """Gymnasium's own heuristic for the discrete lander: about 265 a landing, undisturbed."""
    from gymnasium.envs.box2d.lunar_lander import heuristic

    return int(heuristic(_Discrete(), np.asarray(obs)))  # type: ignore[arg-type]

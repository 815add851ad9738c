"""The measured recordings by name, and who acts in an environment while it is recorded."""

from worldsim.collect.policies import Behaviour, from_path, uniform
from worldsim.collect.recorder import CollectConfig
from worldsim.collect.workers import collect
from worldsim.data.dataset import Dataset
from worldsim.recipes.car_racing.drivers import car_racing_mix
from worldsim.recipes.pendulum import pendulum, pendulum_mix

from .car_racing.settings import car_racing, car_racing_panel

RECIPES = {
    "car-racing": car_racing,
    "car-racing-panel": car_racing_panel,
    "pendulum": pendulum,
}
"""What is recorded for the worlds of this house, by name."""


MIXES = {"CarRacing-v3": car_racing_mix, "Pendulum-v1": pendulum_mix}
"""Who acts meanwhile, by environment."""


def main(config: CollectConfig, policy: str | None = None) -> Dataset:
    """Record `config` with the policy at "module:function"; without one, with the environment's mix
    of behaviours if there is one, else with uniformly random actions."""
    if policy is not None:
        return collect(config, (from_path(policy),))
    if config.env_id in MIXES:
        return collect(config, MIXES[config.env_id]())
    return collect(config, (Behaviour(name="uniform", make=uniform),))

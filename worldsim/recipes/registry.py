"""The measured recordings by name, and who acts in an environment that has no recipe."""

from collections.abc import Callable

from worldsim.core import WorldSpec
from worldsim.train.recipe import Recipe as Training

from .car_racing.settings import (
    car_racing,
    car_racing_state,
    car_racing_training,
    scenery,
    scenery_large,
    scenery_training,
)
from .pendulum import pendulum, pendulum_state
from .recipe import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {
    "car-racing": car_racing,
    "car-racing-state": car_racing_state,
    "pendulum": pendulum,
    "pendulum-state": pendulum_state,
    "scenery": scenery,
    "scenery-large": scenery_large,
}
"""What is recorded for the bundled worlds, and for those that are trained in words."""

TRAININGS: dict[str, Callable[[], Training]] = {
    "car-racing-state": car_racing_training,
    "scenery": scenery_training,
}
"""How worlds of these recordings are trained, where that is not their preset's way."""

POLICIES = {"LunarLander-v3": "worldsim.recipes.lunar_lander:land"}
"""Who acts in an environment by default; random actions where it is not named here."""


def recipe_of(spec: WorldSpec) -> Recipe | None:
    """The recipe that shows what a world shows and takes what it takes, None if none does.

    Raises CollectError where its environment is not installed.
    """
    for make in RECIPES.values():
        recipe = make()
        environment = recipe.environment
        if (environment.size, environment.chunk) == (spec.frame_shape[:2], spec.chunk):
            env = recipe.source.open()
            env.close()
            names = () if spec.state is None else spec.state.names
            if env.native == spec.action and env.state_names == names:
                return recipe
    return None

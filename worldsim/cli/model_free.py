"""Train an agent in the real environment alone."""

from __future__ import annotations

from pathlib import Path

from worldsim.agents.model_free import train_model_free
from worldsim.agents.settings import ImaginationConfig
from worldsim.agents.training import AgentTrainingConfig, world_name
from worldsim.data.open import open_for
from worldsim.store.folder import load
from worldsim.worlds import DEFAULT

from .flags import use_threads

REAL = AgentTrainingConfig(imagination=ImaginationConfig(rows=8, horizon=475))


def model_free(
    world: str = DEFAULT,
    data: str | None = None,
    run: Path = Path("runs/agents/seed-0"),
    recipe: AgentTrainingConfig = REAL,
    steps: int | None = None,
    trust_code: bool = False,
    threads: int | None = None,
) -> None:
    """Train the same agent in the real environment alone: what it costs to have no world.

    RUN/real/agent drives. It sees through the world's encoder, but no step is dreamt. Killed, it
    begins anew.

    Args:
        world: a bundled world's name or a folder.
        data: how the environment was recorded, data/NAME by default; nothing of it is learned from.
        run: the agent's folder.
        recipe: as of an agent that dreams; rows: environments, horizon: steps of an episode.
        steps: real env steps to spend; by default as many as the data holds.
        trust_code: import the module that the data's environment names.
        threads: CPU threads; all by default.
    """
    use_threads(threads)
    loaded = load(world)
    recorded = open_for(data or f"data/{loaded.spec.name}", loaded.spec, sizes=loaded.config.sizes)
    spent = steps or sum(recorded.split("train").lengths)
    train_model_free(
        loaded, recorded.spec.environment, recipe, run, steps=spent, name=world_name(world),
        trust_code=trust_code,
    )  # fmt: skip
    print(f"saved {run}/real/agent")

"""Train an agent in the dream."""

from __future__ import annotations

from pathlib import Path

from worldsim.agents.training import AgentTrainingConfig, train_agent, world_name
from worldsim.data.open import open_for
from worldsim.store.folder import load
from worldsim.world.compiled import compiled
from worldsim.worlds import DEFAULT

from .flags import use_threads


def agent(
    world: str = DEFAULT,
    data: str | None = None,
    run: Path = Path("runs/agents/seed-0"),
    camera: str | None = None,
    recipe: AgentTrainingConfig = AgentTrainingConfig(),  # noqa: B008
    num_steps: int = 1,
    compile: bool = True,
    threads: int | None = None,
) -> None:
    """Train an agent in the world's dream: from nothing, or from a clone of the recorded drivers.

    Args:
        world: a bundled world's name or a folder.
        data: a folder of ours, or what `worldsim.open` takes; dreams begin in its training split,
            which a clone imitates. data/NAME by default, as `worldsim collect` names it.
        camera: which of several, or "tile" for all side by side.
        run: the agent's folder; RUN/dream/agent drives (or RUN/clone, RUN/clone-dream).
        recipe: how to train.
        num_steps: denoising steps of a dream's step; fewer are faster.
        compile: dream in a compiled world, see docs/explanation/speed.md.
        threads: CPU threads; all by default.
    """
    use_threads(threads)
    dreamt = load(world).with_num_steps(num_steps)
    dream = compiled(dreamt) if compile else dreamt
    recorded = open_for(
        data or f"data/{dreamt.spec.name}", dreamt.spec, camera=camera, sizes=dreamt.config.sizes
    )
    train_agent(dream, recorded, recipe, run, world_name(world))
    print(f"saved {run}; score it: benchmarks.transfer --world {world} --agents {run}")

"""Close the loop between a world and reality once."""

from __future__ import annotations

from pathlib import Path

from worldsim.agents.dyna import DynaConfig, improve

from .flags import use_threads


def dyna(
    world: str,
    agent: Path,
    data: Path,
    run: Path,
    config: DynaConfig = DynaConfig(),  # noqa: B008
    trust_code: bool = False,
    threads: int | None = None,
) -> None:
    """Close the loop once: the agent acts in reality, the world learns from it, the agent too.

    RUN/world is the new world, RUN/agent/agent the new agent. Typed again with another RUN, and
    with these as WORLD and AGENT, it is the next turn.

    Args:
        world: a bundled world's name or a folder.
        agent: a saved agent, path without suffix, such as runs/agents/seed-0/dream/agent.
        data: the world's dataset; the agent's episodes join its training split.
        run: the turn's folder; a turn goes on where it stood.
        config: how much of what.
        trust_code: import the module that the data's environment names.
        threads: CPU threads; all by default.
    """
    use_threads(threads)
    done = improve(world, agent, data, run, config, trust_code=trust_code)
    mean = sum(done.returns) / len(done.returns)
    print(f"the agent earned {mean:.1f} in {len(done.returns)} real episodes before it learned")
    if (gain := done.gain) is not None:
        print(f"it gained {gain.value:+.1f} a real episode in this turn [{gain.low:+.1f}, "
              f"{gain.high:+.1f}], over the same {len(done.after)} episodes")  # fmt: skip
    print(f"real env steps used by now: {done.real_steps:,}; saved {run}/world, {run}/agent/agent")

"""Play a world in the browser."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from worldsim.agents.deploy import real_environment
from worldsim.core import WorldError
from worldsim.play.handover import Company
from worldsim.play.policies import Agent, Planner
from worldsim.store.folder import load
from worldsim.world.compiled import compiled
from worldsim.world.diffusion import DiffusionWorld
from worldsim.worlds import DEFAULT

from .flags import use_threads


def play(
    world: tyro.conf.Positional[str] = DEFAULT,
    agent: tuple[Path, ...] = (),
    plan: bool = True,
    out: Path = Path("plays"),
    host: str = "127.0.0.1",
    port: int = 0,
    allow: tuple[str, ...] = (),
    browser: bool = True,
    window: bool = False,
    trust_code: bool = False,
    compile: bool = False,
    device: str = "cpu",
    threads: int | None = None,
) -> None:
    """Play a world in the browser: keys or touch, rewind to any moment and branch, save films.

    The page is served to this machine alone. From another one, tunnel and name the tunnel's end:
    `ssh -L 8000:127.0.0.1:8000 MACHINE`, there `worldsim play WORLD --port 8000`.

    Args:
        world: a bundled world's name or a folder.
        agent: saved agents that the page may hand over to, paths without suffix, such as
            runs/agents/seed-0/dream/agent.
        plan: offer a planner, too: it searches in dreams of its own at every step, which is slow.
        out: folder that films are saved in.
        host: an address of this machine to serve at.
        port: 0 takes a free one.
        allow: further "name:port" by which the browser may reach this server.
        browser: open the page in the default browser.
        window: no page, but a window on this machine's screen (worldsim[play]).
        trust_code: import the module that the world's environment names.
        compile: dream by programs compiled for this machine: faster, but the first time they take
            a minute or two to make.
        device: where to dream.
        threads: CPU threads; all by default.
    """
    use_threads(threads)

    def ready(address: str) -> None:
        print(f"{world} is played at\n\n    {address}\n\nCtrl-C ends it.", flush=True)
        if browser:
            webbrowser.open(address)

    dreamt = load(world, device)
    dreamt = compiled(dreamt, batch=1) if compile else dreamt
    company = _company(dreamt, agent, plan, trust_code)
    if window:
        from worldsim.play.window import Window  # pygame is an extra, and so are the server's parts

        Window(dreamt, out, company).play()
        return
    from worldsim.play.server import serve

    serve(dreamt, out, host=host, port=port, allowed=allow, ready=ready, company=company)


def _company(
    world: DiffusionWorld, agents: Sequence[Path], plan: bool, trust_code: bool
) -> Company:
    """Who may be with the player. Raises WorldError for an agent that does not fit the world."""
    policies: dict[str, Callable[[], Any]] = {}
    for path in agents:
        make = partial(Agent, path, world)
        make()  # what does not fit is told here, not on the page
        if str(path) in policies:
            raise WorldError(f"agent: expected each once, got {path} twice")
        policies[str(path)] = make
    if plan and world.spec.action.kind != "none":
        policies["planner"] = partial(Planner, world)
    real = partial(real_environment, world, actions="native", trust_code=trust_code)
    return Company(policies=policies, real=None if world.config.environment is None else real)

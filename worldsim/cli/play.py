"""Play a world in the browser."""

from __future__ import annotations

import webbrowser
from functools import partial
from pathlib import Path

import tyro

from worldsim.agents.deploy import load_policy, real_environment
from worldsim.play.server import serve
from worldsim.play.session import Company
from worldsim.store.folder import load
from worldsim.world.compiled import compiled

from .flags import use_threads


def play(
    world: tyro.conf.Positional[str] = "car-racing",
    agent: Path | None = None,
    out: Path = Path("plays"),
    host: str = "127.0.0.1",
    port: int = 0,
    allow: tuple[str, ...] = (),
    browser: bool = True,
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
        agent: a saved agent that the page may hand over to, path without suffix, such as
            runs/agents/seed-0/dream/agent.
        out: folder that films are saved in.
        host: an address of this machine to serve at.
        port: 0 takes a free one.
        allow: further "name:port" by which the browser may reach this server.
        browser: open the page in the default browser.
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
    policy = None if agent is None else partial(load_policy, agent, dreamt, actions="native")
    if policy is not None:
        policy()  # what does not fit is told here, not on the page
    real = partial(real_environment, dreamt, actions="native", trust_code=trust_code)
    company = Company(policy=policy, real=None if dreamt.config.environment is None else real)
    serve(dreamt, out, host=host, port=port, allowed=allow, ready=ready, company=company)

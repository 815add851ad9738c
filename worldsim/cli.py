"""The command line: collect, train, distill, calibrate, eval, agent, practise, improve, demo, ...

    python -m worldsim.cli collect car-racing --folder data/car-racing
    python -m worldsim.cli train vae --data data/car-racing --run runs/car-racing
    python -m worldsim.cli train dynamics --data data/car-racing --run runs/car-racing
    python -m worldsim.cli distill --data data/car-racing --run runs/car-racing --out worlds/mine
    python -m worldsim.cli calibrate --world worlds/mine --data data/car-racing
    python -m worldsim.cli eval --world worlds/mine --data data/car-racing
    python -m worldsim.cli agent --world worlds/mine --data data/car-racing
    python -m worldsim.cli practise --world worlds/mine --data data/car-racing
    python -m worldsim.cli improve --world worlds/mine --data data/car-racing --run runs/turn-1 \
        --agent runs/agents/seed-0/dream/agent
    python -m worldsim.cli demo --world worlds/mine
    python -m worldsim.cli compute --preset small --device h200

Every command says its flags with --help. Killed at any moment, collecting and training go on where
they stood when the same command is typed again.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from tyro.extras import SubcommandApp

from worldsim.agents.dyna import DynaConfig
from worldsim.agents.dyna import improve as close_loop
from worldsim.agents.settings import ImaginationConfig
from worldsim.agents.training import AgentTrainingConfig, train_agent
from worldsim.collect.recorder import as_recorded
from worldsim.core import ActionSpec, WorldError
from worldsim.costs.devices import device_named
from worldsim.costs.flops import Networks
from worldsim.costs.report import Use
from worldsim.costs.report import table as account_table
from worldsim.data.native import RESERVED_SEED, open_dataset
from worldsim.evaluate import evaluate, renew_trust
from worldsim.evaluate.calibrate import calibrate as fit_trust
from worldsim.evaluate.describe import describe
from worldsim.evaluate.report import table
from worldsim.play.demo import run_demo
from worldsim.presets import SIZES
from worldsim.store.folder import load, save
from worldsim.train.recipe import Recipe, assemble, fit_forced, fit_student, fit_teacher, fit_vae
from worldsim.world.compiled import compiled
from worldsim.worlds import ROOT, names

app = SubcommandApp()
PRACTICE = AgentTrainingConfig(imagination=ImaginationConfig(rows=8, horizon=475))
SizeName = Literal["tiny", "small", "medium", "base", "xl"]


@app.command
def collect(
    env: tyro.conf.Positional[str],
    folder: Path | None = None,
    policy: str | None = None,
    workers: int = os.cpu_count() or 1,
    episodes: int | None = None,
    chunk: int = 2,
    size: tuple[int, int] = (64, 64),
) -> None:
    """Record episodes of a Gymnasium environment into a folder.

    Args:
        env: "car-racing", "car-racing-panel" or "pendulum" for the measured recipes, or any
            Gymnasium id.
        folder: where to; data/NAME by default.
        policy: "module:function", a policy obs -> action; by default the environment's mix of
            behaviours if this house has one (CarRacing-v3, Pendulum-v1), else random actions.
        workers: processes.
        episodes: training episodes; all of the recipe by default.
        chunk: frames an action is repeated for (where there is no recipe).
        size: (height, width) to resize frames to, divisible by 8.
    """
    from worldsim.collect.recorder import CollectConfig
    from worldsim.recipes.registry import RECIPES, main

    folder = folder or Path("data") / env.replace("/", "-")
    if env in RECIPES:
        config = replace(RECIPES[env](folder), workers=workers)
    else:
        config = CollectConfig(env_id=env, folder=folder, chunk=chunk, size=size, workers=workers)
    if episodes is not None:
        config = replace(config, train=(config.train[0], config.train[0] + episodes))
    main(config, policy)


@app.command
def train(
    stage: tyro.conf.Positional[Literal["vae", "dynamics"]],
    data: Path = Path("data/car-racing"),
    run: Path = Path("runs/car-racing"),
    size: SizeName = "small",
    recipe: Recipe = Recipe(),  # noqa: B008
    begin: str | None = None,
    threads: int | None = None,
) -> None:
    """Train a stage: first "vae", then "dynamics" (the teacher, in two runs).

    Args:
        stage: what to train.
        data: a folder of episodes.
        run: the run's folder; a run goes on where it stood.
        size: the networks' size.
        recipe: how to train.
        begin: a world whose VAE goes on here, a bundled one's name or a folder; "vae" only.
        threads: CPU threads; all by default.
    """
    _threads(threads)
    dataset, sizes = open_dataset(data), SIZES[size]()
    if stage == "vae":
        fit_vae(dataset, sizes, recipe.vae, run, load(begin) if begin else None)
    elif begin:
        raise WorldError(f"begin: expected none for a teacher, got {begin!r}; `distill` takes it")
    else:
        fit_forced(dataset, sizes, recipe.forced, run)
        fit_teacher(dataset, sizes, recipe.teacher, run)


@app.command
def distill(
    out: Path,
    data: Path = Path("data/car-racing"),
    run: Path = Path("runs/car-racing"),
    size: SizeName = "small",
    recipe: Recipe = Recipe(),  # noqa: B008
    begin: str | None = None,
    time_limit: int = 475,
    passes: int = 2,
    threads: int | None = None,
    overwrite: bool = False,
) -> None:
    """Distill the teacher to a few-step student and save the world folder.

    Args:
        out: the world folder to write; its name is the world's.
        data: a folder of episodes.
        run: the run's folder.
        size: the networks' size.
        recipe: how to train.
        begin: a world whose student goes on here; the run's teacher is distilled without.
        time_limit: steps after which the world's environments truncate an episode.
        passes: in which the world draws a step.
        threads: CPU threads; all by default.
        overwrite: replace a world that is there.
    """
    _threads(threads)
    dataset, sizes = open_dataset(data), SIZES[size]()
    fit_student(dataset, sizes, recipe.distill, run, load(begin) if begin else None)
    world = assemble(dataset, sizes, run, out.name, time_limit=time_limit, passes=passes)
    save(world, out, overwrite=overwrite)
    print(f"saved {out}; measure it: python -m worldsim.cli eval --world {out} --data {data}")


@app.command
def calibrate(
    world: str = "car-racing",
    data: Path = Path("data/car-racing"),
    device: str = "cpu",
    threads: int | None = None,
) -> None:
    """Fit a world's trust to dreams of its validation episodes and put it into its folder.

    Holds for the sampling in the world's config; again after a change of weights or sampling.

    Args:
        world: a bundled world's name or a folder.
        data: a folder of episodes with train and val splits.
        device: where to compute.
        threads: CPU threads; all by default.
    """
    _threads(threads)
    calibrated, figures = fit_trust(load(world, device), open_dataset(data))
    folder = ROOT / world if world in names() else Path(world)
    save(calibrated.to("cpu"), folder, overwrite=True)
    print(json.dumps(figures, indent=1))
    print(f"put the trust into {folder}")


@app.command(name="eval")
def evaluate_world(
    world: str = "car-racing",
    data: Path = Path("data/car-racing"),
    run: Path | None = None,
    quick: bool = False,
    twins: Path | None = None,
    foreign: Path | None = None,
    policies: Path | None = None,
    only_trust: bool = False,
    device: str = "cpu",
    threads: int | None = None,
) -> None:
    """Measure a world on its test episodes, print the table, put the card into its folder.

    Args:
        world: a bundled world's name or a folder.
        data: a folder of episodes with a test split.
        run: the training run: its teacher is compared with the student, its logs tell the cost.
        quick: a tenth of the work, printed only.
        twins: what `python -m benchmarks.noise_floor` wrote: the noise floor.
        foreign: what `python -m benchmarks.offtrack_reference` wrote.
        policies: what `python -m benchmarks.transfer` wrote: their returns, dreamt and real.
        only_trust: renew only what the world's card says of safe horizon, trust and, where they are
            given, twins and policies.
        device: where to compute.
        threads: CPU threads; all by default.
    """
    _threads(threads)
    teacher = None if run is None else str(run)
    floor, off_road, ranked = (
        None if path is None else json.loads(path.read_text())
        for path in (twins, foreign, policies)
    )
    if only_trust:
        loaded = load(world, device)
        if loaded.card is None:
            raise WorldError(f"{world}: expected a card to renew; measure all of it first")
        card = renew_trust(loaded.card, loaded, data, twins=floor, policies=ranked)
    else:
        card = evaluate(
            world, data, teacher=teacher, run=run, quick=quick, device=device,
            twins=floor, foreign=off_road, policies=ranked,
        )  # fmt: skip
    print(table(card["lines"]))
    if not quick:
        folder = ROOT / world if world in names() else Path(world)
        save(load(world), folder, card=card, overwrite=True)
        print(f"put the card into {folder}")


@app.command
def agent(
    world: str = "car-racing",
    data: Path = Path("data/car-racing"),
    run: Path = Path("runs/agents/seed-0"),
    recipe: AgentTrainingConfig = AgentTrainingConfig(),  # noqa: B008
    passes: int = 1,
    compile: bool = True,
    threads: int | None = None,
) -> None:
    """Train an agent in the world's dream: from nothing, or from a clone of the recorded drivers.

    Args:
        world: a bundled world's name or a folder.
        data: a folder of episodes; dreams begin in its training split, which a clone imitates.
        run: the agent's folder; RUN/dream/agent drives (or RUN/clone, RUN/clone-dream).
        recipe: how to train.
        passes: of the denoiser in a dream's step; fewer are faster.
        compile: dream in a compiled world, see docs/speed.md.
        threads: CPU threads; all by default.
    """
    _threads(threads)
    dreamt = load(world).with_num_steps(passes)
    train_agent(compiled(dreamt) if compile else dreamt, open_dataset(data), recipe, run)
    print(f"saved {run}; score it: benchmarks.transfer --world {world} --agents {run}")


@app.command
def practise(
    world: str = "car-racing",
    data: Path = Path("data/car-racing"),
    run: Path = Path("runs/agents/seed-0"),
    recipe: AgentTrainingConfig = PRACTICE,
    steps: int | None = None,
    threads: int | None = None,
) -> None:
    """Train the same agent in the real environment alone: what it costs to have no world.

    RUN/real/agent drives. It sees through the world's encoder, but no step is dreamt. Killed, it
    begins anew.

    Args:
        world: a bundled world's name or a folder.
        data: how the environment was recorded; nothing recorded is learned from.
        run: the agent's folder.
        recipe: as of an agent that dreams; rows: environments, horizon: steps of an episode.
        steps: real env steps to spend; by default as many as the data holds.
        threads: CPU threads; all by default.
    """
    from worldsim.agents.model_free import (
        practise as train,  # TorchRL: slow to import, and an extra
    )

    _threads(threads)
    recorded = open_dataset(data)
    spent = steps or sum(len(recorded.load(e).actions) for e in recorded.episodes("train"))
    train(load(world), as_recorded(recorded), recipe, run, steps=spent)
    print(f"saved {run}/real/agent")


@app.command
def improve(
    world: str,
    agent: Path,
    data: Path,
    run: Path,
    how: DynaConfig = DynaConfig(),  # noqa: B008
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
        how: how much of what.
        threads: CPU threads; all by default.
    """
    _threads(threads)
    done = close_loop(world, agent, data, run, how)
    mean = sum(done.returns) / len(done.returns)
    print(f"the agent earned {mean:.1f} in {len(done.returns)} real episodes before it learned")
    print(f"real env steps used by now: {done.real_steps:,}; saved {run}/world, {run}/agent/agent")


@app.command
def demo(
    world: str = "car-racing",
    out: Path = Path("demo.mp4"),
    seconds: float = 20.0,
    seed: int = RESERVED_SEED + 7,
    device: str = "cpu",
) -> None:
    """Write a film of the real environment beside the dream.

    Args:
        world: a bundled world's name or a folder.
        out: the film.
        seconds: its length.
        seed: of the track and the dream, from 10,000 up: seen by no training.
        device: where to dream.
    """
    run_demo(world, out, seconds, seed, device)


@app.command
def info(world: tyro.conf.Positional[str]) -> None:
    """Print what a world is and its fidelity card.

    Args:
        world: a bundled world's name or a folder.
    """
    print((loaded := load(world)).spec)
    parts = {"vae": loaded.vae, "dit": loaded.dynamics.dit, "heads": loaded.dynamics.heads}
    for name, part in parts.items():
        print(f"{name:6} {sum(p.numel() for p in part.parameters()) / 1e6:6.2f}M parameters")
    fitted = loaded.trust is not None
    known = "as it is drawn from" if loaded.calibrated else "for another sampling" * fitted
    print(f"trust  calibrated {known}" if fitted else "trust  unknown: not calibrated")
    print(describe(loaded.card) if loaded.card else "no fidelity card")


@app.command
def compute(
    preset: SizeName = "small",
    device: str = "h200",
    frame: tuple[int, int] = (56, 64),
    actions: int = 3,
    use: tyro.conf.OmitArgPrefixes[Use] = Use(),  # noqa: B008
    recipe: Recipe = Recipe(),  # noqa: B008
) -> None:
    """Print what training, stepping and serving a world cost: FLOPs, device time, devices.

    Args:
        preset: the networks' size.
        device: h100, h200, b200, rtx4090 or zen5-core.
        frame: (height, width) in pixels, divisible by 8.
        actions: entries of a continuous action; 0 for a choice, which is looked up.
        use: how the world is used.
        recipe: how it is trained; the bundled world's, whatever the preset.
    """
    spec = ActionSpec(kind="discrete", n=2)  # of how many costs nothing
    if actions:
        spec = ActionSpec(kind="continuous", low=(-1.0,) * actions, high=(1.0,) * actions)
    networks = Networks(SIZES[preset](), frame, spec)
    print(account_table(networks, recipe, use, device_named(device)))


def _threads(count: int | None) -> None:
    torch.set_num_threads(count or torch.get_num_threads())


def main() -> None:
    """Run the command line."""
    app.cli(description=__doc__)


if __name__ == "__main__":
    main()

"""What an agent would notice of a CarRacing world that error does not tell: the rows of its table.

    python -m benchmarks.fidelity --rows --world car-racing

On validation tracks, driven by the expert, a slow and a fast driver, whose speed is recorded beside
the pixels: sharpness of dreams; what other actions change (`counterfactual`); the true speed after
dreamt steps, as a probe reads it from latents (fitted on training tracks) and as a world says that
knows it; whether slow drivers stay slow and fast ones fast; and what the transfer benchmark says
agents earn in dreams that they do not earn in reality.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldsim.collect.policies import CollectPolicy
from worldsim.collect.workers import Job, collect_jobs
from worldsim.core import WorldError
from worldsim.data import NativeDataset
from worldsim.data.latents import latent_cache
from worldsim.evaluate.clips import Clips, even_clips
from worldsim.evaluate.probe import Probe, fit_probe
from worldsim.evaluate.sharpness import sharpness
from worldsim.evaluate.states import STATE_HORIZONS
from worldsim.metrics import bootstrap, r_squared, weighted_mean
from worldsim.recipes.car_racing.drivers import expert, fast, pursue
from worldsim.recipes.car_racing.sensors import SENSORS
from worldsim.recipes.car_racing.settings import car_racing_state
from worldsim.recipes.recipe import Recipe
from worldsim.store.folder import load
from worldsim.store.provenance import provenance
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.rollout import replay

from .counterfactual import STEPS, branch, counterfactual

SPEED = SENSORS.index("speed")
HORIZON = 60
SLOW_SPEED = 38.0  # units a second on a straight road
KEPT = slice(29, 60)  # dreamt steps over which speeds are compared


def slow(env: Any, rng: Any) -> Any:
    """The expert at two fifths of its speed."""
    return lambda obs: pursue(env, top_speed=SLOW_SPEED, gas=0.15)


DRIVERS = tuple(
    CollectPolicy(name=name, make=make)
    for name, make in (("expert", expert), ("slow", slow), ("fast", fast))
)


@dataclass(frozen=True, kw_only=True)
class RowsPlan:
    """How much is measured.

    Attributes:
        tracks: validation tracks, each driven three times.
        starts: clips an episode. fit: training episodes for the probe. frames: of an episode.
        moments: clips, at most, from which other actions are tried.
    """

    tracks: int = 6
    starts: int = 3
    fit: int = 24
    frames: int = 400
    moments: int = 24


@dataclass(frozen=True)
class Dreams:
    """Dreams of N clips: frames (N, T, c, H, W, 3), the speed that a probe reads and the one that
    the world says (N, T), None in a world that knows none."""

    frames: Tensor
    read: Tensor
    said: Tensor | None


def recipe_for(world: DiffusionWorld, frames: int) -> Recipe:
    """The recording that shows what this world shows, with sensors; WorldError for another kind."""
    environment = world.config.environment
    if environment is None or environment.chunk != 2 or "Racing" not in environment.id:
        name = world.spec.name
        raise WorldError(f"world: expected one of CarRacing for these rows, got {name!r}")
    seen = {"crop": environment.crop, "size": environment.size}
    return car_racing_state().seen(max_frames=frames, **seen)


def record(recipe: Recipe, plan: RowsPlan, folder: Path) -> NativeDataset:
    """Validation tracks by three drivers, and training tracks by the recipe's own."""
    fitting = recipe.jobs(plan.fit * 25)[: plan.fit * 25 : 25]  # one of every kind of driver
    jobs = [Job(split="train", name=f"fit-{j.seed}", seed=j.seed, policy=j.policy) for j in fitting]
    jobs += [
        Job(split="val", name=f"{who.name}-{seed}", seed=seed, policy=f"rows-{who.name}")
        for seed in recipe.seeds["val"][: plan.tracks]
        for who in DRIVERS
    ]
    drivers = [CollectPolicy(name=f"rows-{who.name}", make=who.make) for who in DRIVERS]
    return collect_jobs(recipe.source, folder, jobs, (*recipe.everybody, *drivers), 1)


def clips_of(data: NativeDataset, context: int, starts: int) -> Clips:
    """Clips of the validation episodes, a cluster a track, with their states."""
    return even_clips(data.split("val"), context, HORIZON, starts)


def speed_probe(world: DiffusionWorld, data: NativeDataset, cache: Path) -> Probe:
    """Reads the speed from the latents of a context."""
    latents, window = latent_cache(world.vae, data.split("train"), cache), world.spec.context
    rows = latents.windows.starts(window)[:, None] + torch.arange(window)
    return fit_probe(latents.latents[rows], latents.states[rows[:, -1], SPEED : SPEED + 1])


@torch.no_grad()
def dream(world: DiffusionWorld, clips: Clips, probe: Probe, rows: int = 18) -> Dreams:
    """Dream from every clip under its own actions."""
    frames, read, said, spec = [], [], [], world.spec
    for some in (clips[a : a + rows] for a in range(0, len(clips), rows)):
        state = some.begin(world, torch.stack([some.episode, some.start], 1))
        found = replay(world, state, some.actions, decode_every=1)
        assert found.frames is not None
        frames.append(found.frames.reshape(some.frames.shape))
        seen = torch.cat([state.latents, found.latents], 1)
        windows = seen.unfold(1, spec.context, 1).movedim(-1, 2)[:, 1:]
        read.append(probe(windows.flatten(0, 1)).reshape(len(some), -1))
        if spec.state is not None and "speed" in spec.state.names:
            said.append(found.states[..., spec.state.names.index("speed")])
    return Dreams(torch.cat(frames), torch.cat(read), torch.cat(said) if said else None)


def speeds(found: Tensor, true: Tensor, clips: Clips) -> dict[str, Any]:
    """R² of the speed by horizon: both (N, T)."""
    by_horizon = {}
    for h in (h for h in STATE_HORIZONS if h <= found.shape[1]):
        figure = partial(r_squared, found[:, h - 1], true[:, h - 1])
        by_horizon[str(h)] = bootstrap(figure, clips.cluster)._asdict()
    return by_horizon


def kept(found: Tensor, true: Tensor, who: Sequence[str], clips: Clips) -> dict[str, Any]:
    """Mean speed of slow and fast drivers after 30 to 60 steps, dreamt and real, and the share of
    their difference that is left in the dream."""
    groups = {name: torch.tensor([w == name for w in who]) for name in ("slow", "fast")}
    means = {
        name: {"dreamt": found[mask, KEPT].mean().item(), "real": true[mask, KEPT].mean().item()}
        for name, mask in groups.items()
    }
    both = torch.stack([found[:, KEPT].mean(1), true[:, KEPT].mean(1)], 1)

    def figure(weights: Tensor) -> Tensor:
        slow, fast = (weighted_mean(both, weights * groups[n]) for n in ("slow", "fast"))
        gap = fast - slow
        return gap[:, 0] / gap[:, 1]

    return {**means, "difference": bootstrap(figure, clips.cluster)._asdict()}


def exploitability(transfer: dict[str, Any]) -> dict[str, float]:
    """Dream return minus real return of agents that learnt in dreams, by the transfer benchmark."""
    rows = transfer["policies"].items()
    return {name: row["gap"] for name, row in rows if row["dreamt_steps"] and "gap" in row}


def rows_of(
    world: DiffusionWorld, plan: RowsPlan, folder: Path, transfer: dict[str, Any] | None = None
) -> dict[str, Any]:
    """All rows of a world; what is recorded for them lies in `folder`."""
    recipe = recipe_for(world, plan.frames)
    data = record(recipe, plan, folder / "tracks")
    clips = clips_of(data, world.spec.context, plan.starts)
    val = data.split("val")
    episodes = [val.episode(place) for place in range(len(val))]
    who = [episodes[place].policy.removeprefix("rows-") for place in clips.episode.tolist()]
    track = torch.tensor([episodes[place].seed or 0 for place in clips.episode.tolist()])
    probe = speed_probe(world, data, folder / f"latents-{world.spec.name}.safetensors")
    dreams, true = dream(world, clips, probe), clips.states[..., SPEED]
    some = clips[torch.linspace(0, len(clips) - 1, min(plan.moments, len(clips))).long().unique()]
    real = branch(recipe, episodes, some)
    of_tracks = Clips(**{**vars(clips), "episode": track})
    found: dict[str, Any] = {
        "clips": len(clips),
        "sharpness": sharpness(dreams.frames, of_tracks),
        "counterfactual": counterfactual(world, some, real),
        "speed read": speeds(dreams.read, true, of_tracks),
        "kept, read": kept(dreams.read, true, who, of_tracks),
    }
    if dreams.said is not None:
        found["speed said"] = speeds(dreams.said, true, of_tracks)
        found["kept, said"] = kept(dreams.said, true, who, of_tracks)
    if transfer is not None:
        found["exploitability"] = exploitability(transfer)
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """The rows as text: a figure, its value and 95% interval."""

    def told(name: str, x: dict[str, float]) -> str:
        return f"{name:<48} {x['value']:7.3f}  [{x['low']:.3f}, {x['high']:.3f}]"

    out = [told(f"gradient energy, dream / real, step {s}", x)
           for s, x in found["sharpness"].items()]  # fmt: skip
    effect = found["counterfactual"]
    out += [told(f"counterfactual {n}, {STEPS} steps", effect[n]) for n in ("effect", "error")]
    out += [told(f"  effect of {n}", x) for n, x in effect["by control"].items()]
    for how in ("read", "said"):
        for h, x in found.get(f"speed {how}", {}).items():
            out.append(told(f"R² of the true speed, {how}, step {h}", x))
        if both := found.get(f"kept, {how}"):
            out.append(told(f"fast minus slow, {how}, dream / real", both["difference"]))
            out += [f"  {n} drivers, {how}: dreamt {both[n]['dreamt']:.1f}, real "
                    f"{both[n]['real']:.1f}" for n in ("slow", "fast")]  # fmt: skip
    out += [f"exploitability of {n:<32} {x:+.0f}"
            for n, x in found.get("exploitability", {}).items()]  # fmt: skip
    return out


def measure(world: str, plan: RowsPlan, folder: Path, transfer: Path | None) -> dict[str, Any]:
    """The rows of a named world, printed, with where they came from."""
    ranked = json.loads(transfer.read_text()) if transfer and transfer.exists() else None
    found = rows_of(load(world), plan, folder, ranked)
    print("\n".join(lines(found)))
    return {"format": "worldsim-rows", "world": world, **found, "provenance": provenance()}

"""A world of ours and a peer, trained on one recording for the same processor time and measured.

    python -m benchmarks.fidelity --peer diamond=FOLDER --data data/pendulum --cpu-minutes 15

FOLDER is a checkout of DIAMOND, which is no part of this repository. Ours trains first, all its
stages; the peer then for as long as that took, to the second. Both see pixels alone, dream from the
same starts of test episodes under the same actions, and are chosen on nothing. On an accelerator
the clock on the wall counts instead.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from worldsim import metrics
from worldsim.config import read_json
from worldsim.core import WorldError, row_keys
from worldsim.data import Dataset
from worldsim.data.dataset import DatasetSpec
from worldsim.data.open import open_dataset
from worldsim.data.view import WithoutStates
from worldsim.evaluate.clips import Clips, even_clips
from worldsim.evaluate.report import write_card
from worldsim.evaluate.sharpness import sharpness
from worldsim.metrics import bootstrap, weighted_mean
from worldsim.pipeline import train
from worldsim.play import film
from worldsim.presets import sizes_of
from worldsim.store.folder import load
from worldsim.store.provenance import provenance
from worldsim.store.tensors import load_weights, save_tensors
from worldsim.world.diffusion import DiffusionWorld

from . import peer_diamond
from .page import put
from .peer_diamond import CONTEXT, DiamondConfig, DiamondDream
from .pendulum_ranking import Dream, ranked
from .speed_peers import digest

HORIZONS = (1, 8, 16, 32)
TRIALS = (16, 48)  # steps of the trainings that say what a step costs
TIMED = 12  # steps whose median is the speed
COPY = "the last frame again"


@dataclass(frozen=True, kw_only=True)
class Match:
    """A comparison with a peer.

    Attributes:
        peer: diamond=FOLDER.
        cpu_minutes: of one thread that our training should take, and the peer's takes as well; of
            the clock on the wall on an accelerator.
        world_preset: sizes of our networks.
        channels: width of the peer's network, a multiple of 8; by default as many weights as ours.
            64 is its own default.
        peer_lr: the peer's learning rate.
        starts: dreams of each test episode. rank_starts: of each policy that is ranked, 0 to rank
            none.
        page: whose table between `<!-- peer -->` and `<!-- /peer -->` is replaced by this one.
    """

    peer: str | None = None
    cpu_minutes: float = 15.0
    world_preset: str = "tiny"
    channels: int | None = None
    peer_lr: float = DiamondConfig.lr
    starts: int = 4
    rank_starts: int = 8
    page: Path | None = None

    def folder(self) -> Path:
        """The checkout's; WorldError, which says what is wrong, before anything is trained."""
        name, _, folder = (self.peer or "").partition("=")
        if name != "diamond" or not folder:
            raise WorldError(f"peer: expected diamond=FOLDER, got {self.peer!r}")
        rules = {
            "cpu_minutes: expected more than 0": self.cpu_minutes > 0,
            "peer_lr: expected more than 0": self.peer_lr > 0,
            "starts: expected 1 or more": self.starts > 0,
            "rank_starts: expected 0 or more": self.rank_starts >= 0,
            "channels: expected a multiple of 8": self.channels is None
            or (self.channels > 0 and self.channels % 8 == 0),
        }
        for expected, fits in rules.items():
            if not fits:
                raise WorldError(f"{expected}, got {getattr(self, expected.partition(':')[0])}")
        return Path(folder)


class WorldDream:
    """Dreams of a world of ours."""

    def __init__(self, world: DiffusionWorld) -> None:
        self.world, self.context = world, world.spec.context
        self.reward: Tensor | None = None

    def begin(self, frames: Tensor, actions: Tensor, known: Tensor) -> None:
        """Look at the newest chunks of a clip."""
        spec, device = self.world.spec, self.world.device
        parts = (frames[:, -spec.context * spec.chunk :], actions[:, -spec.context :],
                 known[:, -spec.context :])  # fmt: skip
        seen, acts, told = (x.to(device) for x in parts)
        self.state = self.world.encode(seen, acts, row_keys(range(len(frames))), known=told)

    def step(self, action: Tensor) -> Tensor:
        """The next chunk under an action."""
        self.state, said = self.world.step(self.state, action.to(self.world.device))
        self.reward = said.reward
        return self.world.decode(self.state).cpu()


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds that count: the processor's on a CPU, which others share, else the wall's."""
    return time.process_time if device.type == "cpu" else time.perf_counter


def ours(
    data: Dataset, match: Match, run: Path, device: torch.device
) -> tuple[DiffusionWorld, dict[str, float]]:
    """Train a world for about the budget, in as many steps as two short trials say; it is kept in
    `run` with what it took, and not trained again."""
    kept, clock = run / "spent.json", clock_of(device)
    options: dict[str, Any] = {"preset": match.world_preset, "compile": False, "card": False,
                           "device": device, "overwrite": True}  # fmt: skip
    settings = {"data": data.fingerprint(), "preset": match.world_preset,
                "minutes": match.cpu_minutes, "device": device.type}  # fmt: skip
    if (spent := spent_in(kept, settings)) is not None:
        return load(run / "world", device=device), spent

    def trained(steps: int, name: str) -> tuple[DiffusionWorld, float]:
        shutil.rmtree(run / f"{name}-run", ignore_errors=True)  # of a run that was cut short
        begun = clock()
        world = train(data, out=run / name, run=run / f"{name}-run", steps=steps, **options)
        return world, clock() - begun

    costs = [trained(steps, "trial")[1] for steps in TRIALS]
    a_step = max(1e-4, (costs[1] - costs[0]) / (TRIALS[1] - TRIALS[0]))
    steps = round((60 * match.cpu_minutes - max(0.0, costs[0] - TRIALS[0] * a_step)) / a_step)
    if steps < TRIALS[1]:
        raise WorldError(
            f"cpu_minutes: expected time for {TRIALS[1]} steps or more of {a_step:.2f} s, got "
            f"{match.cpu_minutes:g}; give more, or a smaller world_preset"
        )
    world, seconds = trained(steps, "world")
    spent = {"steps": steps, "seconds": seconds, "trials": sum(costs)}
    write_card({"settings": settings, "spent": spent}, kept)
    return world, spent


def spent_in(kept: Path, settings: dict[str, Any]) -> dict[str, float] | None:
    """What a finished training took, None where there is none; WorldError for one of other
    settings."""
    if not kept.exists():
        return None
    found = read_json(kept)
    if found.get("settings") != settings:
        raise WorldError(
            f"run: expected a training with {settings} in {kept.parent}, got one with "
            f"{found.get('settings')}; give another --run, or remove that folder"
        )
    return found["spent"]


def theirs(
    peer: peer_diamond.Source, data: Dataset, config: DiamondConfig, run: Path, seconds: float,
    device: torch.device,
) -> tuple[Any, dict[str, float]]:  # fmt: skip
    """Train the peer for so many seconds; it is kept in `run`, and not trained again."""
    denoiser = peer_diamond.new_denoiser(peer, data.spec, config.channels)
    weights, kept = run / "denoiser.safetensors", run / "spent.json"
    settings = {"data": data.fingerprint(), "config": asdict(config), "seconds": seconds}
    if (spent := spent_in(kept, settings)) is not None:
        return load_weights(weights, denoiser).to(device), spent
    clock = clock_of(device)
    spent = peer_diamond.train(peer, denoiser, data.split("train"), config, seconds, clock, device)
    run.mkdir(parents=True, exist_ok=True)
    save_tensors(weights, denoiser.state_dict())
    write_card({"settings": settings, "spent": spent}, kept)
    return denoiser, spent


@torch.no_grad()
def dreamt(dream: Dream, clips: Clips, name: str, rows: int = 40) -> Tensor:
    """Frames (N, T, c, H, W, 3) under the clips' own actions."""
    parts = []
    for first in range(0, len(clips), rows):
        some = clips[first : first + rows]
        dream.begin(some.context, some.context_actions, some.context_known)
        steps = tqdm(some.actions.unbind(1), desc=f"dreams, {name}")
        parts.append(torch.stack([dream.step(action) for action in steps], 1))
    return torch.cat(parts)


def figures(frames: Tensor, clips: Clips) -> dict[str, Any]:
    """Error and sharpness of dreams by horizon, with intervals over episodes."""
    error = metrics.squared_error(frames, clips.frames).mean((-3, -2, -1))
    found: dict[str, Any] = {"psnr": {}, "sharpness": sharpness(frames, clips, HORIZONS)}
    for h in HORIZONS:

        def figure(weights: Tensor, error: Tensor = error[:, h - 1]) -> Tensor:
            return metrics.psnr(weighted_mean(error, weights))

        found["psnr"][str(h)] = bootstrap(figure, clips.cluster)._asdict()
    return found


def frames_a_second(
    dream: Dream, clips: Clips, chunk: int, batch: int, clock: Callable[[], float]
) -> float:
    """Frames of all rows, by the median step in seconds of `clock`; uncompiled."""
    some = clips[torch.arange(batch) % len(clips)]
    dream.begin(some.context, some.context_actions, some.context_known)
    took = []
    for t in range(TIMED):
        begun = clock()
        dream.step(some.actions[:, t % some.actions.shape[1]])
        took.append(clock() - begun)
    return batch * chunk / sorted(took)[TIMED // 2]


def test_clips(data: Dataset, match: Match) -> Clips:
    """Clips of the test episodes, as long as the farthest horizon; WorldError if there are none."""
    context, farthest = max(CONTEXT, sizes_of(match.world_preset).context), max(HORIZONS)
    lengths = data.split("test").lengths if "test" in data.splits else ()
    if not any(length >= context + farthest for length in lengths):
        raise WorldError(
            f"data: expected test episodes of {context + farthest} chunks or more in "
            f"{data.spec.name}, got lengths {list(lengths)[:20]}; record some"
        )
    return even_clips(data.split("test"), context, farthest, match.starts)


def measured(
    dreams: dict[str, Dream], clips: Clips, spec: DatasetSpec, match: Match,
    clock: Callable[[], float], run: Path,
) -> dict[str, Any]:  # fmt: skip
    """All rows; a strip of dreams beside reality goes into `run`."""
    copied = clips.context[:, None, -1:].expand_as(clips.frames)
    found: dict[str, Any] = {COPY: figures(copied, clips)}
    shown = {"real": clips.frames}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, dream in dreams.items():
            shown[name] = dreamt(dream, clips, name)
            found[name] = figures(shown[name], clips)
            for batch in (1, 8):
                speed = frames_a_second(dream, clips, spec.chunk, batch, clock)
                found[name][f"frames a second, batch {batch}"] = speed
        place = ranks(dreams, spec, match.rank_starts)
    film.save_picture(run / "strip.png", strip(shown))
    return {"clips": len(clips), "horizons": HORIZONS, "rows": found, "ranking": place}


def ranks(dreams: dict[str, Dream], spec: DatasetSpec, starts: int) -> dict[str, Any] | str:
    """How policies rank, or why that was not asked."""
    environment = spec.environment
    if not starts:
        return "left out: not asked for"
    if environment is None or environment.id != "Pendulum-v1" or spec.chunk != 2:
        return "left out: policies that see pictures alone are written for Pendulum-v1 only"
    with torch.no_grad():
        return ranked(dreams, environment, starts)


def strip(shown: dict[str, Tensor], clips: int = 3) -> film.Picture:
    """Reality above the dreams, for some clips, by horizon: the last frame of each chunk."""
    steps = [h for h in (1, 2, 4, 8, 16, 32) if h <= max(HORIZONS)]
    count = len(next(iter(shown.values())))
    rows, names = [], []
    for place in torch.linspace(0, count - 1, clips + 2).long()[1:-1].tolist():
        for name, frames in shown.items():
            rows.append([frames[place, h - 1, -1].numpy() for h in steps])
            names.append(name)
    return film.sheet(rows, names, [f"step {h}" for h in steps], max(1, 96 // rows[0][0].shape[0]))


def table(found: dict[str, Any]) -> str:
    """The rows in Markdown."""
    head = ["", *(f"dB, step {h}" for h in HORIZONS), *(f"sharp, {h}" for h in HORIZONS[::3]),
            "frames a second", "ranking"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in found["rows"].items():
        cells = [name, *(f"{row['psnr'][str(h)]['value']:.1f}" for h in HORIZONS)]
        cells += [f"{row['sharpness'][str(h)]['value']:.2f}" for h in HORIZONS[::3]]
        speed, place = row.get("frames a second, batch 1"), found["ranking"]
        cells.append(f"{speed:.0f}" if speed else "")
        known = isinstance(place, dict) and name in place
        cells.append(_interval(place[name]["pictures"]["pearson"]) if known else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _interval(x: dict[str, float]) -> str:
    return f"{x['value']:.2f} [{x['low']:.2f}, {x['high']:.2f}]"


def compare(match: Match, data: Path, run: Path, device: torch.device) -> dict[str, Any]:
    """Train both and measure them; the table is printed."""
    folder = match.folder()
    peer, recording = peer_diamond.source(folder), WithoutStates(open_dataset(data))
    clips = test_clips(recording, match)
    peer_diamond.new_denoiser(peer, recording.spec, match.channels or 8)  # refuses in time
    world, spent = ours(recording, match, run / "ours", device)
    weights = sum(map(peer_diamond.weights_of, (world.vae, world.dynamics)))
    channels = match.channels or peer_diamond.matching_channels(peer, recording.spec, weights)
    config = replace(DiamondConfig(), channels=channels, lr=match.peer_lr)
    name = f"diamond-{channels}-{match.peer_lr:g}"
    new, used = theirs(peer, recording, config, run / name, spent["seconds"], device)
    dreams: dict[str, Dream] = {
        "worldsim": WorldDream(world),
        "DIAMOND": DiamondDream(peer, new, recording.spec, config.passes),
    }
    found = measured(dreams, clips, recording.spec, match, clock_of(device), run)
    print(table(found))
    if match.page is not None:
        put(match.page, table(found), "peer")
    return {
        "format": "worldsim-fidelity-peer", "data": recording.spec.name, **found,
        "worldsim": {"preset": match.world_preset, "weights": weights,
                     "passes": world.config.sampling.num_steps, **spent},
        "DIAMOND": {"weights": peer_diamond.weights_of(new), **asdict(config), **used,
                    "adapted": peer_diamond.ADAPTED, "sources": digest(folder),
                    "rewards": "its model of rewards learns their sign and is not trained"},
        "clock": "processor" if device.type == "cpu" else "wall",
        "provenance": provenance(command(match)),
    }  # fmt: skip


def command(match: Match) -> str:
    """The command line, without the folder that the peer lies in here."""
    return shlex.join(
        word.replace(match.peer or "", "diamond=FOLDER") for word in ["python", *sys.orig_argv[1:]]
    )

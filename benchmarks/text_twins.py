"""Exact twins: the same drive in any scenery, and probes that read scenery and road from frames.

The simulator is deterministic, so a seed and its actions give the same drive in every scenery. The
probes are trained on real frames of tracks that are in no test.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from worldsim.collect.environment import RecordedEnv
from worldsim.core import EnvironmentSpec
from worldsim.recipes.car_racing.captioned import CaptionedRacing, truth_of
from worldsim.recipes.car_racing.captions import ATTRIBUTES
from worldsim.recipes.car_racing.drivers import pursue
from worldsim.recipes.car_racing.landmarks import greenness
from worldsim.recipes.car_racing.scenery import draw, values_of
from worldsim.recipes.car_racing.settings import scenery

READ = ("ground", "light", "weather", "road", "ahead")
"""Attributes that a frame shows."""

Truth = Mapping[str, str]
Look = Callable[[int], Truth]
"""The scenery of each chunk."""

PLAIN: Truth = {"ground": "meadow", "light": "day", "weather": "clear", "road": "grey"}


@dataclass(frozen=True)
class Drive:
    """Frames (n, c, H, W, 3), actions (n, 3) that led into the chunks, what is true after each."""

    frames: Tensor
    actions: Tensor
    truth: tuple[Truth, ...]


class Simulator:
    """CarRacing as a world of sceneries sees it, in any scenery."""

    def __init__(self, environment: EnvironmentSpec) -> None:
        kwargs = {"scenery": dict(PLAIN), "changes": False}
        recipe = replace(scenery(), environment=replace(environment, kwargs=kwargs))
        self.env: RecordedEnv = recipe.source.open()
        inner: Any = self.env
        while not isinstance(inner, CaptionedRacing):
            inner = inner.env
        self.racing = inner

    def drive(self, seed: int, look: Look, chunks: int, actions: Tensor | None = None) -> Drive:
        """`chunks` chunks of a track; by a skilled driver with some noise if no actions are given.

        The scenery of a chunk is the same whatever was shown before: particles go by the frame.
        """
        rng = np.random.default_rng([seed, 99])
        self.env.reset(seed=seed, options={"scenery": dict(look(0))})
        frames, acts, truth = [], [], []
        for t in range(chunks):
            if (now := dict(look(t))) != values_of(self.racing.scenery):
                self.racing.change(**now)
            action = self._skilled(rng) if actions is None else actions[t].numpy()
            self.env.step(action)
            frames.append(self.env.frames)
            acts.append(action)
            truth.append(truth_of(self.racing))
        return Drive(torch.from_numpy(np.stack(frames)), torch.from_numpy(np.stack(acts)),
                     tuple(truth))  # fmt: skip

    def _skilled(self, rng: np.random.Generator) -> NDArray[Any]:
        action = pursue(self.env, top_speed=60) + 0.1 * rng.standard_normal(3)
        return self.env.to_native(action)

    def twin(self, seed: int, look: Look, actions: Tensor) -> Drive:
        """The same drive in another scenery."""
        return self.drive(seed, look, len(actions), actions)


def road_of(plain: Tensor) -> Tensor:
    """Where there is no grass in plain CarRacing, (..., H, W, 3) uint8 -> bool (..., H, W)."""
    return greenness(plain) <= 0


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of masks (n, H, W): (n,)."""
    both, either = (a & b).flatten(1).sum(1), (a | b).flatten(1).sum(1)
    return both / either.clamp(min=1)


class Probe(nn.Module):
    """What a frame shows: each of `READ`, and where the road is."""

    def __init__(self, frame_shape: Sequence[int]) -> None:
        super().__init__()
        height, width = frame_shape[0] // 8, frame_shape[1] // 8
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 4, 2, 1), nn.SiLU()) for a, b in ((3, 24), (24, 48))
        )
        deepest = (nn.Conv2d(48, 96, 4, 2, 1), nn.SiLU(), nn.Conv2d(96, 96, 3, 1, 1), nn.SiLU())
        self.body.append(nn.Sequential(*deepest))
        self.up = nn.ModuleList(nn.Conv2d(a, b, 3, 1, 1) for a, b in ((96, 48), (48, 24), (24, 1)))
        self.counts = [len(ATTRIBUTES[name]) for name in READ]
        self.tell = nn.Linear(96 * height * width, sum(self.counts))

    def forward(self, frames: Tensor) -> tuple[list[Tensor], Tensor]:
        """(B, H, W, 3) uint8 -> logits of every attribute, and of the road (B, H, W)."""
        x, kept = rearrange(frames.float() / 127.5 - 1, "b h w c -> b c h w"), []
        for part in self.body:
            x = part(x)
            kept.append(x)
        logits = self.tell(x.flatten(1)).split(self.counts, 1)
        for layer, beside in zip(self.up, (kept[1], kept[0], None), strict=True):
            x = layer(F.interpolate(x, scale_factor=2))
            x = x if beside is None else F.silu(x) + beside
        return list(logits), x[:, 0]

    @torch.no_grad()
    def read(self, frames: Tensor) -> dict[str, list[str]]:
        """The values of every attribute, of frames (B, H, W, 3)."""
        logits_of, _ = self(frames)
        return {name: [ATTRIBUTES[name][i] for i in logits.argmax(1).tolist()]
                for name, logits in zip(READ, logits_of, strict=True)}  # fmt: skip

    @torch.no_grad()
    def road(self, frames: Tensor) -> Tensor:
        """Where the road is, bool (B, H, W)."""
        return self(frames)[1] > 0


def right(probe: Probe, frames: Tensor, truth: Sequence[Truth]) -> dict[str, float]:
    """Share of what is true that the probe reads, by attribute and of all; frames (B, H, W, 3)."""
    read, hits = probe.read(frames), {name: [] for name in READ}
    for i, one in enumerate(truth):
        for name in READ:
            if name in one:
                hits[name].append(read[name][i] == one[name])
    found = {name: float(np.mean(values)) for name, values in hits.items() if values}
    return found | {"all": float(np.mean([x for values in hits.values() for x in values]))}


def changing(seed: int, span: int) -> Look:
    """Another drawn scenery every `span` chunks."""
    drawn: dict[int, Truth] = {}

    def look(t: int) -> Truth:
        if (place := t // span) not in drawn:
            drawn[place] = values_of(draw(np.random.default_rng([seed, place])))
        return drawn[place]

    return look


def trained_probe(
    simulator: Simulator, seeds: range, *, chunks: int = 150, steps: int = 1000
) -> Probe:
    """A probe of real frames of these tracks, in all sceneries."""
    frames, roads, labels = [], [], []
    for seed in tqdm(seeds, desc="probe", file=sys.stderr, leave=False):
        plain = simulator.drive(seed, lambda t: PLAIN, chunks)
        shown = simulator.twin(seed, changing(seed, 3), plain.actions)
        frames.append(shown.frames[:, -1])
        roads.append(road_of(plain.frames[:, -1]))
        labels.append(torch.tensor([
            [ATTRIBUTES[name].index(one[name]) if name in one else -1 for name in READ]
            for one in shown.truth
        ]))  # fmt: skip
    return fit_probe(torch.cat(frames), torch.cat(labels), torch.cat(roads), steps=steps)


def fit_probe(frames: Tensor, labels: Tensor, roads: Tensor | None = None, *, steps: int) -> Probe:
    """A probe of frames (N, H, W, 3).

    labels: (N, len(READ)) places in `ATTRIBUTES`, -1 where nothing is to be learned. roads: bool
    (N, H, W), or None where they are not to be learned.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        probe = Probe(frames.shape[1:])
        optimizer = torch.optim.AdamW(probe.parameters(), 2e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
        for _ in tqdm(range(steps), desc="probe", file=sys.stderr, leave=False):
            rows = torch.randint(len(frames), (48,))
            logits_of, road = probe(frames[rows])
            told = labels[rows]
            losses = [F.cross_entropy(logits, told[:, i], ignore_index=-1)
                      for i, logits in enumerate(logits_of) if (told[:, i] >= 0).any()]  # fmt: skip
            if roads is not None:
                losses.append(F.binary_cross_entropy_with_logits(road, roads[rows].float()))
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            optimizer.step()
            schedule.step()
    return probe.eval()

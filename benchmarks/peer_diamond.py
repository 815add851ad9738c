"""DIAMOND's denoiser, trained by its checkout's own code on a recording of ours, and dreaming.

Network, loss, optimiser, sampling of training clips and sampler are those of the checkout (Alonso
et al. 2024, 2405.12399); nothing of it is copied. Two things are adapted, since its code knows
Atari alone: a chunk's frames are stacked as channels of one picture, so that it sees and foretells
every frame of ours; and a linear layer takes the place of the embedding of discrete actions where
actions are numbers. Its reward model learns the sign of a reward and is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from tqdm import tqdm

from worldsim.core import ActionSpec, WorldError
from worldsim.data import Dataset
from worldsim.data.columns import columns_of
from worldsim.data.dataset import DatasetSpec

from .speed_peers import STUBS, checkout

CONTEXT = 4  # pictures that the next one is drawn from
LEVELS = 4  # of its UNet, two blocks each
NEEDED = ("models/diffusion/__init__.py", "data/__init__.py", "utils.py")  # below src/
ADAPTED = (
    "the frames of a chunk are stacked as channels of one picture",
    "numeric actions, scaled to -1..1, enter by a linear layer in place of an embedding",
    "all weights train in float32 on the recording as it is: nothing is collected meanwhile",
)


@dataclass(frozen=True, kw_only=True)
class DiamondConfig:
    """Its own settings (its config/trainer.yaml and config/agent/default.yaml).

    Attributes:
        channels: width of the UNet, a multiple of 8; 64 is its own.
        lr, weight_decay, eps: AdamW's; warmup: steps to `lr`, which then stays.
        clip: largest gradient norm. batch: clips a step.
        predictions: pictures foretold in a clip, each after the first from its own predictions.
        passes: denoising passes a step of a dream.
        seed: names every random choice.
    """

    channels: int = 64
    lr: float = 1e-4
    weight_decay: float = 1e-2
    eps: float = 1e-8
    warmup: int = 100
    clip: float = 1.0
    batch: int = 32
    predictions: int = 2
    passes: int = 3
    seed: int = 0


@dataclass(frozen=True)
class Source:
    """A checkout's modules."""

    diffusion: Any
    data: Any
    utils: Any


def source(folder: Path) -> Source:
    """The modules of a checkout; WorldError for a folder that is none."""
    missing = [name for name in NEEDED if not (folder / "src" / name).is_file()]
    if missing:
        raise WorldError(
            f"peer: expected a checkout of DIAMOND, got {folder}, which lacks src/{missing[0]}; "
            "git clone https://github.com/eloialonso/diamond"
        )
    stubs = tuple(name for name in STUBS if name not in ("data", "utils"))
    try:
        with checkout(folder, {}, stubs):
            return Source(*(import_module(n) for n in ("models.diffusion", "data", "utils")))
    except (ImportError, AttributeError) as error:
        raise WorldError(
            f"peer: expected a checkout of DIAMOND, got {folder}, which does not import: {error}; "
            "check out its main branch"
        ) from error


def new_denoiser(peer: Source, data: DatasetSpec, channels: int) -> Any:
    """An untrained denoiser for this recording; WorldError for actions that it cannot take."""
    action = data.action
    if action.kind not in ("continuous", "discrete"):
        raise WorldError(
            f"peer: expected continuous or discrete actions for DIAMOND, got {action.kind} in "
            f"{data.name}; give another recording"
        )
    inner = peer.diffusion.InnerModelConfig(
        img_channels=3 * data.chunk, num_steps_conditioning=CONTEXT, cond_channels=256,
        depths=[2] * LEVELS, channels=[channels] * LEVELS, attn_depths=[0] * LEVELS,
        num_actions=max(1, action.n),
    )  # fmt: skip
    denoiser = peer.diffusion.Denoiser(peer.diffusion.DenoiserConfig(inner, 0.5, 0.3))
    if action.kind == "continuous":
        embedding = denoiser.inner_model.act_emb
        embedding[0] = nn.Linear(len(action.low), embedding[0].embedding_dim)
    return denoiser


def weights_of(model: nn.Module) -> int:
    """How many numbers it learns."""
    return sum(p.numel() for p in model.parameters())


def matching_channels(peer: Source, data: DatasetSpec, weights: int) -> int:
    """The width, a multiple of 8, at which the denoiser has about so many weights."""
    sizes: dict[int, int] = {}
    for channels in count(8, 8):
        sizes[channels] = weights_of(new_denoiser(peer, data, channels))
        if sizes[channels] >= weights:
            return min(sizes, key=lambda c: abs(sizes[c] - weights))
    raise AssertionError


def pictures(frames: Tensor, chunk: int) -> Tensor:
    """Chunks as pictures: (..., n * c, H, W, 3) -> (..., n, c * 3, H, W)."""
    return rearrange(frames, "... (n c) h w k -> ... n (c k) h w", c=chunk)


def to_signed(obs: Tensor) -> Tensor:
    """uint8 -> float32 in -1..1, as its network takes them."""
    return obs.float().div(255).mul(2).sub(1)


def as_actions(actions: Tensor, spec: ActionSpec) -> Tensor:
    """Numbers (..., A) scaled to -1..1 by their bounds, or choices (...) from 0."""
    if spec.kind == "discrete":
        return actions - spec.start
    low, high = (torch.tensor(x, device=actions.device) for x in (spec.low, spec.high))
    return 2 * (actions - low) / (high - low) - 1


def recorded(peer: Source, data: Dataset) -> Any:
    """The episodes of a split as its own data set, which keeps an action beside the picture it was
    taken at; pictures stay uint8, a quarter of the memory."""
    found = peer.data.Dataset(Path(), cache_in_ram=True, save_on_disk=False)
    for place in range(len(data)):
        episode, spec = data.episode(place), data.spec
        frames = torch.from_numpy(np.array(episode.frames[0 : len(episode) * spec.chunk]))
        none = torch.zeros(len(episode), dtype=torch.uint8)
        taken = as_actions(columns_of(episode, spec.action).actions, spec.action).roll(-1, 0)
        found.add_episode(
            peer.data.Episode(
                obs=pictures(frames, spec.chunk), act=taken, rew=none.float(), end=none,
                trunc=none, info={},
            )
        )  # fmt: skip
    return found


def batches(peer: Source, found: Any, config: DiamondConfig) -> Callable[[], Any]:
    """Draws batches of clips as its trainer does, all episodes alike."""
    drawn = peer.data.BatchSampler
    sampler = drawn.__new__(drawn)  # its own __init__ calls one that newer torch lacks
    vars(sampler).update(
        dataset=found, rank=0, world_size=1, sample_weights=None, can_sample_beyond_end=False,
        batch_size=config.batch, seq_length=CONTEXT + config.predictions,
    )  # fmt: skip

    def batch() -> Any:
        one = peer.data.collate_segments_to_batch([found[i] for i in sampler.sample()])
        one.obs = to_signed(one.obs) * one.mask_padding[..., None, None, None]  # padding is grey
        return one

    return batch


def train(
    peer: Source, denoiser: Any, data: Dataset, config: DiamondConfig, budget: float,
    clock: Callable[[], float], device: torch.device,
) -> dict[str, float]:  # fmt: skip
    """Train in place until `clock` has gone on by `budget` seconds, reading the data included.

    Returns its steps, seconds, and the loss at the end (mean of a tenth of the steps).
    """
    begun, losses = clock(), []
    np.random.seed(config.seed)  # its sampler draws from numpy's global generator
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        draw = batches(peer, recorded(peer, data), config)
        denoiser.to(device).train()
        denoiser.setup_training(peer.diffusion.SigmaDistributionConfig(-0.4, 1.2, 2e-3, 20))
        optimizer = peer.utils.configure_opt(denoiser, config.lr, config.weight_decay, config.eps)
        rate = peer.utils.get_lr_sched(optimizer, config.warmup)
        with tqdm(total=round(budget), desc="diamond", unit="s") as bar:
            while clock() - begun < budget:
                loss, _ = denoiser(draw().to(device))
                loss.backward()
                nn.utils.clip_grad_norm_(denoiser.parameters(), config.clip)
                optimizer.step()
                optimizer.zero_grad()
                rate.step()
                losses.append(loss.item())
                bar.n = min(bar.total, round(clock() - begun))
                bar.set_postfix(loss=f"{losses[-1]:.4f}")
    last = losses[-max(1, len(losses) // 10) :]
    return {"steps": len(losses), "seconds": clock() - begun, "loss": float(np.mean(last))}


class DiamondDream:
    """Dreams of B rows; a `Dream` of `fidelity_peer`, which names the shapes."""

    context = CONTEXT
    reward: Tensor | None = None

    def __init__(self, peer: Source, denoiser: Any, data: DatasetSpec, passes: int) -> None:
        self.spec = data
        config = peer.diffusion.DiffusionSamplerConfig(passes)
        self.sampler = peer.diffusion.DiffusionSampler(denoiser.eval(), config)

    def begin(self, frames: Tensor, actions: Tensor, known: Tensor) -> None:
        """Look at the newest pictures of a clip."""
        device = self.sampler.denoiser.device
        seen = pictures(frames[:, -CONTEXT * self.spec.chunk :], self.spec.chunk)
        self.obs = to_signed(seen.to(device))
        led = as_actions(actions[:, -CONTEXT:].to(device), self.spec.action)
        self.act = led.roll(-1, 1)  # beside the picture that each was taken at

    def step(self, action: Tensor) -> Tensor:
        """The next chunk under an action."""
        self.act[:, -1] = as_actions(action.to(self.obs.device), self.spec.action)
        drawn, _ = self.sampler.sample(self.obs, self.act)
        self.obs = torch.cat([self.obs[:, 1:], drawn[:, None]], 1)
        self.act = self.act.roll(-1, 1)
        bytes = drawn.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
        return rearrange(bytes, "b (c k) h w -> b c h w k", k=3).cpu()

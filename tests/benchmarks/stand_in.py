"""A checkout with the interface of DIAMOND's in a few lines, for tests of what trains and steps it.

Its network knows one number, which it learns: how much to add to the newest picture.
"""

from pathlib import Path

DIFFUSION = """
from dataclasses import dataclass
import torch
from torch import nn
from data import Batch
from utils import LossAndLogs

@dataclass
class InnerModelConfig:
    img_channels: int
    num_steps_conditioning: int
    cond_channels: int
    depths: list
    channels: list
    attn_depths: list
    num_actions: int

@dataclass
class DenoiserConfig:
    inner_model: InnerModelConfig
    sigma_data: float
    sigma_offset_noise: float

@dataclass
class SigmaDistributionConfig:
    loc: float
    scale: float
    sigma_min: float
    sigma_max: float

@dataclass
class DiffusionSamplerConfig:
    num_steps_denoising: int

class Inner(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        width = cfg.cond_channels // cfg.num_steps_conditioning
        self.act_emb = nn.Sequential(nn.Embedding(cfg.num_actions, width), nn.Flatten())
        self.add = nn.Parameter(torch.zeros(cfg.channels[0]))

class Denoiser(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.inner_model = Inner(cfg.inner_model)
        self.levels, self.seen = None, []

    @property
    def device(self):
        return self.inner_model.add.device

    def setup_training(self, cfg):
        assert self.levels is None
        self.levels = cfg

    def forward(self, batch):
        self.seen.append(batch)
        known = batch.mask_padding[:, 1:]
        told = self.inner_model.act_emb[0](batch.act).mean()
        change = (batch.obs.diff(dim=1) - self.inner_model.add.mean() - 0 * told)[known]
        return change.square().mean(), {}

class DiffusionSampler:
    def __init__(self, denoiser, cfg):
        self.denoiser, self.passes, self.asked = denoiser, cfg.num_steps_denoising, []

    def sample(self, prev_obs, prev_act):
        self.asked.append((prev_obs, prev_act))
        return prev_obs[:, -1] + self.denoiser.inner_model.add.mean(), []
"""

DATA = """
from dataclasses import dataclass
from typing import Any
import numpy as np
import torch
from torch.nn.functional import pad

@dataclass
class Episode:
    obs: Any
    act: Any
    rew: Any
    end: Any
    trunc: Any
    info: dict

@dataclass
class Batch:
    obs: Any
    act: Any
    mask_padding: Any

    def to(self, device):
        return self

class Dataset:
    def __init__(self, directory, cache_in_ram, save_on_disk):
        assert cache_in_ram and not save_on_disk
        self.episodes = []

    def add_episode(self, episode):
        self.episodes.append(episode)

    def __getitem__(self, at):
        place, start, stop = at
        episode, before = self.episodes[place], max(0, -start)
        known = torch.arange(start, stop) >= 0
        obs = torch.cat([torch.zeros_like(episode.obs[:before]), episode.obs[max(0, start):stop]])
        act = torch.cat([torch.zeros_like(episode.act[:before]), episode.act[max(0, start):stop]])
        return Batch(obs, act, known)

class BatchSampler(torch.utils.data.Sampler):
    def __init__(self, *given):
        super().__init__(*given)

    def sample(self):
        assert self.sample_weights is None and not self.can_sample_beyond_end
        places = np.random.randint(len(self.dataset.episodes), size=self.batch_size)
        stops = [np.random.randint(1, len(self.dataset.episodes[p].obs)) for p in places]
        return [(p, s - self.seq_length, s) for p, s in zip(places, stops)]

def collate_segments_to_batch(segments):
    names = ("obs", "act", "mask_padding")
    return Batch(*(torch.stack([getattr(s, n) for s in segments]) for n in names))
"""

UTILS = """
import torch
import wandb
LossAndLogs = tuple

def configure_opt(model, lr, weight_decay, eps):
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, eps=eps)

def get_lr_sched(opt, warmup):
    return torch.optim.lr_scheduler.LambdaLR(opt, lambda step: min(1, step / max(1, warmup)))
"""


def write_checkout(folder: Path) -> Path:
    """Put it into a folder."""
    files = {"models/__init__.py": "", "models/diffusion/__init__.py": DIFFUSION,
             "data/__init__.py": DATA, "utils.py": UTILS}  # fmt: skip
    for name, text in files.items():
        path = folder / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder

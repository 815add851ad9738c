"""What a world's latents tell of something that was measured beside the pixels: speed, a turn.

A small network is fitted on windows of real latents and read on dreamt ones (Alain and Bengio 2016,
1610.01644), so that worlds that know no state vector can be asked for one, too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

Probe = Callable[[Tensor], Tensor]
"""Windows of latents (N, W, h, w, C) -> what was measured at their ends (N, D)."""

WIDTH = 48


def fit_probe(
    latents: Tensor, measured: Tensor, *, hidden: int = 128, steps: int = 800, seed: int = 0
) -> Probe:
    """A probe fitted on windows (N, W, h, w, C), any float type, of known answers (N, D)."""
    mean, std = measured.mean(0), measured.std(0).clamp(min=1e-6)
    answers, count = (measured - mean) / std, latents.shape[1] * latents.shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(count, WIDTH, 3, 1, 1), nn.SiLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, 2, 1), nn.SiLU(), nn.Flatten(),
            nn.LazyLinear(hidden), nn.SiLU(), nn.Linear(hidden, len(mean)),
        )  # fmt: skip
        net(_planes(latents[:1]))
    g = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(latents), (256,), generator=g)
        seen = _planes(latents[rows])
        seen = seen + 0.1 * torch.randn(seen.shape, generator=g)  # dreams are not quite latents
        loss = nn.functional.smooth_l1_loss(net(seen), answers[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval().requires_grad_(False)
    return lambda windows: net(_planes(windows)) * std + mean


def _planes(windows: Tensor) -> Tensor:
    """Windows (N, W, h, w, C) as pictures (N, W C, h, w) float32."""
    return rearrange(windows.float(), "n k h w c -> n (k c) h w")

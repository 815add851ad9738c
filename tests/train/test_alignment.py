"""From the recorder to a training's batch: the action beside a latent is the one that led to it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import worldsim
from worldsim.data.latents import latent_cache
from worldsim.diffusion.draws import Draws
from worldsim.models.vae import SpacetimeVAE, VAEConfig, to_float
from worldsim.train.dynamics import DynamicsTrainingConfig, draw_batch
from worldsim.train.loop import FitConfig
from worldsim.train.vae import VAETrainingConfig, clips_of, measure_latents


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared, between every latent of (M, ...) and every one of (N, ...): (M, N)."""
    return ((a[:, None] - b[None]) ** 2).flatten(2).mean(2)


@pytest.mark.parametrize(("chunk", "size"), [(1, (8, 8)), (2, (16, 8)), (4, (16, 24))])
def test_actions_lie_beside_the_latents_they_led_to(
    tmp_path: Path, chunk: int, size: tuple[int, int]
) -> None:
    data = worldsim.collect(
        "tests.collect.fakes:make", env_kwargs={"action": "whole", "length": 12 * chunk},
        out=tmp_path / "data", chunk=chunk, size=size, episodes=4, val=1, test=1,
    ).split("train")  # fmt: skip
    torch.manual_seed(0)
    vae = SpacetimeVAE(VAEConfig(chunk=chunk, channels=4, widths=(16, 16), blocks=(1, 1)))
    measure_latents(vae, clips_of(data, VAETrainingConfig(fit=FitConfig(steps=1, batch=8))))
    latents, led = [], []
    for episode in (data.episode(i) for i in range(len(data))):
        frames = np.array(episode.frames[0 : len(episode.frames)])
        led.append(frames[chunk - 1 :: chunk, -1, 0, 0].astype(int) - 100)  # what the frames show
        with torch.no_grad():
            latents.append(vae.encode(to_float(torch.from_numpy(frames))[None])[0])
    assert len({*np.concatenate(led).tolist()}) > 1
    fit = FitConfig(steps=1, batch=8)
    config = DynamicsTrainingConfig(fit=fit, targets=4, drop_action=0.0)
    cache = latent_cache(vae, data, tmp_path / "latents.safetensors")
    batch = draw_batch(cache, config, Draws(0, 0, range(config.fit.batch)))
    assert batch.latents.shape == (8, 5, size[0] // 8, size[1] // 8, 4)
    nearest = distance(batch.latents.flatten(0, 1), torch.cat(latents)).argmin(1)
    shown = torch.from_numpy(np.concatenate(led))[nearest]
    given = batch.conditions.action.flatten()  # from 0 to 100

    def apart(there: Tensor) -> float:
        return (given - there).abs().max().item()

    # frames show whole numbers, and latents of alike chunks are alike in half precision
    assert batch.conditions.action_known.all() and apart(shown) < 4
    assert apart(shown.roll(1)) > 20 and apart(shown.roll(-1)) > 20

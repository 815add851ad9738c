"""A model that moves pictures: for films whose camera goes along, which components cannot draw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.films import FORCE, Films
from worldsim.config import from_json, to_json
from worldsim.core import ActionSpec
from worldsim.data.dataset import DatasetSpec, Episode
from worldsim.latent_actions.measures import steering
from worldsim.latent_actions.training import MOVING, train_latent_actions
from worldsim.models.latent_actions import LatentActionConfig, LatentActionModel
from worldsim.store.latent_actions import load_latent_actions

SIDE, WORLD, CHUNKS = 16, 64, 24
BRIEF = replace(MOVING, fit=replace(MOVING.fit, ema=0.98, warmup=10))
SMALL: dict[str, Any] = {"size": (SIDE, SIDE), "dim": 2, "steps": 120}


def pans() -> Films:
    """Films of a camera that the action shifts over a ground of soft noise, another one each."""
    spec = DatasetSpec(
        name="pans", frame_shape=(SIDE, SIDE, 3), fps=20.0, chunk=2, action=FORCE,
        has_rewards=False,
    )  # fmt: skip
    times = {"train": 40, "val": 1, "test": 4}
    seeds = iter(range(sum(times.values())))
    return Films(spec, {k: [pan(next(seeds)) for _ in range(n)] for k, n in times.items()})


def pan(seed: int) -> Episode:
    """One film; the camera moves up to two pixels a frame along its ground, which is a ring."""
    rng = np.random.default_rng(seed)
    forces = rng.uniform(-1, 1, (CHUNKS, 1)).astype(np.float32)
    noise = np.fft.rfft2(rng.normal(size=(3, SIDE, WORLD)))
    far = np.abs(np.fft.fftfreq(SIDE))[:, None], np.abs(np.fft.rfftfreq(WORLD))
    noise *= np.exp(-((np.hypot(*far) / 0.1) ** 2))
    waves = np.fft.rfftfreq(WORLD)
    at = np.cumsum(np.repeat(2 * forces[:, 0], 2))
    shown = [np.fft.irfft2(noise * np.exp(2j * np.pi * waves * x), s=(SIDE, WORLD)) for x in at]
    ground = np.stack(shown)[..., :SIDE].transpose(0, 2, 3, 1)
    frames = np.clip(128 + 50 * ground / ground.std(), 0, 255).astype(np.uint8)
    return Episode(
        name=f"pan-{seed}", frames=frames, chunk=2, fps=20.0, truncated=True, actions=forces
    )


def test_where_the_camera_goes_along_pictures_are_moved(tmp_path: Path) -> None:
    """Better than components are changed, and than a still picture; and as well from its file."""
    data = pans()
    test = data.split("test")
    plain = steering(train_latent_actions(data, **SMALL), test, clips=64)
    file = tmp_path / "model.safetensors"
    model = train_latent_actions(data, moves=True, training=BRIEF, out=file, **SMALL)
    found = steering(model, test, clips=64)
    assert found["delta"] > plain["delta"] + 2
    assert found["inferred"] > found["still"] + 2
    again = load_latent_actions(file)
    assert again.config == model.config and again.config.moves
    assert steering(again, test, clips=64) == found


def test_labels_are_read_from_what_moves() -> None:
    data = pans()
    model = train_latent_actions(data, 0.2, moves=True, training=BRIEF, **SMALL)
    episode = data.split("test").episode(0)
    assert episode.actions is not None
    latent, _ = model.infer(torch.from_numpy(episode.frames)[None])
    error = (model.actions(latent[0, 1:]) - torch.from_numpy(episode.actions[1:])) ** 2
    assert error.mean() < 0.5 * episode.actions.var()


@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (3, 2)], ids=["frames", "chunks", "of three"])
def test_it_begins_at_rest(shape: tuple[int, int]) -> None:
    """Before training any latent leaves the newest frame where it is."""
    chunk, window = shape
    model = LatentActionModel(
        LatentActionConfig(chunk=chunk, window=window, size=(8, 16), moves=True)
    )
    clip = torch.randint(0, 256, (2, 5 * chunk, 8, 16, 3), dtype=torch.uint8)
    parts = model.parts(model.prepared(clip))
    assert model.code(parts).mean.shape == (2, 6 - window, 6)
    drawn = model.pictures(model.ahead(parts[:, : window - 1], torch.randn(2, 3, 6)))
    last = model.prepared(clip)[:, window - 2, -3:]
    torch.testing.assert_close(drawn, last[:, None].repeat(1, 3, chunk, 1, 1), atol=1e-5, rtol=0)


def test_another_recording_goes_on_from_it() -> None:
    data = pans()
    seen = train_latent_actions(data, moves=True, training=BRIEF, **SMALL)
    more = train_latent_actions(
        data, begin=seen, moves=True, training=BRIEF, **{**SMALL, "steps": 1}
    )
    test = data.split("test")
    drawn = [steering(model, test, clips=64)["inferred"] for model in (seen, more)]
    assert abs(drawn[0] - drawn[1]) < 1


def test_files_from_before_it_load() -> None:
    """They say nothing of it, and neither do those of models that move nothing."""
    plain = LatentActionConfig(chunk=2, action=ActionSpec(kind="none"))
    assert "moves" not in to_json(plain) and to_json(replace(plain, moves=True))["moves"]
    assert from_json(LatentActionConfig, to_json(plain)) == plain and not plain.moves
    assert LatentActionModel(plain).config.moves is False

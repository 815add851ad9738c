"""Worlds of every schema that was ever released load for good, and dream as they did.

`tests/fixtures/world-schema-1` was saved by the worldsim that introduced schema 1 and is never
written again: a new schema brings a folder of its own. Its dream is kept beside it. Other machines
and versions of torch round otherwise, so latents are compared within 1e-4 (unit variance; a float32
step of this world moves by 1e-6) and pixels within 1 of 255.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from worldsim.core import WorldState, row_keys
from worldsim.store.folder import load

HERE = Path(__file__).parent / "fixtures"
FIXTURES = sorted(path for path in HERE.glob("world-schema-*") if path.is_dir())
STEPS = 10


def dream(folder: Path) -> dict[str, np.ndarray]:
    """Ten steps of two rows: latents, frames, reward and continuation."""
    world = load(folder)
    state: WorldState = world.reset(row_keys([3, 4]))
    seen = []
    for step in range(STEPS):
        action = torch.linspace(-1, 1, STEPS)[step].repeat(2, 1).repeat(1, 2)
        state, said = world.step(state, world.spec.action.from_normalized(action))
        seen.append((state.latent, world.decode(state)[:, -1], said.reward, said.continue_prob))
    names = ("latents", "frames", "reward", "continue_prob")
    return {n: torch.stack(x).numpy() for n, x in zip(names, zip(*seen, strict=True), strict=True)}


def test_there_is_a_fixture_of_the_present_schema() -> None:
    from worldsim.store.manifest import SCHEMA

    assert FIXTURES[-1].name == f"world-schema-{SCHEMA}"
    assert json.loads((FIXTURES[-1] / "manifest.json").read_text())["schema"] == SCHEMA


@pytest.mark.parametrize("folder", FIXTURES, ids=lambda p: p.name)
def test_an_old_world_loads_and_dreams_as_it_did(folder: Path) -> None:
    now = dream(folder)
    with np.load(folder.with_name(folder.name + "-dream.npz")) as kept:
        for name in ("latents", "reward", "continue_prob"):
            np.testing.assert_allclose(now[name], kept[name], atol=1e-4, rtol=1e-4)
        apart = np.abs(now["frames"].astype(int) - kept["frames"].astype(int))
        assert apart.max() <= 1 and (apart > 0).mean() < 0.01
        assert kept["frames"].std() > 10  # a dream, not a blank

"""Latent actions on their way from a recording to what a network is told of clips."""

from pathlib import Path

import torch

from tests.latent_actions.pushes import pushes
from tests.train.films import NONE
from tests.train.test_pipeline import SMALL, short
from worldsim.core import row_keys
from worldsim.latent_actions.labelling import label
from worldsim.models.latent_actions import LatentActionConfig, LatentActionModel
from worldsim.pipeline import train
from worldsim.store.folder import load
from worldsim.train.dynamics import one_of_both


def test_a_clip_is_told_of_one_of_both() -> None:
    rows, chunks = 4000, 8
    g = torch.Generator().manual_seed(0)
    known, latent = torch.ones(rows, chunks).bool(), torch.ones(rows, chunks).bool()
    latent[:, 0] = False
    known[rows // 2 :] = False  # a half without labels
    told, inferred = one_of_both(known, latent, torch.rand(rows, 3, generator=g))
    labelled, rest = slice(0, rows // 2), slice(rows // 2, None)
    assert not (told & inferred).any() and not told[rest].any() and not inferred[:, 0].any()
    by_action = told[labelled, -1].float().mean()
    assert 0.45 < by_action < 0.55 and (told | inferred)[:, -1].all()
    blank = ~(told | inferred)[rest, 1]
    assert 0.15 < blank.float().mean() < 0.4  # of dreams that start from frames alone


def test_video_alone_gives_a_world_that_codes_step(tmp_path: Path) -> None:
    world = train(
        pushes(NONE, chunks=8), out=tmp_path / "world", run=tmp_path / "run", steps=12,
        changed=SMALL, recipe=short(), card=False, conditions=("latent_action",),
    )  # fmt: skip
    loaded = load(tmp_path / "world")
    assert loaded.spec.action.choices == (8,) and loaded.config == world.config
    clip = torch.from_numpy(pushes().episode(0).frames[:6])[None]
    state = loaded.reset(row_keys([0]))
    state, _ = loaded.step(state, latent_action=loaded.infer_actions(clip)[:, -1])
    state, _ = loaded.step(state, torch.tensor([5]))
    assert loaded.decode(state).shape == (1, 2, 16, 16, 3)


def test_one_world_knows_both(tmp_path: Path) -> None:
    data = pushes(chunks=8)
    torch.manual_seed(0)
    model = LatentActionModel(LatentActionConfig(chunk=2, size=(16, 16), dim=3))
    world = train(
        data, out=tmp_path / "world", run=tmp_path / "run", steps=12, changed=SMALL,
        recipe=short(), card=False, conditions=("latent_action",), latent_actions=model,
    )  # fmt: skip
    assert world.spec.action == data.spec.action
    state = world.reset(row_keys([0]))
    world.step(state, torch.zeros(1, 1))
    told = label(data, model).latent[data.names[0]][5:6]
    world.step(state, latent_action=told)

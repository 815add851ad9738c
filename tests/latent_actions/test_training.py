"""A model learns from video what was done, and says so where it cannot."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import worldsim
from tests.latent_actions.pushes import pushes
from tests.train.films import CHOICES, FORCE, NONE, Films
from worldsim.core import ActionSpec, WorldError
from worldsim.latent_actions.labels import Labels
from worldsim.latent_actions.mapping import fit_map, map_quality, pairs
from worldsim.latent_actions.measures import probe, steering, transitions
from worldsim.latent_actions.training import LatentActionTraining, train_latent_actions, uneven
from worldsim.models.latent_actions import LatentActionConfig, LatentActionModel
from worldsim.store.latent_actions import load_latent_actions
from worldsim.train.loop import FitConfig

BRIEF = LatentActionTraining(
    fit=FitConfig(steps=2, batch=32, lr=3e-3, ema=0.98, warmup=10, log_every=1), steps=3
)
SMALL = {"size": (16, 16), "dim": 2, "training": BRIEF}


def test_few_labels_tell_all_actions(tmp_path: Path) -> None:
    """From a tenth of the actions the others are read, far better than from where things are."""
    data = pushes()
    model = train_latent_actions(data, 0.1, steps=150, out=tmp_path / "model", **SMALL)
    train, test = (transitions(model, data.split(name)) for name in ("train", "test"))
    found = probe(train, test)
    assert found["latent"][0] > 0.6 and found["minus"][0] > 0.4
    told = model.actions(test.latent)
    assert ((told - test.actions) ** 2).mean() < 0.5 * test.actions.var()
    check_reading(data.split("train"), model)
    again = load_latent_actions(tmp_path / "model")
    frames = torch.from_numpy(data.episode(0).frames)[None]
    assert torch.equal(again.infer(frames).latent, model.infer(frames).latent)


def check_reading(data: Films, model: LatentActionModel) -> None:
    """Episodes without actions get those that are read; recorded ones stay as they are."""
    silent = [replace(data.episode(i), actions=None) for i in range(4)]
    half = [*silent, replace(data.episode(4), known=np.arange(24) < 5)]
    read = worldsim.read_actions(Films(data.spec, {"train": half}), model).split("train")
    errors, spread = [], []
    for place in range(5):
        got, true = read.episode(place), data.episode(place).actions
        assert got.known is not None and got.actions is not None and true is not None
        assert not got.known[0] or place == 4
        errors.append(((got.actions - true)[got.known] ** 2).mean())
        spread.append(true.var())
        if place == 4:
            assert np.array_equal(got.actions[:5], true[:5]) and got.known.all()
    assert np.mean(errors) < 0.5 * np.mean(spread)
    with pytest.raises(WorldError, match="expected one that reads .*discrete"):
        worldsim.read_actions(pushes(CHOICES), model)
    unread = LatentActionModel(replace(model.config, action=NONE))
    with pytest.raises(WorldError, match="expected one that was trained with some labels"):
        worldsim.read_actions(data, unread)


def test_from_video_alone_a_latent_says_what_was_done() -> None:
    """It is a function of the push, more than of where things are."""
    data = pushes()
    model = train_latent_actions(data, steps=150, **SMALL)
    train, test = (pairs(model, data.split(name)) for name in ("train", "test"))
    assert map_quality(fit_map(FORCE, train), test)["r2"] > 0.25


@pytest.mark.parametrize(
    ("change", "labels", "message"),
    [
        ({"still": True}, None, "expected something that moves in pushes"),
        ({"chunks": 1}, None, "expected episodes of 3 chunks of 2 frames or more"),
        ({}, 1.5, "expected a share above 0 to 1, got 1.5"),
        ({"action": NONE}, 0.1, "expected recorded actions in pushes, got none"),
        ({}, {"push-0": ([99], [[0.0]])}, r"expected chunks 0 to 23 of 'push-0', got 99"),
        ({}, {"other": ([1], [[0.0]])}, "expected episodes such as .*'push-0'.*, got 'other'"),
        ({}, {"push-0": ([1], [[0.0, 0.0]])}, "expected actions of pushes"),
        ({}, {"push-0": ([0], [[0.0]])}, "expected some of chunks from 1 on"),
    ],
)
def test_what_nobody_can_learn_from_is_refused(change, labels, message) -> None:
    if isinstance(labels, dict):
        width = len(next(iter(labels.values()))[1][0])
        action = ActionSpec(kind="continuous", low=(-1.0,) * width, high=(1.0,) * width)
        rows = {k: (np.array(c), torch.tensor(a)) for k, (c, a) in labels.items()}
        labels = Labels(action, rows)
    with pytest.raises(WorldError, match=message):
        train_latent_actions(pushes(**change), labels, **SMALL)


def test_a_table_gives_labels(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("episode,chunk,action_force\npush-0,3,0.5\npush-0,4,-0.25\npush-1,2,1.0\n")
    found = Labels.read(table)
    assert len(found) == 3 and found.action.shape == (1,)
    chunks, actions = found.rows["push-0"]
    assert chunks.tolist() == [3, 4] and actions[:, 0].tolist() == [0.5, -0.25]
    table.write_text("episode,chunk,reward\npush-0,3,0.5\n")
    with pytest.raises(WorldError, match="expected columns episode, chunk and action"):
        Labels.read(table)


def test_codes_are_all_there_are() -> None:
    model = train_latent_actions(pushes(NONE), codes=True, **SMALL)
    frames = torch.from_numpy(pushes().episode(0).frames)[None]
    latent, confidence = model.infer(frames)
    book = model.codebook()
    assert book.shape == (8, 3) and len(book.unique(dim=0)) == 8
    assert (torch.cdist(latent[0, 1:], book).amin(-1) < 1e-6).all()
    assert torch.equal(book[model.numbers(latent[0, 1:])], latent[0, 1:].round())
    assert not confidence[0, 0] and 0 <= confidence.min() < confidence.max() <= 1
    assert steering(model, pushes().split("test"), clips=32)["clips"] == 32
    one, all_ = book[:1].expand(64, 3), book.repeat(8, 1)
    assert uneven(model, all_) == 0 and 1.7 < uneven(model, one) < np.log(0.8 * 8) + 1e-5


def test_where_nothing_moves_it_cannot_tell() -> None:
    torch.manual_seed(0)
    model = LatentActionModel(LatentActionConfig(chunk=2, size=(16, 16)))
    still = torch.full((1, 8, 16, 16, 3), 90, dtype=torch.uint8)
    assert not model.infer(still).confidence.any()
    with pytest.raises(WorldError, match="expected 2 chunks of 2 frames or more, got 1"):
        model.infer(still[:, :2])
    with pytest.raises(WorldError, match=r"expected uint8 \(B, n \* 2, H, W, 3\)"):
        model.infer(still.float())
    with pytest.raises(WorldError, match="expected a model that was trained with some, got none"):
        model.actions(torch.zeros(1, 6))


def test_the_last_action_needs_no_future() -> None:
    """A label depends on its window alone, so that a clip can be labelled while it is filmed."""
    torch.manual_seed(0)
    model = LatentActionModel(LatentActionConfig(chunk=2, size=(16, 16), action=FORCE))
    frames = torch.from_numpy(pushes().episode(0).frames)[None]
    model.fit_basis(model.prepared(frames))
    whole, part = model.infer(frames).latent, model.infer(frames[:, :10]).latent
    assert torch.allclose(whole[:, :5], part, atol=1e-5)

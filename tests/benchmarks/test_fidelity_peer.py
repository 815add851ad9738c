"""A peer is trained and asked as ours is; the peer of these tests is a stand-in of a few lines."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import fidelity, fidelity_peer, peer_diamond, pendulum_ranking
from benchmarks.fidelity_peer import Match, WorldDream
from benchmarks.page import put
from benchmarks.peer_diamond import DiamondConfig, DiamondDream
from tests.benchmarks.stand_in import write_checkout
from tests.measured_data import SPEC, stripes, stripes_data
from tests.worlds import tiny_world
from worldsim.core import ActionSpec, WorldError
from worldsim.recipes.pendulum import pendulum_state

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> peer_diamond.Source:
    folder = write_checkout(tmp_path_factory.mktemp("peer"))
    before = dict(sys.modules)
    found = peer_diamond.source(folder)
    assert sys.modules == before
    return found


def test_what_is_no_checkout_is_said_before_anything_is_trained(tmp_path: Path):
    data = stripes_data(tmp_path / "data")
    with pytest.raises(WorldError, match=r"peer: expected a checkout of DIAMOND, got .* git clone"):
        fidelity.main(match=Match(peer=f"diamond={tmp_path}"), data=tmp_path / "data")
    wrong = write_checkout(tmp_path / "wrong") / "src/utils.py"
    wrong.write_text("from elsewhere import nothing")
    with pytest.raises(WorldError, match="does not import: No module named 'elsewhere'"):
        peer_diamond.source(tmp_path / "wrong")
    for given in ("iris=a", "diamond", "diamond="):
        with pytest.raises(WorldError, match="peer: expected diamond=FOLDER"):
            Match(peer=given).folder()
    for name, value in {"cpu_minutes": 0.0, "peer_lr": -1.0, "channels": 12, "starts": 0}.items():
        with pytest.raises(WorldError, match=f"{name}: expected .*, got {value}"):
            replace(Match(peer="diamond=a"), **{name: value}).folder()
    with pytest.raises(WorldError, match=r"data: expected test episodes of 36 chunks .* \[20, 23"):
        fidelity_peer.test_clips(data, Match())
    with pytest.raises(WorldError, match="no --rows"):
        fidelity.main(match=Match(peer="diamond=a"), rows=True)


def test_numbers_enter_by_a_linear_layer_and_other_kinds_are_refused(peer: peer_diamond.Source):
    numbers = peer_diamond.new_denoiser(peer, SPEC, 16).inner_model.act_emb
    choices = replace(SPEC, action=ActionSpec(kind="discrete", n=5, start=2))
    embedded = peer_diamond.new_denoiser(peer, choices, 16).inner_model.act_emb
    assert isinstance(numbers[0], nn.Linear) and embedded[0].num_embeddings == 5
    assert numbers(torch.zeros(2, 4, 2)).shape == embedded(torch.zeros(2, 4).long()).shape
    several = replace(SPEC, action=ActionSpec(kind="multi_binary", nvec=(2, 2)))
    with pytest.raises(WorldError, match="continuous or discrete actions .* got multi_binary"):
        peer_diamond.new_denoiser(peer, several, 16)
    scaled = peer_diamond.as_actions(torch.tensor([[-1.0, 1.0], [0.0, 0.25]]), SPEC.action)
    assert scaled.tolist() == [[-1.0, 1.0], [0.0, -0.5]]
    assert peer_diamond.as_actions(torch.tensor([2, 6]), choices.action).tolist() == [0, 4]
    wanted = peer_diamond.weights_of(peer_diamond.new_denoiser(peer, SPEC, 40))
    assert peer_diamond.matching_channels(peer, SPEC, wanted) == 40
    assert peer_diamond.matching_channels(peer, SPEC, wanted + 5) == 48


def test_episodes_keep_each_action_beside_the_picture_it_was_taken_at(
    peer: peer_diamond.Source, tmp_path: Path
):
    data = stripes_data(tmp_path, train=[stripes(3, 9)])
    (episode,) = peer_diamond.recorded(peer, data.split("train")).episodes
    assert episode.obs.shape == (9, 6, 16, 24) and episode.obs.dtype == torch.uint8
    frames = torch.from_numpy(stripes(3, 9).frames)
    assert torch.equal(episode.obs[4, 3:], frames[9].movedim(-1, 0))
    assert episode.act[4, 0] == pytest.approx(0.05)  # what led into the next one


def ticking(seconds: float) -> Callable[[], float]:
    ticks = count()
    return lambda: seconds * next(ticks)


def test_training_ends_with_the_budget_and_repeats(peer: peer_diamond.Source, tmp_path: Path):
    data = stripes_data(tmp_path, train=[stripes(3, 9), stripes(4, 12)]).split("train")
    config, ended = DiamondConfig(channels=8, batch=3, lr=0.05, warmup=2), []
    for _ in range(2):
        denoiser = peer_diamond.new_denoiser(peer, SPEC, 8)
        spent = peer_diamond.train(peer, denoiser, data, config, 21.0, ticking(1), CPU)
        assert 9 <= spent["steps"] <= 11 and spent["loss"] > 0
        ended.append(denoiser.inner_model.add.detach())
    assert torch.equal(*ended) and ended[0].abs().sum() > 0
    batches = denoiser.seen
    assert batches[0].obs.shape == (3, peer_diamond.CONTEXT + 2, 6, 16, 24)
    padded = torch.cat([b.obs[~b.mask_padding] for b in batches])
    assert len(padded) and not padded.any()  # grey
    known = torch.cat([b.obs[b.mask_padding] for b in batches])
    assert -1 <= known.min() < 0 < known.max() <= 1


def test_its_dreams_see_what_ours_see(peer: peer_diamond.Source):
    dream = DiamondDream(peer, peer_diamond.new_denoiser(peer, SPEC, 8), SPEC, 3)
    g = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 12, 16, 24, 3), generator=g).to(torch.uint8)
    actions = torch.rand(2, 6, 2, generator=g)
    dream.begin(frames, actions, torch.ones(2, 6, dtype=torch.bool))
    first, second = torch.rand(2, 2, 2, generator=g).unbind()
    assert torch.equal(dream.step(first), frames[:, -2:])  # bytes come through unharmed
    dream.step(second)
    (obs, act), (_, later) = dream.sampler.asked
    assert dream.sampler.passes == 3 and obs.shape == (2, 4, 6, 16, 24)
    led = [actions[:, 3], actions[:, 4], actions[:, 5], first]
    for found, wanted in ((act, led), (later, [*led[1:], second])):
        assert torch.allclose(found, peer_diamond.as_actions(torch.stack(wanted, 1), SPEC.action))


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Trainings that take 5 s and half a second a step, by their steps."""
    asked: list[int] = []
    now = 0.0

    def train(data: Any, *, out: Path, run: Path, steps: int, **how: Any) -> Any:
        nonlocal now
        asked.append(steps)
        now += 5 + 0.5 * steps
        return tiny_world()

    monkeypatch.setattr(fidelity_peer, "train", train)
    monkeypatch.setattr(fidelity_peer, "clock_of", lambda _: lambda: now)
    monkeypatch.setattr(fidelity_peer, "load", lambda *_, **__: tiny_world())
    yield asked


def test_ours_trains_as_long_as_was_asked_and_once(fitted: list[int], tmp_path: Path):
    data = stripes_data(tmp_path / "data")
    _, spent = fidelity_peer.ours(data, Match(cpu_minutes=2), tmp_path, CPU)
    assert fitted == [*fidelity_peer.TRIALS, 230] and spent["seconds"] == 120
    assert fidelity_peer.ours(data, Match(cpu_minutes=2), tmp_path, CPU)[1] == spent
    assert len(fitted) == 3
    with pytest.raises(WorldError, match="run: expected a training with .*'minutes': 3"):
        fidelity_peer.ours(data, Match(cpu_minutes=3), tmp_path, CPU)
    with pytest.raises(WorldError, match="cpu_minutes: expected time for 48 steps or more of 0.50"):
        fidelity_peer.ours(data, Match(cpu_minutes=0.3), tmp_path / "other", CPU)


def test_rows_have_errors_sharpness_and_speed(
    peer: peer_diamond.Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fidelity_peer, "HORIZONS", (1, 3))
    monkeypatch.setattr(fidelity_peer, "TIMED", 2)
    data = stripes_data(tmp_path)
    world = tiny_world(size=(16, 24), action=SPEC.action)
    denoiser = peer_diamond.new_denoiser(peer, SPEC, 8)
    dreams = {"worldsim": WorldDream(world), "DIAMOND": DiamondDream(peer, denoiser, SPEC, 3)}
    clips = fidelity_peer.test_clips(data, Match())
    found = fidelity_peer.measured(dreams, clips, SPEC, Match(), process_time, tmp_path)
    rows = found["rows"]
    still, copied = rows["DIAMOND"], rows[fidelity_peer.COPY]
    # a dream in which nothing moves repeats the last chunk
    assert set(still["psnr"]) == {"1", "3"} and abs(
        still["psnr"]["1"]["value"] - copied["psnr"]["1"]["value"]
    ) < 2  # fmt: skip
    assert found["clips"] == 12 and "Pendulum" in found["ranking"]
    assert rows["worldsim"]["frames a second, batch 8"] > 0 and (tmp_path / "strip.png").exists()
    assert fidelity_peer.table(found).count("\n") == 4
    page = tmp_path / "page.md"
    page.write_text("<!-- report -->kept<!-- /report --> <!-- peer -->\n<!-- /peer -->")
    put(page, fidelity_peer.table(found), "peer")
    assert "kept" in page.read_text() and "| DIAMOND |" in page.read_text()
    assert fidelity_peer.ranks(dreams, SPEC, 0) == "left out: not asked for"


def test_pictures_of_the_pendulum_tell_its_motion_and_reward():
    recipe = pendulum_state().seen(max_frames=20)
    episode = recipe.record(5001, recipe.policies[0])
    frames = torch.from_numpy(np.array(episode.frames[0:20])).unflatten(0, (10, 2))
    angle, velocity = pendulum_ranking.motion_of(frames)
    cosine, sine, speed = torch.from_numpy(np.array(episode.state)).T
    assert (pendulum_ranking.wrapped(angle - torch.atan2(sine, cosine)).abs() < 0.01).all()
    assert (velocity - speed).abs().max() < 0.3
    assert episode.actions is not None and episode.rewards is not None
    torque = torch.from_numpy(episode.actions[1:, 0])
    shown = pendulum_ranking.reward_of(frames[1:], frames[:-1, -1], torque)
    given = torch.from_numpy(np.array(episode.rewards[1:], np.float32))
    assert torch.corrcoef(torch.stack([shown, given]))[0, 1] > 0.9


def test_a_perfect_dream_ranks_perfectly_and_one_upside_down_not():
    names = len(pendulum_ranking.POLICIES)
    real = torch.arange(names * 3.0).reshape(names, 3).double()
    right, wrong = (pendulum_ranking.ranking(x, real) for x in (real + 5, -real))
    assert right["pearson"]["value"] == pytest.approx(1) and right["bias"] == pytest.approx(5)
    assert wrong["pearson"]["value"] == pytest.approx(-1)
    up, down = pendulum_ranking.swing(1, 1), pendulum_ranking.swing(-1, 1)
    angle, velocity = torch.tensor([3.0, 0.1]), torch.tensor([1.0, 0.0])
    assert up(angle, velocity, 0)[0] == 2 == -down(angle, velocity, 0)[0]
    assert up(angle, velocity, 0)[1] == pytest.approx(-0.9)

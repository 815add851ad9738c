"""Many sizes and lengths in one training: buckets, their shares, their batches, their clips."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.ranks import together
from benchmarks.scale_out_training import (
    SMALL,
    TARGETS,
    WINDOW,
    Job,
    dynamics,
    losses,
    recording,
    sized_recordings,
    train,
)
from tests.train.films import films
from worldsim.core import WorldError
from worldsim.data.sized import at_size
from worldsim.diffusion.draws import Draws
from worldsim.models.vae import VAEConfig
from worldsim.train.buckets import Drawn, batch_for, buckets_of, divisible, latent_buckets
from worldsim.train.context import blank_alone, drift_augment
from worldsim.train.distill import DistillationConfig
from worldsim.train.dynamics import DynamicsTrainingConfig, draw_batch
from worldsim.train.loop import FitConfig
from worldsim.train.vae import VAETrainingConfig, clips_of, measure_latents, new_vae, train_vae

FIT = FitConfig(steps=4, batch=8, log_every=1, bf16=False)
TRAINING = DynamicsTrainingConfig(fit=FIT, targets=TARGETS, compile=False)


def test_an_episode_serves_its_longest_clip_at_every_size():
    found = buckets_of([56, 84], [1, 3, 5, 20, 40], 12, (1, 4, 12, 16), 8)
    assert [(b.size, b.chunks, b.below, b.held) for b in found] == [
        (0, 1, 4, 4), (0, 4, 12, 5), (0, 12, None, 60),
        (1, 1, 4, 4), (1, 4, 12, 5), (1, 12, None, 60),
    ]  # fmt: skip
    assert [b.batch for b in found] == [96, 24, 8, 64, 16, 6]
    with pytest.raises(WorldError, match="episodes of 12 chunks or more, got 9 at most"):
        buckets_of([56], [9, 3], 12, (), 8)


def test_stills_are_single_chunks_of_all_episodes_in_their_share_of_the_steps():
    plain = buckets_of([56, 84], [20, 40], 12, (), 8)
    found = buckets_of([56, 84], [20, 40], 12, (), 8, 0.25)
    assert found[:2] == plain and all(b.still and b.chunks == 1 for b in found[2:])
    assert [b.batch for b in found[2:]] == [96, 64]
    drawn = Drawn(found, found, 0)
    share = sum(drawn.at(step).still for step in range(2000)) / 2000
    assert share == pytest.approx(0.25, abs=0.03)


def test_steps_cost_about_the_same_and_batches_divide():
    for batch in (8, 14, 16, 64):
        for cost in (0.08, 0.5, 0.8, 1.0, 1.3, 2.0, 3.9):
            found = batch_for(batch, cost)
            assert batch_for(batch, 1.0) == batch
            assert found * cost == pytest.approx(batch, rel=0.5 if cost > 2 else 0.2)
            assert found % (batch // 4 if batch % 4 == 0 else 2) == 0
    assert batch_for(2, 9.0) == batch_for(1, 3.0) == 1 and batch_for(16, 7.0) == 2
    for count in (2, 3, 8):
        enough = divisible(14, 1.7, count)
        assert enough % count == batch_for(enough, 1.7) % count == 0 and enough >= 14


def test_a_bucket_is_drawn_by_seed_and_step_in_proportion():
    buckets = buckets_of([4, 8], [1, 1, 2, 8], 6, (1,), 4)
    drawn = Drawn(buckets, range(4), seed=3)
    found = [drawn.at(step) for step in range(400)]
    assert found[350:] == [Drawn(buckets, range(4), seed=3).at(step) for step in range(350, 400)]
    assert found[:50] != [Drawn(buckets, range(4), seed=4).at(step) for step in range(50)]
    shares = [Counter(found)[i] / 400 for i in range(4)]
    assert shares == pytest.approx([4 / 24, 8 / 24, 4 / 24, 8 / 24], abs=0.06)


def test_one_size_and_length_is_what_it_was():
    data = recording()
    drawn = latent_buckets(data, TRAINING)
    assert len(drawn.things) == 1
    assert all(x is y for x, y in zip(drawn.at(7), (data, TRAINING), strict=True))


def drawn_all(training: Any) -> list[tuple[Any, Any]]:
    return [*latent_buckets(sized_recordings((1, 3, 5, 40)), training).things]


def test_clips_are_of_their_bucket():
    how = DistillationConfig(fit=FIT, targets=TARGETS, dreamt=0.4, damage=0.3, resample=0.3,
                             masked=0.3, lengths=(1, 4))  # fmt: skip
    found = drawn_all(how)
    assert [(x.latents.shape[1:3], y.targets) for x, y in found] == [
        ((2, 2), 0), ((2, 2), 3), ((2, 2), 6), ((2, 4), 0), ((2, 4), 3), ((2, 4), 6),
    ]  # fmt: skip
    assert [y.dreamt for _, y in found] == [0, 0, 0.4] * 2
    assert [y.damage for _, y in found] == [0, 0.3, 0.3] * 2
    lengths = (1, 3, 5, 40)
    for data, one in found:
        draws = Draws(0, 1, range(one.fit.batch))
        batch = draw_batch(data, one, draws)
        shape = (one.fit.batch, max(2, one.targets + 1), *data.latents.shape[1:])
        assert tuple(batch.latents.shape) == shape
        rows = (data.latents.float()[None] - batch.latents[:, :1]).flatten(2).abs().sum(2).argmin(1)
        episode = torch.bucketize(rows, torch.tensor(lengths).cumsum(0), right=True)
        known = {0: {0, 1}, 3: {2}, 6: {3}}[one.targets]
        assert set(episode.tolist()) <= known


def test_a_chunk_alone_follows_nothing():
    data, one = drawn_all(replace(TRAINING, lengths=(1,)))[0]
    batch = draw_batch(data, one, draws := Draws(0, 0, range(one.fit.batch)))
    clip = drift_augment(dynamics(), batch, one, SMALL.patch, WINDOW, draws)
    shown = blank_alone(clip, one.targets)
    assert torch.equal(batch.latents[:, 0], batch.latents[:, 1])
    assert not shown.context.any() and (shown.context_level == 1).all()
    assert not shown.conditions.state_known.any()
    assert blank_alone(clip, 1) is clip


@pytest.mark.parametrize("stage", ["sizes", "sizes-student"])
def test_a_run_goes_on_to_the_same_bits(tmp_path: Path, stage: str):
    whole = train(Job(stage, 4, "auto", tmp_path / "a"))
    first = train(Job(stage, 4, "auto", tmp_path / "b", until=2))
    assert first + train(Job(stage, 4, "auto", tmp_path / "b")) == whole


@pytest.mark.nightly
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_are_one(tmp_path: Path, strategy):
    alone = train(Job("sizes-student", 6, "auto", tmp_path / "alone"))
    both = together(2, train, Job("sizes-student", 6, strategy, tmp_path / "both"))
    for a, b, c in zip(alone, *both, strict=True):
        assert losses(a) == pytest.approx(losses(b), rel=1e-5) and b == c


def test_the_vae_sees_every_size_and_length(tmp_path: Path):
    data = films(size=(32, 40), times={"train": 6}, chunks=5)
    views = [at_size(data, size) for size in ((16, 24), (32, 16))]
    how = VAETrainingConfig(fit=FIT, lengths=(1,))
    drawn = clips_of(views, how)
    shapes = {tuple(loader.clips(0).shape[1:]) for loader, _ in drawn.things}
    assert shapes == {(3, 2, 16, 24, 3), (3, 2, 32, 16, 3)}  # no episode of one chunk
    assert [one.fit.batch for _, one in drawn.things] == [8, 6]
    vae = new_vae(VAEConfig(channels=4, widths=(16, 16), blocks=(1, 1)))
    vae = train_vae(views, vae, how, tmp_path, clips=drawn)
    measure_latents(vae, drawn, clips=16)
    latents = torch.cat([vae.encode(torch.rand(1, 2, 32, 40, 3)).flatten()])
    assert latents.isfinite().all() and (vae.std > 0).all()

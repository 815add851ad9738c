"""Captions in training: each clip is told what speaks of it, and guidance moves the target."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from tests.worlds import DIT, WORDS, tiny_dynamics
from worldsim.config import read_json_lines
from worldsim.core import Conditions, WorldError
from worldsim.data.captions import CaptionTable
from worldsim.data.latents import LatentRecording
from worldsim.data.windows import Windows
from worldsim.diffusion.draws import Draws
from worldsim.diffusion.losses import ramp
from worldsim.diffusion.schedule import corrupt
from worldsim.diffusion.timeline import Clip, predict
from worldsim.models.dynamics import Dynamics
from worldsim.models.text import tokens_of
from worldsim.store.provenance import MOST_LOG
from worldsim.train.begin import go_on
from worldsim.train.buckets import latent_buckets
from worldsim.train.context import Batch
from worldsim.train.distill import DistillationConfig, strengthen, train_student
from worldsim.train.dynamics import DynamicsTrainingConfig, FitConfig, train_dynamics
from worldsim.train.words import (
    caption_begins,
    captioned,
    context_hidden,
    draw_guidance,
    emphasise_text,
    hide_start,
    recolour_context,
    recoloured_targets,
)

N = 40
SPANS = [(0, 20, "day"), (0, 20, "noon"), (20, 40, "night")]


def recording() -> LatentRecording:
    first, stop, texts = zip(*SPANS, strict=True)
    g = torch.Generator().manual_seed(0)
    return LatentRecording(
        latents=torch.randn(N, 3, 4, 4, generator=g), actions=torch.zeros(N, 3),
        rewards=torch.zeros(N), continue_prob=torch.ones(N), windows=Windows((N,)),
        captions=CaptionTable(torch.tensor(first), torch.tensor(stop), texts),
    )  # fmt: skip


def test_a_clip_is_told_what_speaks_of_it_where_it_speaks() -> None:
    rows = torch.arange(15, 25).expand(400, -1)  # the night begins within
    said = captioned(recording(), rows, WORDS, 0.25, Draws(0, 0, range(400)))
    tokens = dict(
        zip(("day", "noon", "night"), tokens_of(["day", "noon", "night"], WORDS), strict=False)
    )
    counts = {}
    for text, known in zip(said["text"], said["text_known"], strict=True):
        name = next((n for n, t in tokens.items() if torch.equal(t, text)), "")
        counts[name] = counts.get(name, 0) + 1
        assert known.tolist() == {"": [False] * 10, "night": [False] * 5 + [True] * 5}.get(
            name, [True] * 5 + [False] * 5
        )
    assert counts[""] / 400 == pytest.approx(0.25, abs=0.07)
    assert counts["day"] == pytest.approx(counts["noon"], abs=40) and counts["night"] > 100
    again = captioned(recording(), rows, WORDS, 0.25, Draws(0, 0, range(400)))
    assert torch.equal(again["text"], said["text"])
    assert captioned(recording(), rows, None, 0.25, Draws(0, 0, range(400))) == {}


def clip_of(rows: int = 6) -> Clip:
    g = torch.Generator().manual_seed(1)
    latents = torch.randn(rows, 5, 3, 4, 4, generator=g)
    known = torch.ones(rows, 5, dtype=torch.bool)
    known[0] = False
    text = tokens_of(["night"] * rows, WORDS)
    said = Conditions.of(torch.zeros(rows, 5, 3), text=text, text_known=known)
    return Clip(latents, latents[:, :-1], torch.zeros(rows, 4), said)


def test_only_clips_with_a_caption_begin_with_nothing() -> None:
    clip = clip_of()
    hidden = hide_start(clip, 1.0, Draws(0, 0, range(6)))
    counts = hidden.context_level.long().sum(1)
    assert counts[0] == 0 and counts[1:].min() >= 1 and len(counts[1:].unique()) > 1
    for i, count in enumerate(counts.tolist()):
        assert hidden.context_level[i].tolist() == [1.0] * count + [0.0] * (4 - count)
        assert not hidden.context[i, :count].any()
        assert torch.equal(hidden.context[i, count:], clip.context[i, count:])
    assert hide_start(clip, 0.0, Draws(0, 0, range(6))) is clip


def test_half_of_the_clips_that_begin_with_nothing_know_no_action() -> None:
    """Video from words alone has none, inferred ones neither."""
    clip = clip_of(400)
    told = replace(clip.conditions, latent_action_known=torch.ones(400, 5, dtype=torch.bool))
    hidden = hide_start(replace(clip, conditions=told), 0.5, Draws(0, 0, range(400)))
    known, begun = hidden.conditions.action_known, hidden.context_level[:, 0] > 0
    assert known[~begun].all() and (known.all(1) | ~known.any(1)).all()
    assert 0.4 < known[begun].float().mean() < 0.6
    assert torch.equal(hidden.conditions.latent_action_known, known)


def test_targets_that_have_only_words_to_go_by_count_in_full() -> None:
    """Elsewhere levels and weights stay as drawn; half of these are drawn from pure noise."""
    clip = clip_of(400)
    hidden = hide_start(clip, 1.0, Draws(0, 0, range(400)))
    alone = context_hidden(hidden)
    counts = hidden.context_level.long().sum(1)
    assert torch.equal(alone.sum(1), counts) and not context_hidden(clip).any()
    before = torch.full((400, 4), 0.4)
    level, weight = emphasise_text(before, alone, Draws(0, 0, range(400)))
    assert torch.equal(level[~alone], before[~alone]) and (weight[alone] == 1).all()
    torch.testing.assert_close(weight[~alone], ramp(before[~alone]))
    assert 0.45 < (level[alone] == 1).float().mean() < 0.55


def test_the_first_chunks_that_a_caption_speaks_of_are_just_told() -> None:
    clip = clip_of(2)
    known = torch.tensor([[True] * 5, [False, False, True, True, True]])
    clip = replace(clip, conditions=replace(clip.conditions, text_known=known))
    assert caption_begins(clip).tolist() == [[False] * 4, [False, True, True, False]]


@torch.no_grad()
def test_guidance_keeps_the_path_and_pushes_its_end_away_from_what_is_said_unprompted() -> None:
    model, clip = tiny_dynamics(text=8), clip_of()
    draws = Draws(0, 0, range(6))
    clip, strengthened = draw_guidance(clip, 1.0, draws)
    strength = clip.conditions.guidance
    assert strengthened and strength.min() >= 1 and strength.unique().numel() == 6
    clean, noise = clip.latents[:, 1:], draws.normal((6, 4, 3, 4, 4))
    level = torch.full((6, 4), 0.7)
    aim, rest = strengthen(model, clip, (clean, noise), level, 3, None)
    torch.testing.assert_close(corrupt(aim, rest, level), corrupt(clean, noise, level))
    assert torch.equal(aim[0], clean[0])  # nothing is said there
    assert (aim[1] - clean[1]).abs().max() > 1e-3
    plain = replace(clip, conditions=replace(clip.conditions, guidance=torch.ones(6, 1)))
    assert torch.equal(strengthen(model, plain, (clean, noise), level, 3, None)[0], clean)


def test_training_emphasises_what_only_words_say(tmp_path, monkeypatch) -> None:
    """And asks for nothing of the kind, nor draws for it, in a world without words."""
    asked = []

    def emphasised(level, text_only, draws):
        asked.append(text_only)
        return level, torch.zeros_like(level)

    monkeypatch.setattr("worldsim.train.dynamics.emphasise_text", emphasised)
    fit = FitConfig(steps=1, batch=8, lr=1e-2, ema=0.5, warmup=0, log_every=1)
    training = DynamicsTrainingConfig(fit=fit, targets=5, compile=False, from_nothing=1.0)
    for name, model in (("text", tiny_dynamics(text=8)), ("none", tiny_dynamics())):
        train_dynamics(recording(), model, 3, training, tmp_path / name)
        *_, logged = read_json_lines(tmp_path / name / "log.jsonl", MOST_LOG)
        assert (logged["denoise"] == 0) is (name == "text")
    assert len(asked) == 1 and asked[0].any() and not asked[0].all()


def test_a_trained_network_goes_on_with_words_as_it_was(tmp_path) -> None:
    old, dit = tiny_dynamics(dit=DIT), replace(DIT, cross_attention=True)
    new = tiny_dynamics(dit=dit, text=8)
    fresh = type(new)(dit, new.heads.config, 4, new.conditioning.config)
    go_on(fresh, old)
    clip = clip_of()
    latents, level = clip.latents, torch.zeros(6, 5)
    plain = Conditions.of(clip.conditions.action)
    how = {"time": range(5), "mask": torch.ones(1, 5, 5).tril().bool()}
    before = old(latents, level, plain, latents, **how).x
    assert torch.allclose(fresh(latents, level, clip.conditions, latents, **how).x, before)
    with pytest.raises(WorldError, match="begin: expected weights of the new world"):
        go_on(old, new)
    training = DynamicsTrainingConfig(
        fit=FitConfig(steps=2, batch=4, lr=1e-2, ema=0.5, warmup=0), targets=5, compile=False
    )
    drawn = torch.get_rng_state()
    trained = train_dynamics(recording(), fresh, 3, training, tmp_path)
    assert torch.equal(drawn, torch.get_rng_state()), "a user's draws do not depend on ours"
    assert trained.conditioning.text.weight.abs().max() > 0


def recoloured_batch(rows: int = 200) -> Batch:
    clip = clip_of(rows)
    there = torch.ones(rows, 5)
    return Batch(clip.latents, clip.conditions, there, there, recoloured=clip.latents + 3)


def test_a_share_of_the_captioned_targets_is_noised_in_other_colours() -> None:
    batch = recoloured_batch()
    seen, changed = recoloured_targets(batch, 0.5, Draws(0, 0, range(200)))
    clean = batch.latents[:, 1:]
    assert torch.equal(seen[changed], clean[changed] + 3)
    assert torch.equal(seen[~changed], clean[~changed])
    assert not changed[0].any(), "nothing is said of this clip"
    assert (changed.all(1) | ~changed.any(1)).all() and 0.4 < changed[1:].float().mean() < 0.6
    for share, without in ((0.0, batch), (1.0, replace(batch, recoloured=None))):
        seen, changed = recoloured_targets(without, share, Draws(0, 0, range(200)))
        assert torch.equal(seen, clean) and not changed.any()


LESSON = FitConfig(steps=60, batch=8, lr=2e-2, ema=0.5, warmup=0, log_every=60)
WORDED = {"targets": 5, "compile": False, "drop_text": 0.0, "from_nothing": 0.0}


def inverted() -> LatentRecording:
    """The recording with other colours that are its own, inverted."""
    data = recording()
    return replace(data, recoloured=-cast(torch.Tensor, data.latents))


@torch.no_grad()
def error_of_inverted(model: Dynamics) -> float:
    """How far the answers are from the recording where the network is shown it inverted."""
    data, rows = inverted(), torch.arange(12)[:, None] + torch.arange(6)
    clips = data.clips(rows)
    said = captioned(data, rows, WORDS, 0.0, Draws(0, 0, range(12)))
    told = Conditions.of(clips.actions, clips.known, **said)
    clip = Clip(clips.latents, clips.latents[:, :-1], torch.zeros(12, 5), told)
    clean, level = clips.latents[:, 1:], torch.full((12, 5), 0.1)
    x, _ = predict(model, clip, corrupt(-clean, torch.zeros_like(clean), level), level, 3)
    return float(((x - clean) ** 2).mean())


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_training_asks_for_the_recorded_colours(tmp_path, kind: str) -> None:
    """Shown other latents than it is to answer, a network turns them back after a while."""
    errors = {}
    for share in (0.0, 1.0):
        torch.manual_seed(0)
        folder, model = tmp_path / f"{share}", tiny_dynamics(text=8)
        if kind == "teacher":
            config = DynamicsTrainingConfig(fit=LESSON, **WORDED, recolour=share)
            made = train_dynamics(inverted(), model, 3, config, folder)
        else:
            faults = {"guided": 0.0, "resample": 0.0, "damage": 0.0}
            distill = DistillationConfig(fit=LESSON, **WORDED, **faults, recolour=share)
            made = train_student(inverted(), model, 3, distill, folder)
        errors[share] = error_of_inverted(made)
    assert errors[1.0] < 0.5 * errors[0.0]


def test_targets_in_other_colours_count_in_full(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        "worldsim.train.dynamics.emphasise_text",
        lambda level, text_only, draws: (level, torch.zeros_like(level)),
    )
    fit = FitConfig(steps=1, batch=8, lr=1e-2, ema=0.5, warmup=0, log_every=1)
    for share in (0.0, 1.0):
        config = DynamicsTrainingConfig(fit=fit, **WORDED, recolour=share)
        train_dynamics(inverted(), tiny_dynamics(text=8), 3, config, tmp_path / f"{share}")
        *_, logged = read_json_lines(tmp_path / f"{share}" / "log.jsonl", MOST_LOG)
        assert (logged["denoise"] > 0) is (share == 1)


def test_training_emphasises_what_follows_contexts_in_other_colours(tmp_path, monkeypatch) -> None:
    asked = []

    def noted(level, text_only, draws):
        asked.append(text_only)
        return level, torch.ones_like(level)

    monkeypatch.setattr("worldsim.train.dynamics.emphasise_text", noted)
    fit = FitConfig(steps=1, batch=64, lr=1e-2, ema=0.5, warmup=0)
    for share in (0.0, 1.0):
        config = DynamicsTrainingConfig(fit=fit, **WORDED, recolour_context=share)
        train_dynamics(inverted(), tiny_dynamics(text=8), 3, config, tmp_path / f"{share}")
    before, after = asked
    assert after.float().mean() > before.float().mean() + 0.3


def test_batches_that_learn_guidance_are_shown_the_recorded_colours(tmp_path, monkeypatch) -> None:
    """Their path is the data's own."""
    asked = []

    def noted(batch, share, draws):
        asked.append(share)
        return recoloured_targets(batch, share, draws)

    monkeypatch.setattr("worldsim.train.distill.recoloured_targets", noted)
    fit = FitConfig(steps=12, batch=4, lr=1e-3, ema=0.5, warmup=0)
    training = DistillationConfig(
        fit=fit, **WORDED, recolour=0.6, guided=0.5, resample=0.0, damage=0.0
    )
    train_student(inverted(), tiny_dynamics(text=8), 3, training, tmp_path)
    assert set(asked) == {0.6} and 0 < len(asked) < 12


def test_a_share_of_the_captioned_clips_is_shown_in_other_colours_up_to_some_chunk() -> None:
    """Never where nothing is said of what follows."""
    batch = recoloured_batch()
    batch.conditions.text_known[1::2, 3:] = False  # the caption ends
    told, changed = recolour_context(batch, 0.5, Draws(0, 0, range(200)))
    true = batch.latents[:, :-1]
    assert told.shown is not None and torch.equal(told.latents, batch.latents)
    assert torch.equal(told.shown[changed], true[changed] + 3)
    assert torch.equal(told.shown[~changed], true[~changed])
    assert not changed[0].any() and not changed[1::2, 2:].any()
    assert torch.equal(changed, changed.cumprod(1).bool()) and changed[2::2, 3].any()
    assert 0.4 < changed[1:].any(1).float().mean() < 0.6
    for share, without in ((0.0, batch), (1.0, replace(batch, recoloured=None))):
        told, changed = recolour_context(without, share, Draws(0, 0, range(200)))
        assert told is without and not changed.any()


def spoken() -> LatentRecording:
    """A recording in which captions alone say what is seen, in its own and in other colours."""
    seen = torch.where(torch.arange(N) < SPANS[0][1], 1.0, -1.0)
    latents = seen[:, None, None, None].expand(N, 3, 4, 4).clone()
    return replace(recording(), latents=latents, recoloured=-latents)


@torch.no_grad()
def error_in_words(model: Dynamics, shown: Tensor, level: float) -> float:
    """How far pure noise is answered from what captions say after chunks of `shown` (2, 3, 4, 4),
    which are noise of `level`."""
    text = tokens_of(["day", "night"], WORDS)
    clean = torch.tensor([1.0, -1.0])[:, None, None, None, None].expand(2, 6, 3, 4, 4)
    given = Conditions.of(
        torch.zeros(2, 6, 3), text=text, text_known=torch.ones(2, 6, dtype=torch.bool)
    )
    context = shown[:, None].expand(2, 5, 3, 4, 4)
    clip = Clip(clean, context, torch.full((2, 5), level), given)
    noise = torch.randn(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    x, _ = predict(model, clip, noise, torch.ones(2, 5), 3)
    return float(((x - clean[:, 1:]) ** 2).mean())


def test_stills_are_drawn_of_captioned_recordings_alone_and_begin_with_nothing() -> None:
    distill = DistillationConfig(fit=LESSON, **WORDED, stills=0.5, masked=0.5)
    for data, count in ((spoken(), 2), (replace(spoken(), captions=None), 1)):
        drawn = latent_buckets(data, distill)
        assert len(drawn.things) == count and drawn.things[0][1].targets == 5
    _, config = latent_buckets(spoken(), distill).things[1]
    assert (config.targets, config.fit.batch, config.from_nothing) == (0, 48, 1.0)
    assert config.masked == config.damage == config.resample == 0


@pytest.mark.parametrize("kind", ["teacher", "student"])
@pytest.mark.parametrize("share", ["recolour_context", "stills"])
def test_words_are_learned(tmp_path, kind: str, share: str) -> None:
    """Against what was seen, where contexts are in other colours; from nothing, by stills."""
    day = torch.ones(1, 3, 4, 4)
    wrong, nothing = torch.cat([-day, day]), torch.zeros(2, 3, 4, 4)
    errors = {}
    for size in (0.0, 0.8):
        torch.manual_seed(0)
        folder, model = tmp_path / f"{size}", tiny_dynamics(text=8)
        part: dict[str, Any] = {share: size}
        if kind == "teacher":
            config = DynamicsTrainingConfig(fit=LESSON, **WORDED, **part)
            made = train_dynamics(spoken(), model, 3, config, folder)
        else:
            faults = {"guided": 0.0, "resample": 0.0, "damage": 0.0}
            distill = DistillationConfig(fit=LESSON, **WORDED, **faults, **part)
            made = train_student(spoken(), model, 3, distill, folder)
        errors[size] = (
            error_in_words(made, nothing, 1.0) if share == "stills"
            else error_in_words(made, wrong, 0.0)
        )  # fmt: skip
    assert errors[0.8] < 0.5 * errors[0.0]


@pytest.mark.parametrize("name", ["recolour", "recolour_context", "stills"])
@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_a_share(name: str, share: float) -> None:
    wrong: dict[str, Any] = {name: share}
    with pytest.raises(WorldError, match=f"{name}: expected a share from 0 to"):
        DynamicsTrainingConfig(fit=FitConfig(steps=1), **wrong)

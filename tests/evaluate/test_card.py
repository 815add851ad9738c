import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import fidelity as fidelity_command
from tests.measured_data import LENGTHS, SPEC, stripes, stripes_data
from tests.world_folders import tiny_world
from worldsim.core import WorldError
from worldsim.data import Dataset, NativeWriter
from worldsim.evaluate import card, evaluate, horizon, reconstruction
from worldsim.evaluate import report as lines
from worldsim.evaluate.card import Plan
from worldsim.evaluate.horizon import Dreamt
from worldsim.evaluate.test_clips import Clips, cut_clips, ending_starts, even_starts
from worldsim.models.vae import to_bytes, to_float
from worldsim.recipes.car_racing import landmarks as car_racing
from worldsim.store.provenance import training_cost
from worldsim.world.diffusion import DiffusionWorld, Sampling

PLAN = Plan(
    starts=2, horizon=8, teacher_horizon=4, teacher_steps=2, action_steps=4, dreams=3,
    dream_steps=8,
)  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return stripes_data(tmp_path)


def clips_of(lengths: tuple[int, ...] = LENGTHS, steps: int = 8) -> Clips:
    found = [
        cut_clips(
            stripes(5000 + i, n, i == 1), i, even_starts(n, 3, steps, 2), 3, steps, SPEC.action
        )
        for i, n in enumerate(lengths)
    ]
    return Clips.cat([c for c in found if c is not None])


# --- clips ----------------------------------------------------------------------------------------


def test_starts_are_the_middles_of_equal_parts():
    assert even_starts(22, 3, 8, 4) == [3, 7, 10, 14]
    assert even_starts(11, 3, 8, 4) == [3] and even_starts(10, 3, 8, 4) == []


def test_a_clip_holds_what_led_into_each_chunk():
    clip = cut_clips(stripes(5000, 20), 7, [5], 3, 4, SPEC.action)
    assert clip is not None
    frames = torch.from_numpy(stripes(5000, 20).frames[:])
    assert torch.equal(clip.context[0], frames[4:10])
    assert torch.equal(clip.frames[0].flatten(0, 1), frames[10:18])
    assert clip.context_actions[0, :, 0].tolist() == pytest.approx([0.02, 0.03, 0.04])
    assert clip.actions[0, :, 0].tolist() == pytest.approx([0.05, 0.06, 0.07, 0.08])
    assert clip.rewards[0].tolist() == pytest.approx([3, -0.2, -0.2, -0.2])
    assert bool(clip.valid.all()) and not clip.ends.any() and clip.episode.tolist() == [7]


def test_a_clip_knows_where_its_episode_ended():
    episode = stripes(5001, 20, terminated=True)
    starts = ending_starts(episode, 3, (1, 4))
    assert starts == [19, 16] and ending_starts(stripes(5001, 20), 3, (1, 4)) == []
    clip = cut_clips(episode, 0, starts, 3, 6, SPEC.action)
    assert clip is not None
    assert clip.ends.int().tolist() == [[1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]]
    assert clip.valid.sum(1).tolist() == [1, 4]


def test_shuffled_actions_come_from_other_episodes():
    clips = clips_of()
    other = horizon.shuffled(clips)[:, 0, 1]  # the second entry names the episode
    assert not torch.isclose(other, clips.actions[:, 0, 1]).any()


# --- figures with known answers -------------------------------------------------------------------


def test_gaps_of_known_errors():
    episode = torch.arange(6) // 2
    still, dreamt = torch.full((6, 4), 0.01), torch.full((6, 4), 0.001)
    dreamt[:, 2] = 0.02  # worse than persistence at horizon 3
    found = horizon.above_persistence(dreamt, still, episode)
    assert found["next"]["value"] == pytest.approx(10, abs=1e-4)
    assert found["worst_horizon"] == 3
    assert found["worst"]["value"] == pytest.approx(-10 * math.log10(2), abs=1e-4)
    gaps = horizon.teacher_gaps(dreamt, still / 100, episode)
    assert list(gaps) == ["1"] and gaps["1"]["value"] == pytest.approx(10, abs=1e-4)
    ratio = horizon.action_following(dreamt, 3 * dreamt, episode)
    assert list(ratio) == ["1", "4"] and ratio["4"]["value"] == pytest.approx(3)


def test_persistence_is_zero_where_nothing_moves():
    clips = clips_of()
    held = replace(clips, frames=clips.context[:, None, None, -1].expand_as(clips.frames).clone())
    assert horizon.persistence(held).abs().max() == 0
    assert horizon.persistence(clips).shape == (6, 8) and horizon.persistence(clips).min() > 0


def told(clips: Clips, reward: torch.Tensor, continue_prob: torch.Tensor) -> Dreamt:
    return Dreamt(
        torch.zeros_like(clips.rewards), reward, continue_prob, torch.ones_like(continue_prob)
    )


def test_reward_figures_of_a_perfect_and_of_a_blind_head():
    clips = clips_of()
    continue_prob = torch.ones_like(clips.rewards)
    perfect = horizon.reward_figures(clips, told(clips, clips.rewards, continue_prob))
    assert perfect["pearson"]["value"] == pytest.approx(1) and perfect["f1"] == 1
    assert perfect["threshold"] == pytest.approx(1.4, abs=1e-4)
    blind = horizon.reward_figures(
        clips, told(clips, torch.ones_like(clips.rewards), continue_prob)
    )
    assert math.isnan(blind["pearson"]["value"])
    assert blind["f1"] == 0 and blind["f1_at_zero"] == pytest.approx(20 / 58)  # 10 of 48


def test_ends_are_counted_up_to_the_end():
    clip = cut_clips(stripes(5001, 20, terminated=True), 0, [16, 8], 3, 6, SPEC.action)
    assert clip is not None  # the first ends with its 4th step, the second goes on
    continue_prob = torch.ones(2, 6)
    continue_prob[0, 3] = continue_prob[0, 5] = 0.1  # right; after the end, where nothing counts
    continue_prob[1, 0] = 0.4  # wrong
    found = horizon.end_figures([(clip, told(clip, clip.rewards, continue_prob))])
    assert found["counts"] == {"hits": 1, "false": 1, "missed": 0, "quiet": 8}
    assert found["false_rate"] == pytest.approx(1 / 9) and found["count"] == 1


# --- the VAE --------------------------------------------------------------------------------------


def test_pieces_rebuild_what_the_whole_video_would(monkeypatch: pytest.MonkeyPatch):
    world, episode = tiny_world(), stripes(5000, 20)
    frames = torch.from_numpy(episode.frames)
    with torch.no_grad():
        whole = to_bytes(world.vae.decode(world.vae.encode(to_float(frames)[None])))[0]
    monkeypatch.setattr(reconstruction, "ROWS", 6)
    found = reconstruction.rebuild(world, episode)
    error = (whole.float() - frames.float()).div(255).square().reshape(20, -1).mean(1)
    assert torch.allclose(found.mse, error, rtol=1e-3)
    moved = (frames[1:].int() - frames[:-1].int()).abs().amax(-1) > 25.5
    pixels = (whole.float() - frames.float()).div(255).square().mean(-1)[1:][moved]
    assert found.moved_count == int(moved.sum()) > 0 and len(found.edges) == 0
    assert found.moved_error / found.moved_count == pytest.approx(pixels.mean().item(), rel=1e-3)


# --- the whole card -------------------------------------------------------------------------------


def test_a_card_is_whole_and_repeats_itself(data: Dataset):
    world = tiny_world().with_sampling(Sampling())
    cards = [evaluate(world, data, teacher=world, plan=PLAN) for _ in range(2)]
    figures = cards[0]["figures"]
    assert figures == cards[1]["figures"] and cards[0]["lines"] == cards[1]["lines"]
    assert json.loads(json.dumps(cards[0], allow_nan=False)) == cards[0]
    assert figures["horizon"]["clips"] == 6 and figures["teacher"]["clips"] == 3
    assert {len(c) for c in figures["horizon"]["psnr"].values()} == {8}
    assert figures["ends"]["count"] == 5  # one episode: its last start and four near its end
    assert figures["long"]["dreams"] == figures["long"]["finite"] == 3
    assert len(cards[0]["data"]["sha256"]) == 64 and cards[0]["provenance"]["versions"]["torch"]
    text = lines.table(cards[0]["lines"])
    assert "VAE: test frames" in text and "teacher (2 steps) minus 2-step student" in text


def test_a_world_is_judged_in_the_passes_it_ships_with(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
):
    """One and two passes stand beside them; whatever else is told is of its own three."""
    passes: dict[int, int] = {}  # by the dreams' identity
    told, dream, reward_figures = [], horizon.dream, horizon.reward_figures

    def dreamt(world: DiffusionWorld, *given: Any) -> Dreamt:
        found = dream(world, *given)
        passes[id(found)] = world.config.sampling.num_steps
        return found

    def figures(clips: Clips, found: Dreamt) -> dict[str, Any]:
        told.append(passes[id(found)])
        return reward_figures(clips, found)

    monkeypatch.setattr(horizon, "dream", dreamt)
    monkeypatch.setattr(horizon, "reward_figures", figures)
    card = evaluate(tiny_world().with_sampling(Sampling(num_steps=3)), data, plan=PLAN)
    assert list(card["figures"]["horizon"]["psnr"]) == ["1", "2", "3"] and told == [3]


def test_a_card_is_renewed_in_trust_and_ranking_alone(data: Dataset):
    world = tiny_world().with_sampling(Sampling())
    first = evaluate(world, data, plan=PLAN)
    spoilt = json.loads(json.dumps(first))
    spoilt["figures"]["safe_horizon"] = {"steps": 99}
    pearson = {"value": 0.5, "low": 0.1, "high": 0.7}
    ranking = {"ranked": 9, "pearson": pearson, "mmrv": 12.0, "policies": {}}
    renewed = card.renew_trust(spoilt, world, data, policies=ranking)
    assert renewed["figures"].pop("policies") == {"ranked": 9, "pearson": pearson, "mmrv": 12.0}
    first["figures"].pop("policies")
    assert renewed["figures"] == first["figures"]
    [line] = [x for x in renewed["lines"] if x["figure"].startswith("policies' returns")]
    assert (
        line["passed"] is False and line["interval"] == [0.1, 0.7] and "9 policies" in line["note"]
    )


def test_figures_do_not_depend_on_the_batch(data: Dataset):
    world = tiny_world().with_sampling(Sampling())
    small, large = (evaluate(world, data, plan=replace(PLAN, rows=n)) for n in (1, 6))
    pair = [x["figures"]["horizon"]["psnr"]["1"] for x in (small, large)]
    assert pair[0] == pytest.approx(pair[1], abs=1e-3)
    assert small["figures"]["teacher"] is None


def test_a_world_of_nan_fails_and_still_has_a_card(data: Dataset):
    world = tiny_world().with_sampling(Sampling())
    for value in world.dynamics.dit.parameters():
        value.fill_(float("nan"))
    found = evaluate(world, data, plan=PLAN)
    assert found["figures"]["long"]["finite"] == 0
    [line] = [x for x in found["lines"] if x["figure"] == "long dreams: all finite"]
    assert line["passed"] is False
    json.dumps(found, allow_nan=False)


def test_a_plan_too_small_is_refused():
    with pytest.raises(ValueError, match="dream_steps: expected at least 4, got 3"):
        Plan(dream_steps=3)
    with pytest.raises(ValueError, match="episodes: expected at least 2, got 1"):
        Plan(episodes=1)


def test_foreign_data_is_refused(data: Dataset, tmp_path: Path):
    other = NativeWriter(tmp_path / "other", replace(data.spec, chunk=4)).dataset()
    with pytest.raises(WorldError, match="give a dataset of the world's own kind"):
        evaluate(tiny_world(), other)
    data = NativeWriter(tmp_path / "empty", data.spec).dataset()
    with pytest.raises(WorldError, match="expected test episodes in .*got none"):
        evaluate(tiny_world(), data)


def test_the_teacher_may_be_a_stage_of_a_run(tmp_path: Path):
    world, other = tiny_world(), tiny_world(1)
    (tmp_path / "teacher").mkdir()
    path = tmp_path / "teacher" / "final.safetensors"
    save_file(other.dynamics.state_dict(), path)
    for source in (tmp_path, tmp_path / "teacher"):
        teacher = card.teacher_of(world, source, 5)
        assert teacher.config.sampling == Sampling(method="euler", num_steps=5)
        name, value = next(iter(teacher.dynamics.state_dict().items()))
        assert torch.equal(value, other.dynamics.state_dict()[name]) and teacher.vae is world.vae
    save_file({"stray": torch.zeros(1)}, path)
    with pytest.raises(WorldError, match="teacher: expected weights of the sizes of tiny0"):
        card.teacher_of(world, tmp_path, 5)


def test_lines_pass_and_fail_by_their_goals():
    line = lines._line("x", 2.0, 3.0)
    assert line["passed"] is False and lines._line("x", 2.0, 3.0, most=True)["passed"] is True
    assert lines._line("x", float("nan"), 3.0, most=True)["passed"] is False
    assert lines._line("x", 2.0, None)["passed"] is None
    assert lines.table([line]).startswith("-  x  2  >= 3")


def test_cost_leaves_out_pauses(tmp_path: Path):
    assert training_cost(None) == training_cost(tmp_path) == {}
    (tmp_path / "vae").mkdir()
    times = [100.0, 160.0, 5000.0, 5030.0]
    rows = [json.dumps({"step": 20 * i, "time": t}) for i, t in enumerate(times, 1)]
    (tmp_path / "vae" / "log.jsonl").write_text("\n".join(rows) + "\n")
    expected = {"stages": {"vae": {"seconds": 90.0, "steps": 80}}, "seconds": 90.0}
    assert training_cost(tmp_path) == expected
    assert not car_racing.recognised(tiny_world().spec)


def test_the_bundled_worlds_test_tracks_are_recorded_only_where_there_is_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    monkeypatch.setattr(fidelity_command, "collect", lambda config, mix: asked.append(config))
    fidelity_command.record_tests("car-racing", tmp_path)
    fidelity_command.record_tests("another", tmp_path / "new")
    assert not asked
    fidelity_command.record_tests("car-racing", tmp_path / "new")
    (config,) = asked
    assert config.folder == tmp_path / "new" and config.test == (5000, 5050)
    assert all(first == stop for first, stop in (config.train, config.val))

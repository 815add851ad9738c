"""Figures along dreams, from errors and predictions whose answers are known."""

import math
from dataclasses import replace

import pytest
import torch

from tests.evaluate.test_clips import recorded
from tests.measured_data import LENGTHS
from worldsim.evaluate import horizon
from worldsim.evaluate.clips import Clips, cut_clips, even_starts
from worldsim.evaluate.horizon import Dreamt


def clips_of(lengths: tuple[int, ...] = LENGTHS, steps: int = 8) -> Clips:
    parts = [
        cut_clips(recorded(5000 + i, n, i == 1), i, even_starts(n, 3, steps, 2), 3, steps)
        for i, n in enumerate(lengths)
    ]
    return Clips.cat([c for c in parts if c is not None])


def test_shuffled_actions_come_from_other_episodes():
    clips = clips_of()
    other = horizon.shuffled(clips)
    assert other is not None  # the second entry names the episode
    assert not torch.isclose(other[:, 0, 1], clips.actions[:, 0, 1]).any()
    assert horizon.shuffled(replace(clips, actions=clips.actions * 0)) is None


def test_gaps_of_known_errors():
    episode = torch.arange(6) // 2
    still, dreamt = torch.full((6, 4), 0.01), torch.full((6, 4), 0.001)
    dreamt[:, 2] = 0.02  # worse than persistence at horizon 3
    found = horizon.above_persistence(dreamt, still, episode)
    assert found["next"]["value"] == pytest.approx(10, abs=1e-4)
    assert found["later_horizon"] == 4 and found["later"]["value"] == pytest.approx(10, abs=1e-4)
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


def predicted(clips: Clips, reward: torch.Tensor, continue_prob: torch.Tensor) -> Dreamt:
    return Dreamt(
        torch.zeros_like(clips.rewards), reward, continue_prob, torch.ones_like(continue_prob),
        clips.states,
    )  # fmt: skip


def test_reward_figures_of_a_perfect_and_of_a_blind_head():
    clips = clips_of()
    continue_prob = torch.ones_like(clips.rewards)
    perfect = horizon.reward_figures(clips, predicted(clips, clips.rewards, continue_prob))
    assert perfect is not None
    assert perfect["pearson"]["value"] == pytest.approx(1) and perfect["f1"] == 1
    assert perfect["threshold"] == pytest.approx(1.4, abs=1e-4)
    blind = horizon.reward_figures(
        clips, predicted(clips, torch.ones_like(clips.rewards), continue_prob)
    )
    assert blind is not None and math.isnan(blind["pearson"]["value"])
    assert blind["f1"] == 0 and blind["f1_at_zero"] == pytest.approx(20 / 58)  # 10 of 48


def test_ends_are_counted_up_to_the_end():
    clip = cut_clips(recorded(5001, 20, terminated=True), 0, [16, 8], 3, 6)
    assert clip is not None  # the first ends with its 4th step, the second goes on
    continue_prob = torch.ones(2, 6)
    continue_prob[0, 3] = continue_prob[0, 5] = 0.1  # right; after the end, where nothing counts
    continue_prob[1, 0] = 0.4  # wrong
    found = horizon.end_figures([(clip, predicted(clip, clip.rewards, continue_prob))])
    assert found["counts"] == {"hits": 1, "false": 1, "missed": 0, "quiet": 8}
    assert found["false_rate"] == pytest.approx(1 / 9) and found["count"] == 1


def test_there_are_no_reward_figures_without_rewards():
    clips = clips_of()
    silent = replace(clips, rewards=clips.rewards * torch.nan)
    dreamt = predicted(clips, clips.rewards, torch.ones_like(clips.rewards))
    assert horizon.reward_figures(silent, dreamt) is None

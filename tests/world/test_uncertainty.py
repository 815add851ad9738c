"""Signs of doubt, the judge that weighs them, and the figures that judge the judge."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.world_folders import refused
from tests.worlds import CAR, tiny_world, with_doubts
from worldsim.core import ActionSpec, WorldError, row_keys
from worldsim.metrics import auroc, reliability
from worldsim.store.folder import load, save
from worldsim.store.manifest import TRUST
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.uncertainty import SIGNS, embed_action, nearest


def dream(world: DiffusionWorld, steps: int, rows: int = 4):
    state, told = world.reset(row_keys(range(rows))), []
    for t in range(steps):
        action = torch.full((rows, 3), 0.1 * t).clamp(0, 1)
        state, said = world.step(state, action)
        told.append((state, said))
    return told


def test_trust_follows_from_the_state_alone():
    world = with_doubts(tiny_world(steps=2))
    for state, said in dream(world, 3):
        assert world.trust is not None
        assert torch.equal(said.trust, world.trust(state))
        assert ((said.trust > 0) & (said.trust < 1)).all() and said.trust.std() > 0


def test_doubt_holds_the_last_signs_their_mean_and_their_maximum():
    told = dream(with_doubts(tiny_world(steps=2)), 5)
    first = with_doubts(tiny_world(steps=2)).reset(row_keys(range(4))).uncertainty[:, 2]
    last = torch.stack([state.uncertainty[:, 0] for state, _ in told])
    newest = told[-1][0].uncertainty
    torch.testing.assert_close(newest[:, 1], last.mean(0))
    assert torch.equal(newest[:, 2], torch.maximum(last.amax(0), first))


def test_one_pass_has_nothing_to_disagree_with_and_two_do():
    place = SIGNS.index("disagreement")
    one, two = (
        dream(with_doubts(tiny_world(steps=n)), 1)[0][0].uncertainty[:, 0, place] for n in (1, 2)
    )
    assert (two > one).all() and one.unique().numel() == 1


def test_another_way_of_drawing_is_unknown():
    world = with_doubts(tiny_world(steps=2))
    cooler = world.with_sampling(replace(world.config.sampling, temperature=0.5))
    for other in (world.with_num_steps(1), cooler, tiny_world(steps=2)):
        assert not other.calibrated and dream(other, 1)[0][1].trust.isnan().all()
    assert world.with_num_steps(1).with_num_steps(2).calibrated
    assert tiny_world().reset(row_keys([0])).uncertainty.shape == (1, 0)


def test_a_start_unlike_what_was_recorded_is_doubted():
    world = with_doubts(tiny_world())
    assert world.trust is not None
    latents = torch.zeros(2, 3, *world.spec.latent_shape)
    latents[1] = 50.0
    filled = torch.tensor([3, 3])
    near, far = world.trust.start(latents, filled)[:, 2, SIGNS.index("strange")]
    assert far > near + 1
    hidden = world.trust.start(torch.cat([latents[1:], latents[:1]], 0), torch.tensor([0, 3]))
    assert hidden[1, 2, SIGNS.index("strange")] == near


def test_distances_and_actions_with_known_answers():
    bank = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    found = nearest(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), bank)
    torch.testing.assert_close(found, torch.tensor([0.0, 2.0]) / 2**0.5)
    torch.testing.assert_close(
        embed_action(CAR, torch.tensor([[0.5, 0.0, 1.0], [0.0] * 3]), torch.tensor([True, False])),
        torch.tensor([[0.5, -1.0, 1.0], [0.0, 0.0, 0.0]]),
    )
    buttons = ActionSpec(kind="discrete", n=3)
    known = torch.tensor([True, False])
    assert embed_action(buttons, torch.tensor([2, 0]), known).tolist() == [[0, 0, 1], [0, 0, 0]]


# --- In a folder ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*no fidelity card")
def test_trust_comes_back_with_its_world(tmp_path: Path):
    world = with_doubts(tiny_world(steps=2))
    back = load(save(world, tmp_path / "world", dtype=torch.float32))
    assert back.calibrated
    for (a, said), (b, again) in zip(dream(world, 3), dream(back, 3), strict=True):
        assert torch.equal(said.trust, again.trust) and torch.equal(a.uncertainty, b.uncertainty)
    (tmp_path / "world" / TRUST).write_bytes(b"0" * (tmp_path / "world" / TRUST).stat().st_size)
    refused(tmp_path / "world", TRUST)


@pytest.mark.filterwarnings("ignore:.*no fidelity card")
def test_a_world_without_trust_has_no_file_of_it(tmp_path: Path):
    folder = save(tiny_world(), tmp_path / "world")
    assert not (folder / TRUST).exists() and load(folder).trust is None
    (folder / TRUST).write_bytes(b"")
    refused(folder, TRUST, "none, as the manifest says")


# --- Figures --------------------------------------------------------------------------------------


def test_auroc_with_known_answers():
    score, true = torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([False, False, True, True])
    assert auroc(score, true) == 0.75 and auroc(-score, true) == 0.25
    assert auroc(torch.zeros(4), true) == 0.5 and auroc(score, true | True) != auroc(score, true)


def test_reliability_with_known_answers():
    said = torch.cat([torch.full((100,), 0.75), torch.full((100,), 0.25)])
    true = torch.zeros(200, dtype=torch.bool)
    true[:75] = true[100:125] = True
    assert reliability(said, true).ece == pytest.approx(0, abs=1e-6)
    true[100:150] = True  # half of the quarter
    found = reliability(said, true)
    assert found.ece == pytest.approx(0.125) and found.count[2] == 100 and found.true[7] == 0.75
    assert reliability(torch.ones(2), torch.ones(2).bool()).count[9] == 2


def test_a_world_that_is_not_calibrated_may_not_act_on_trust():
    from worldsim.envs import WorldSimEnv

    for mode in ("penalise", "truncate"):
        with pytest.raises(WorldError, match="calibrate"):
            WorldSimEnv(tiny_world(), trust=mode)
        WorldSimEnv(with_doubts(tiny_world()), trust=mode)

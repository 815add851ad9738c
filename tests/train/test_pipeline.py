"""`worldsim.train`: any chunk, size and kind of data, from films to a world in one call."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.train.films import FORCE, NONE, Films, film, films
from worldsim.core import WorldError, row_keys
from worldsim.data.view import WithoutStates
from worldsim.pipeline import train
from worldsim.store.folder import load
from worldsim.train import loop
from worldsim.train.checkpoint import read_checkpoint
from worldsim.train.recipe import Recipe, recipe_for

SMALL = {"dim": 32, "depth": 2, "heads": 2, "widths": (16, 16), "channels": 4, "context": 3}


def short() -> Recipe:
    """The tiny recipe with batches of two."""
    base = recipe_for("tiny")
    parts = {
        name: replace(part, fit=replace(part.fit, batch=2, bf16=False))
        for name in ("vae", "forced", "teacher", "distill")
        for part in [getattr(base, name)]
    }
    return replace(base, **parts)


SETTINGS: dict[str, Any] = {"changed": SMALL, "recipe": short(), "card": False}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of twelve steps on films of choices."""
    folder = tmp_path_factory.mktemp("whole")
    train(films(), out=folder / "world", run=folder / "run", steps=12, **SETTINGS)
    return folder / "run"


@pytest.mark.parametrize(
    ("chunk", "size", "action", "rewards"),
    [(1, (24, 16), FORCE, True), (4, (32, 32), NONE, False)],
)
def test_any_chunk_size_and_kind(tmp_path: Path, chunk, size, action, rewards):
    data = films(action, chunk=chunk, size=size, rewards=rewards)
    world = train(data, out=tmp_path / "world", run=tmp_path / "run", steps=12, **SETTINGS)
    loaded = load(tmp_path / "world")
    assert loaded.spec.chunk == chunk and loaded.spec.frame_shape == (*size, 3)
    assert loaded.spec == world.spec and loaded.spec.action == action
    state = loaded.reset(row_keys([1, 2]))
    state, _ = loaded.step(state, action.blank(2))
    assert loaded.decode(state).shape == (2, chunk, *size, 3)
    samples = [p.name for p in (tmp_path / "run" / "samples").iterdir()]
    assert sorted(samples) == [
        f"{stage}-{steps:06d}.{kind}"
        for stage, steps in (("forced", 4), ("student", 3), ("teacher", 2))
        for kind in ("mp4", "png")
    ]


@pytest.mark.nightly
def test_several_sizes_and_lengths(tmp_path: Path):
    """One world of three sizes, from films and pictures; killed between stages it goes on."""
    data, sizes = films(size=(32, 40)), ((24, 32), (32, 24), (16, 16))
    single = [replace(film(data.spec, 90 + i, 1, True, 1.0), name=f"single-{i}") for i in range(3)]
    mixed = Films(data.spec, data._splits | {"train": data._splits["train"][3:] + single})
    how: dict[str, Any] = {"sizes": sizes, "lengths": (1, 4), "steps": 12} | SETTINGS
    world = train(mixed, out=tmp_path / "world", run=tmp_path / "run", **how)
    loaded = load(tmp_path / "world")
    assert loaded.config.sizes == world.config.sizes == sizes
    assert loaded.spec.frame_shape == (24, 32, 3)
    assert len(list((tmp_path / "run").glob("latents-train-*.safetensors"))) == 3
    shutil.rmtree(tmp_path / "run" / "student")
    again = train(mixed, out=tmp_path / "again", run=tmp_path / "run", **how)
    pairs = zip(again.dynamics.parameters(), world.dynamics.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    fewer: dict[str, Any] = {**how, "sizes": sizes[:2]}
    with pytest.raises(WorldError, match="frame_sizes"):
        train(mixed, out=tmp_path / "no", run=tmp_path / "run", **fewer)


@pytest.mark.nightly
def test_a_state_is_learnt_or_left_out_and_joins_a_world_without(tmp_path: Path):
    data = films(FORCE)
    data.spec = replace(data.spec, state=("sum",))
    pairs = {e.name: np.cumsum(e.actions, 0) for e in data._episodes if e.actions is not None}
    told = {split: [replace(e, state=pairs[e.name].astype(np.float32)) for e in episodes]
            for split, episodes in data._splits.items()}  # fmt: skip
    data = Films(data.spec, told)
    how = {"steps": 8, "changed": SMALL, "recipe": short(), "card": False}
    plain = train(WithoutStates(data), out=tmp_path / "plain", run=tmp_path / "a", **how)
    assert plain.spec.state is None and plain.starts.states is None
    world = train(data, out=tmp_path / "on", run=tmp_path / "b", begin=plain, **how)
    assert world.spec.state is not None and world.spec.state.names == ("sum",)
    train_states = np.concatenate([e.state for e in told["train"] if e.state is not None])
    assert world.spec.state.mean[0] == pytest.approx(train_states.mean(), abs=1e-5)
    assert load(tmp_path / "on").spec == world.spec and world.starts.states is not None
    head = world.dynamics.heads.state
    assert head is not None and head.change.weight.any()
    with pytest.raises(WorldError, match=r"begin: expected data with the states \('sum',\)"):
        train(WithoutStates(data), out=tmp_path / "c", run=tmp_path / "c", begin=world, **how)


def test_a_vae_that_has_no_steps_is_kept(tmp_path: Path):
    """What it makes of a frame is what it made of it, and all of the budget is the student's."""
    old = train(films(), out=tmp_path / "old", run=tmp_path / "a", steps=8, **SETTINGS)
    recipe = SETTINGS["recipe"]
    kept = replace(recipe, vae=replace(recipe.vae, fit=replace(recipe.vae.fit, steps=0)))
    how = SETTINGS | {"recipe": kept}
    other = films(scale=0.5)
    new = train(other, out=tmp_path / "new", run=tmp_path / "b", begin=old, steps=6, **how)
    for name, value in old.vae.state_dict().items():
        assert torch.equal(value, new.vae.state_dict()[name]), name
    assert not (tmp_path / "b" / "vae" / "log.jsonl").exists()
    step, settings, _ = read_checkpoint(tmp_path / "b" / "student" / "checkpoint")
    assert step == 6 and settings["refine"] is False  # a student goes on
    with pytest.raises(WorldError, match="steps: expected 1 or more of a stage, got 0"):
        train(other, out=tmp_path / "no", run=tmp_path / "c", **how)


def test_the_card_says_what_could_not_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A world that was trained for hours is saved whatever becomes of its card."""

    def fails(*_, **__):
        raise WorldError("data: expected longer episodes")

    monkeypatch.setattr("worldsim.evaluate.measure.calibrate", fails)
    monkeypatch.setattr("worldsim.evaluate.measure.evaluate", fails)
    with pytest.warns(UserWarning, match="trust could not be measured: data: expected longer"):
        world = train(
            films(), out=tmp_path / "w", run=tmp_path / "run", steps=4, changed=SMALL,
            recipe=short(),
        )  # fmt: skip
    assert world.card is not None and set(world.card["not_measured"]) == {"trust", "fidelity"}
    assert load(tmp_path / "w").card == world.card


def test_train_is_a_function_and_a_package():
    import worldsim
    from worldsim.train.loop import fit

    assert worldsim.train.loop.fit is fit  # type: ignore[attr-defined]
    with pytest.raises(worldsim.WorldError, match="steps: expected at least 4"):
        worldsim.train(films(), out="nowhere", steps=1)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student" / "final.safetensors")


class Killed(BaseException):
    """As good as a signal."""


def test_a_killed_run_goes_on_to_the_same_bits(whole: Path, tmp_path: Path, monkeypatch):
    """Killed in its first stage, and again in its last one."""

    def run() -> None:
        train(films(), out=tmp_path / "world", run=tmp_path / "run", steps=12, **SETTINGS)

    step = loop.train_step
    for after in (2, 8):
        left = iter(range(after))

        def dies(run: loop.Run, loss_fn: loop.LossFn, left=left) -> dict[str, float]:
            if next(left, None) is None:
                raise Killed
            return step(run, loss_fn)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(loop, "train_step", dies)
            run()
    run()
    expected, resumed = tensors(whole), tensors(tmp_path / "run")
    assert all(torch.equal(expected[n], resumed[n]) for n in expected)


def test_another_budget_or_data_does_not_go_on(whole: Path, tmp_path: Path):
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    for data, steps, words in (
        (films(), 13, "steps was 12, is 13"),
        (films(chunks=17), 12, "data was"),
    ):
        with pytest.raises(WorldError, match=words):
            train(data, out=tmp_path / "b", run=run, steps=steps, **SETTINGS)
    (run / "run.json").write_text("[]")
    with pytest.raises(WorldError, match="expected the settings of a training run"):
        train(films(), out=tmp_path / "b", run=run, steps=12, **SETTINGS)


def test_a_budget_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each stage measures its step and trains for its share; nothing of the trials is left."""
    monkeypatch.setattr("worldsim.train.plan.LEAST_STEPS", 3)  # on a busy machine, too
    train(films(), out=tmp_path / "w", run=tmp_path / "run", hours=2 / 3600, **SETTINGS)
    plans = json.loads((tmp_path / "run" / "run.json").read_text())["plans"]
    assert list(plans) == ["vae", "forced", "teacher", "student"]
    assert all(p["steps"] >= 3 and p["step_seconds"] > 0 for p in plans.values())
    assert not list((tmp_path / "run").glob(".trial*"))


def test_a_slow_machine_shortens_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The stage goes on from its checkpoint, with fewer steps, and a later start knows of them."""
    monkeypatch.setattr("worldsim.pipeline.LOOK_EVERY", 0.2)
    monkeypatch.setattr("worldsim.train.plan.SLACK", 0.0)
    monkeypatch.setattr("worldsim.train.plan.LEAST_STEPS", 3)
    monkeypatch.setattr("worldsim.pipeline.measure_step", lambda *_: 0.0005)  # it is slower
    train(films(), out=tmp_path / "w", run=tmp_path / "run", hours=2 / 3600, **SETTINGS)
    plans = json.loads((tmp_path / "run" / "run.json").read_text())["plans"]
    assert any(plan["step_seconds"] > 0.0005 for plan in plans.values())
    for stage, plan in plans.items():
        assert read_checkpoint(tmp_path / "run" / stage / "checkpoint")[0] == plan["steps"]

"""Compiled worlds: one real program, and all that surrounds programs with the networks in it."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch

import worldsim
from tests.contracts import WorldContract, assert_close, assert_same, same
from tests.worlds import tiny_world, with_doubts
from worldsim.core import ActionSpec, WorldError, WorldModel, WorldState, row_keys
from worldsim.states import StateSpec
from worldsim.world import compiled as engine
from worldsim.world.compiled import CompiledWorld, compiled
from worldsim.world.fanned import FannedState
from worldsim.world.point import PointWorld


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be compiled runs as it is: compiling all of it would take minutes."""
    monkeypatch.setattr(engine, "_ahead_of_time", lambda task, *_: task)


@pytest.mark.usefixtures("uncompiled")
class TestCompiledWorld(WorldContract):
    tolerance = 1e-4
    many_steps = 10

    def make_world(self) -> WorldModel:
        return compiled(with_doubts(tiny_world(steps=2)), dtype="float32")


@pytest.mark.usefixtures("uncompiled")
def test_a_compiled_world_is_trusted_as_the_world_itself():
    world = with_doubts(tiny_world(steps=2))
    state, action = world.reset(row_keys([1, 2])), torch.zeros(2, 3)
    trusts = [w.step(state, action)[1].trust for w in (world, compiled(world, dtype="float32"))]
    assert same(*trusts) and not trusts[0].isnan().any()
    assert compiled(world).with_num_steps(1).step(state, action)[1].trust.isnan().all()
    unknown = compiled(world, dtype="float32").with_trust(None)
    bare = replace(state, uncertainty=state.uncertainty[:, :0, 0])
    assert isinstance(unknown, CompiledWorld) and unknown.step(bare, action)[1].trust.isnan().all()


class Package:
    """A stand-in for AOTInductor: a program's file holds a number, which it adds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        monkeypatch.setattr(torch.export, "export", lambda task, *_, **__: task)
        monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", self.compile)
        monkeypatch.setattr(torch._inductor, "aoti_load_package", self.load)

    def compile(self, task: Any, *, package_path: str, **_: object) -> None:
        self.made += 1
        self.task = task
        Path(package_path).write_text("0")

    def load(self, path: str) -> Any:
        more = int(Path(path).read_text())
        return lambda *given: self.task(*given) + more


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    monkeypatch.setenv("WORLDSIM_CACHE", str(tmp_path / "cache"))
    return Package(monkeypatch)


def test_a_program_is_made_once_and_kept(package: Package, tmp_path: Path):
    world = tiny_world()
    state = world.reset(row_keys([1, 2]))
    frames = compiled(world, dtype="float32").decode(state)
    assert (frames.int() - world.decode(state).int()).abs().max() <= 1
    again = compiled(world, dtype="float32").decode(state)
    assert same(again, frames) and package.made == 1
    names = sorted(p.suffix for p in (tmp_path / "cache").iterdir())
    assert names == [".pt2", ".sha256"]


def test_a_damaged_program_is_made_again(package: Package, tmp_path: Path):
    """Not run: of 14 with a flipped bit one computed something else without a word."""
    world = tiny_world()
    state = world.reset(row_keys([1, 2]))
    frames = compiled(world, dtype="float32").decode(state)
    (program,) = (tmp_path / "cache").glob("decode-*.pt2")
    (seal,) = (tmp_path / "cache").glob("decode-*.sha256")
    for made, harm in enumerate(
        (
            lambda: program.write_text("1"),
            lambda: program.write_text(""),
            lambda: seal.write_text("0" * 64),
            lambda: seal.unlink(),
            lambda: program.unlink(),
        ),
        2,
    ):
        harm()
        assert same(compiled(world, dtype="float32").decode(state), frames)
        assert package.made == made


@pytest.mark.usefixtures("uncompiled")
def test_bfloat16_narrows_what_multiplies_and_nothing_that_is_kept():
    world = tiny_world()
    narrow = compiled(world, dtype="bfloat16")
    state = world.reset(row_keys([1, 2]))
    assert_same(narrow.reset(row_keys([1, 2])), state)  # starts are encoded in float32
    a, b = (w.step(state, torch.zeros(2, 3))[0] for w in (world, narrow))
    assert [x.dtype for x in vars(a).values()] == [x.dtype for x in vars(b).values()]
    assert not same(a.latent, b.latent)
    assert_close(a, b, 0.1)
    assert all(p.dtype == torch.float32 for p in world.dynamics.parameters())


SPEED = StateSpec(names=("speed", "turn"), mean=(0.3, 1.0), std=(1.0, 2.0), change=(1.0, 0.5))


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("kind", ["text", "state", "nothing"])
def test_worlds_that_are_told_anything_else_or_nothing_step_in_bfloat16(kind: str):
    told = {"text": {"text": True}, "state": {"state": SPEED},
            "nothing": {"action": ActionSpec(kind="none")}}[kind]  # fmt: skip
    world = tiny_world(**told)
    narrow = compiled(world, dtype="bfloat16")
    state = world.reset(row_keys([1, 2]))
    if kind == "text":
        state = state.prompted(world.prompt(["night", "day"]), guidance=2.0)
    action = None if kind == "nothing" else torch.zeros(2, 3)
    assert_close(world.step(state, action)[0], narrow.step(state, action)[0], 0.2)


@pytest.mark.parametrize("kind", ["state", "text"])
def test_a_program_has_no_tensor_from_outside_of_its_network(
    kind: str, monkeypatch: pytest.MonkeyPatch
):
    """Those are lost when a program is frozen, and a world that has one runs uncompiled."""
    graphs: list[Any] = []

    def export(task: torch.nn.Module, given: tuple[torch.Tensor, ...], *_: Any) -> Any:
        graphs.append(torch.export.export(task, given, strict=False))
        return task

    monkeypatch.setattr(engine, "_ahead_of_time", export)
    world = tiny_world(state=SPEED) if kind == "state" else tiny_world(text=True)
    compiled(world, dtype="bfloat16").step(world.reset(row_keys([1, 2])), torch.zeros(2, 3))
    (graph,) = graphs
    assert not [name for name in graph.constants if "lifted_tensor" in name]


@pytest.mark.usefixtures("uncompiled")
def test_fanned_states_are_stepped_too():
    world = tiny_world()
    fast = compiled(world, dtype="float32")
    state, action = world.reset(row_keys([1, 2])), torch.zeros(6, 3)
    fanned, copied = fast.fan_out(state, 3), state.repeat(3)
    for _ in range(4):
        fanned, copied = fast.step(fanned, action)[0], world.step(copied, action)[0]
    assert type(fanned) is WorldState and isinstance(fast.fan_out(state, 3), FannedState)
    assert_close(fanned, copied, 1e-4)


@pytest.mark.parametrize(
    "failure", [RuntimeError("no working C++ compiler found"), PermissionError(13, "no working C")]
)
def test_without_a_compiler_it_warns_and_runs_all_the_same(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
):
    world = tiny_world()
    state = world.reset(row_keys([1]))

    def no_compiler(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", no_compiler)
    fast = compiled(world, dtype="bfloat16")
    with pytest.warns(RuntimeWarning, match="not compiled.*no working C"):
        frames = fast.decode(state)
    assert same(frames, world.decode(state)) and same(frames, fast.decode(state))
    assert not list((tmp_path / "cache").iterdir())


def test_an_error_of_our_own_is_raised(package: Package, monkeypatch: pytest.MonkeyPatch):
    """A slow world that warns of a missing compiler would hide it."""
    state = tiny_world().reset(row_keys([1]))

    def renamed(*_: object) -> str:
        raise FileNotFoundError("worldsim/core.py")

    def untraceable(*_: object, **__: object) -> None:
        raise RuntimeError("traced into something else")

    for place, name, error in (
        (CompiledWorld, "_name", renamed),
        (torch.export, "export", untraceable),
    ):
        with monkeypatch.context() as patch, pytest.raises((FileNotFoundError, RuntimeError)):
            patch.setattr(place, name, error)
            compiled(tiny_world(), dtype="float32").decode(state)


def test_a_program_belongs_to_its_weights_sizes_and_settings():
    def name(world: CompiledWorld, rows: int = 2) -> str:
        return world._name(("step", (rows, 3)), world._network("step"))

    world, other = compiled(tiny_world()), tiny_world()
    with torch.no_grad():
        other.dynamics.heads.reward.bias[0] += 1
    judged, sure = compiled(with_doubts(tiny_world())), compiled(with_doubts(tiny_world(), 1))
    names = {
        name(world), name(world, 3), name(compiled(other)), name(compiled(tiny_world(steps=2))),
        name(compiled(tiny_world(), dtype="float32")),
        name(compiled(tiny_world(), dtype="bfloat16")), name(judged), name(sure),
    }  # fmt: skip
    assert len(names) == 7 + (world.dtype not in ("float32", "bfloat16"))
    assert name(world) == name(compiled(tiny_world()))


@pytest.mark.usefixtures("uncompiled")
def test_environments_compile_on_request():
    world = tiny_world()
    env: Any = gymnasium.make("WorldSim-v0", world=world, compile=True, dtype="float32")
    plain: Any = gymnasium.make("WorldSim-v0", world=world)
    env, plain = env.unwrapped, plain.unwrapped
    assert isinstance(env.world, CompiledWorld) and not isinstance(plain.world, CompiledWorld)
    action = env.action_space.sample()
    again = pickle.loads(pickle.dumps(env))
    assert isinstance(again.world, CompiledWorld)
    frames = []
    for each in (env, plain, again):
        each.reset(seed=3)
        frames.append(torch.tensor(each.step(action)[0]).int())
    assert all((frames[0] - f).abs().max() <= 1 for f in frames)
    many: Any = gymnasium.make_vec("WorldSim-v0", 2, world=world, compile=True, dtype="bfloat16")
    assert many.unwrapped.world.dtype == "bfloat16"


def test_what_cannot_be_compiled_is_refused():
    with pytest.raises(WorldError, match="dtype: expected one of"):
        compiled(tiny_world(), dtype="float16")  # type: ignore[arg-type]
    with pytest.raises(WorldError, match="batch: expected at least 1, got 0"):
        compiled(tiny_world(), 0)
    with pytest.raises(WorldError, match="compile: .* has no networks"):
        gymnasium.make("WorldSim-v0", world=PointWorld(), compile=True)
    with pytest.raises(WorldError, match="dtype: expected None, as compile is False"):
        gymnasium.make("WorldSim-v0", world=tiny_world(), dtype="bfloat16")
    assert worldsim.compiled is compiled

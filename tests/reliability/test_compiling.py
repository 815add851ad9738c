"""A real program, made by the machine's own compiler: it says what the networks say."""

from pathlib import Path

import pytest
import torch

from tests.contracts import same
from tests.worlds import tiny_world
from worldsim.core import row_keys
from worldsim.world.compiled import compiled


@pytest.mark.nightly
def test_a_program_is_made_once_and_says_what_the_network_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLDSIM_CACHE", str(tmp_path))
    world = tiny_world()
    state, others = world.reset(row_keys([1, 2])), world.reset(row_keys([3, 4]))
    first = compiled(world, dtype="bfloat16")
    frames, more = first.decode(state), first.decode(others)
    assert same(frames, first.decode(state)) and not same(frames, more)
    assert (frames.int() - world.decode(state).int()).abs().max() <= 4
    (file,) = tmp_path.glob("decode-*.pt2")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("compiled again")

    with monkeypatch.context() as patch:
        patch.setattr(torch.export, "export", refuse)
        assert same(compiled(world, dtype="bfloat16").decode(state), frames)
    assert sorted(tmp_path.iterdir()) == [file, file.with_suffix(".sha256")]
    harmed = bytearray(file.read_bytes())
    harmed[len(harmed) // 2] ^= 1
    file.write_bytes(harmed)
    assert same(compiled(world, dtype="bfloat16").decode(state), frames)

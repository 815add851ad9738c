from threading import Thread, main_thread
from threading import enumerate as threads
from typing import Any

import numpy as np
import pytest
import torch

from tests.measured_data import stored
from worldsim.core import ActionSpec, WorldError
from worldsim.data import DatasetSpec, Episode, clips
from worldsim.data.clips import ClipLoader, Pool

SPEC = DatasetSpec(
    name="numbered", frame_shape=(8, 8, 3), fps=10.0, chunk=2, action=ActionSpec(kind="none")
)
CHUNK_BYTES = 2 * 8 * 8 * 3


def numbered(place: int, chunks: int) -> Episode:
    """Frame t of episode e is (e, t // 256, t % 256) in every pixel."""
    frames = np.zeros((2 * chunks, 8, 8, 3), np.uint8)
    times = np.arange(2 * chunks)
    frames[..., 0] = place
    frames[..., 1], frames[..., 2] = (x[:, None, None] for x in (times // 256, times % 256))
    return Episode(name=f"e{place}", frames=frames, chunk=2, fps=10.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory):
    lengths = (9, 30, 3, 200, 12, 4)
    folder = tmp_path_factory.mktemp("numbered")
    return stored(folder, SPEC, train=[numbered(i, n) for i, n in enumerate(lengths)])


def read(clips: torch.Tensor) -> np.ndarray[Any, Any]:
    """(B, frames, 2): episode and time, which all pixels must agree on."""
    flat = clips.flatten(1, 2)
    assert (flat == flat[:, :, :1, :1]).all()
    episode, high, low = flat[:, :, 0, 0].long().unbind(-1)
    return torch.stack([episode, 256 * high + low], -1).numpy()


@pytest.mark.parametrize("pool_bytes", [40 * CHUNK_BYTES, 10**9])
def test_clips_are_of_one_episode_and_the_same_in_every_run(data, pool_bytes: int):
    loader = ClipLoader(data, batch=4, length=4, seed=3, pool_bytes=pool_bytes)
    whole = [loader.clips(step) for step in range(120)]
    seen = np.concatenate([read(clips) for clips in whole])
    assert (seen[:, :, 0] == seen[:, :1, 0]).all(), "one episode a clip"
    assert (np.diff(seen[:, :, 1]) == 1).all(), "frames follow each other"
    assert (seen[:, 0, 1] % 2 == 0).all(), "clips begin where a chunk begins"
    assert set(seen[:, 0, 0]) == {0, 1, 3, 4, 5}, "every episode that is long enough"
    assert seen[:, :, 1].max() > 390 and seen[:, 0, 1].min() == 0, "from start to end"
    resumed = ClipLoader(data, batch=4, length=4, seed=3, pool_bytes=pool_bytes)
    for step in (119, 7, 60):
        assert torch.equal(resumed.clips(step), whole[step])
    other = ClipLoader(data, batch=4, length=4, seed=4, pool_bytes=pool_bytes)
    assert not torch.equal(other.clips(0), whole[0])


def test_memory_holds_the_pool_and_the_next_one_only(data):
    loader = ClipLoader(data, batch=4, length=4, pool_bytes=60 * CHUNK_BYTES)
    for step in range(0, 200, 3):
        loader.clips(step)
        held = [sum(map(len, f.result())) for f in loader._held.values()]
        assert len(held) <= 2 and sum(held) <= 60


def test_a_window_across_two_spans_of_a_long_episode_is_drawn_too(data):
    loader = ClipLoader(data.split("train"), batch=8, length=4, pool_bytes=40 * CHUNK_BYTES)
    firsts = {(e, t) for s in range(300) for e, t in read(loader.clips(s))[:, 0].tolist() if e == 3}
    assert len(firsts) > 0.95 * 197  # all first chunks of the episode of 200


def test_too_short_episodes_are_named(data):
    with pytest.raises(WorldError, match="an episode of 201 chunks or more in numbered, got 200"):
        ClipLoader(data, batch=1, length=201)


def test_what_is_decoded_ahead_does_not_outlive_the_program(data, monkeypatch: pytest.MonkeyPatch):
    over, decoded = Thread(target=print), []
    loader, frames = ClipLoader(data, batch=1, length=3), ClipLoader._frames
    monkeypatch.setattr(ClipLoader, "_frames", lambda *x: decoded.append(x) or frames(*x))
    monkeypatch.setattr(clips, "main_thread", lambda: over if decoded else main_thread())
    future = loader._begin(Pool(0, tuple(loader._spans)))
    for thread in (x for x in threads() if x.name == "clips"):
        thread.join()
    assert len(loader._spans) > 1 and len(decoded) == 1 and not future.done()

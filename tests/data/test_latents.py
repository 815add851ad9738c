import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.measured_data import SPEC, stored, stripes
from tests.worlds import tiny_world
from worldsim.data import DatasetError, NativeWriter
from worldsim.data import latents as module
from worldsim.data.latents import Workers, latent_cache
from worldsim.models.vae import to_float

LENGTHS = (7, 5, 9)


@pytest.fixture
def data(tmp_path: Path):
    episodes = [stripes(i, n, i == 1) for i, n in enumerate(LENGTHS)]
    unknown = np.arange(7) > 0
    episodes[0] = replace(episodes[0], known=unknown, rewards=None)
    return stored(tmp_path / "data", SPEC, train=episodes)


@pytest.fixture(scope="module")
def vae():
    return tiny_world().vae


def test_latents_on_disk_are_those_of_the_encoder(data, vae, tmp_path: Path):
    found = latent_cache(vae, data, tmp_path / "latents.safetensors")
    whole = found.latents[torch.arange(21)]
    first = 0
    for place, length in enumerate(LENGTHS):
        frames = torch.from_numpy(data.episode(place).frames[:])
        with torch.no_grad():
            wanted = vae.encode(to_float(frames)[None])[0].half()
        torch.testing.assert_close(whole[first : first + length], wanted, atol=2e-2, rtol=2e-2)
        first += length
    assert found.windows.lengths == LENGTHS
    assert found.known.tolist() == [False] + [True] * 20
    assert found.rewards_known.tolist() == [False] * 7 + [True] * 14
    assert found.continue_prob.tolist() == [1.0] * 11 + [0.0] + [1.0] * 9
    assert found.continue_known.all()


def test_clips_are_read_where_they_lie(data, vae, tmp_path: Path):
    found = latent_cache(vae, data, tmp_path / "latents.safetensors")
    clips = found.sample(5, 4, torch.Generator().manual_seed(0), (2, 3))
    rows = found.windows.sample(5, 4, torch.Generator().manual_seed(0), (2, 3))
    assert rows.min() >= 12
    assert torch.equal(clips.latents, found.latents[torch.arange(21)][rows].float())
    assert torch.equal(clips.actions, found.actions[rows])
    assert clips.known.shape == clips.rewards_known.shape == clips.continue_known.shape == (5, 4)


def test_encoding_goes_on_where_it_was_killed(data, vae, tmp_path: Path, monkeypatch):
    whole = latent_cache(vae, data, tmp_path / "a.safetensors")
    encode, seen = module.encode_episode, []

    def until_the_third(net, episode):
        seen.append(episode.name)
        if len(seen) == 4:
            yield next(iter(encode(net, episode)))[:2]
            raise KeyboardInterrupt
        yield from encode(net, episode)

    monkeypatch.setattr(module, "encode_episode", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        latent_cache(vae, data, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()
    seen.extend([""] * 9)
    again = latent_cache(vae, data, tmp_path / "b.safetensors")
    assert seen[13:] == [data.names[0], data.names[2]], "the shape, and what was not whole"
    rows = torch.arange(21)
    assert torch.equal(again.latents[rows], whole.latents[rows])


def test_other_data_are_encoded_anew_and_damage_is_found(data, vae, tmp_path: Path):
    file = tmp_path / "latents.safetensors"
    latent_cache(vae, data, file)
    other = stripes(1, 5, True)
    assert other.rewards is not None
    other.rewards[0] = 7.0  # corrected in place
    NativeWriter(data.folder, SPEC).write("train", other)
    data = NativeWriter(data.folder, SPEC).dataset()
    found = latent_cache(vae, data, file)
    assert found.rewards[7] == 7.0
    flat = bytearray(file.with_suffix(".bin").read_bytes())
    flat[len(flat) // 2] ^= 4
    file.with_suffix(".bin").write_bytes(flat)
    found = latent_cache(vae, data, file)
    with pytest.raises(DatasetError, match="latent 10: expected its checksum"):
        found.latents[torch.arange(21)]


def test_a_flipped_bit_beside_the_latents_is_noticed(data, vae, tmp_path: Path):
    file = tmp_path / "latents.safetensors"
    rewards = latent_cache(vae, data, file).rewards
    whole = file.read_bytes()
    place = whole.index(rewards.numpy().tobytes())
    file.write_bytes(whole[: place + 30] + bytes([whole[place + 30] ^ 4]) + whole[place + 31 :])
    with pytest.raises(DatasetError, match="columns: expected their checksum"):
        latent_cache(vae, data, file)


def test_a_file_of_somebody_else_s_is_not_deleted(data, vae, tmp_path: Path):
    (tmp_path / "latents.bin").write_text("mine")
    with pytest.raises(DatasetError, match="latents that worldsim made"):
        latent_cache(vae, data, tmp_path / "latents.safetensors")
    assert (tmp_path / "latents.bin").read_text() == "mine"


def test_many_encode_together_what_one_would(data, vae, tmp_path: Path):
    """The same bytes, whatever the number; threads stand in for processes."""
    latent_cache(vae, data, tmp_path / "one.safetensors")
    for count in (2, 5):  # more than there are episodes
        barrier, file = threading.Barrier(count), tmp_path / f"{count}.safetensors"

        def work(rank: int, count=count, barrier=barrier, file=file) -> None:
            latent_cache(vae, data, file, Workers(rank, count, lambda: (barrier.wait(), None)[1]))

        with ThreadPoolExecutor(count) as pool:
            list(pool.map(work, range(count)))
        for suffix in (".safetensors", ".bin"):
            one = (tmp_path / "one.safetensors").with_suffix(suffix).read_bytes()
            assert file.with_suffix(suffix).read_bytes() == one
    assert not list(tmp_path.glob("*-of-*"))

import pytest
import torch

from tests.worlds import scramble
from worldsim.models.vae import SpacetimeVAE, VAEConfig, to_bytes, to_float
from worldsim.nn.conv import ResBlock


def make(chunk: int = 2) -> SpacetimeVAE:
    torch.manual_seed(0)
    vae = SpacetimeVAE(VAEConfig(chunk=chunk, channels=4, widths=(16, 16), blocks=(1, 1)))
    scramble(vae)
    return vae.requires_grad_(False)


def test_a_decoder_of_its_own_size_leaves_the_encoder_alone():
    plain = make()
    config = VAEConfig(
        channels=4, widths=(16, 16), blocks=(1, 1),
        decoder_widths=(8, 24), decoder_blocks=(2, 0), decoder_reach=1,
    )  # fmt: skip
    light, video = SpacetimeVAE(config), torch.rand(1, 4, 16, 24, 3)
    light.encoder.load_state_dict(plain.encoder.state_dict())
    latents = light.encode(video)
    assert torch.equal(latents, plain.encode(video))
    assert light.decode(latents).shape == video.shape
    ends = [m for m in light.decoder.body if isinstance(m, torch.nn.Conv2d)]
    assert [(m.in_channels, m.kernel_size[0]) for m in ends] == [(8, 3), (24, 1), (8, 1)]
    assert sum(isinstance(m, ResBlock) for m in light.decoder.body) == 2


@pytest.mark.parametrize("chunk", [2, 4])
@pytest.mark.parametrize("size", [(56, 64), (24, 16), (8, 40)])
@pytest.mark.parametrize("frames", [1, 4, 7])
def test_any_size_and_duration(chunk: int, size: tuple[int, int], frames: int):
    vae = make(chunk)
    latents = vae.encode(torch.rand(2, frames, *size, 3))
    count = -(-frames // chunk)
    assert latents.shape == (2, count, size[0] // 8, size[1] // 8, 4)
    assert vae.decode(latents).shape == (2, count * chunk, *size, 3)


def test_sides_must_divide_by_eight():
    with pytest.raises(ValueError, match="divide by 8, got 20x64"):
        make().encode(torch.rand(1, 2, 20, 64, 3))


def test_a_frame_is_a_video_that_stands_still():
    vae, frame = make(), torch.rand(1, 1, 16, 16, 3)
    assert torch.equal(vae.encode(frame), vae.encode(frame.expand(1, 2, 16, 16, 3)))


def test_nothing_sees_the_future():
    vae, video = make(), torch.rand(1, 8, 16, 16, 3)
    changed = video.clone()
    changed[:, 4:] = 0
    a, b = vae.encode(video), vae.encode(changed)
    assert torch.equal(a[:, :2], b[:, :2]) and not torch.equal(a[:, 2], b[:, 2])
    z = torch.randn(1, 4, 2, 2, 4)
    moved = z.clone()
    moved[:, 2:] = 0
    a, b = vae.decode(z), vae.decode(moved)
    assert torch.equal(a[:, :4], b[:, :4]) and not torch.equal(a[:, 4:6], b[:, 4:6])


def test_a_stream_remembers_one_chunk():
    vae, video = make(), torch.rand(1, 8, 16, 16, 3)
    whole = vae.encode(video)
    assert torch.allclose(vae.encode(video[:, 4:])[:, 1:], whole[:, 3:], atol=1e-5)
    assert not torch.allclose(vae.encode(video[:, 6:]), whole[:, 3:], atol=1e-3)
    assert torch.allclose(vae.decode(whole[:, 2:])[:, 2:], vae.decode(whole)[:, 6:], atol=1e-5)


def test_normalisation_cancels_between_encode_and_decode():
    vae, video = make(), torch.rand(1, 4, 16, 16, 3)
    plain = vae.decode(vae.encode(video))
    vae.mean.fill_(0.3)
    vae.std.fill_(2.0)
    assert torch.allclose(vae.decode(vae.encode(video)), plain, atol=1e-5)


def test_posterior_sample_and_divergence():
    posterior = make().posterior(torch.rand(1, 2, 16, 16, 3))
    g = torch.Generator().manual_seed(0)
    draws = torch.stack(
        [posterior.sample(torch.randn(posterior.mean.shape, generator=g)) for _ in range(2000)]
    )
    assert torch.allclose(draws.mean(0), posterior.mean, atol=0.15)
    assert torch.allclose(draws.std(0), (0.5 * posterior.logvar).exp(), rtol=0.15)
    assert posterior.kl() >= 0


def test_bytes_round_trip():
    frames = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16, 1).expand(1, 1, 16, 16, 3)
    assert torch.equal(to_bytes(to_float(frames)), frames)
    assert to_bytes(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]

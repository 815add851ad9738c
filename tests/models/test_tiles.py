"""A frame in tiles is the whole frame, up to rounding."""

from dataclasses import replace

import pytest
import torch

from tests.worlds import scramble
from worldsim.models import tiles
from worldsim.models.vae import SpacetimeVAE, VAEConfig

CONFIG = VAEConfig(channels=4, widths=(16, 16), blocks=(2, 1))


@torch.no_grad()
@pytest.mark.parametrize(
    "config",
    [CONFIG, replace(CONFIG, decoder_widths=(16, 24), decoder_blocks=(3, 0), decoder_reach=1)],
)
def test_tiles_give_what_the_whole_gives(
    config: VAEConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = SpacetimeVAE(config)
    scramble(vae)
    video = torch.rand(1, 4, 8 * 19, 8 * 23, 3) * 2 - 1
    whole = vae.encode(video)
    frames = vae.decode(whole)
    sizes: list[int] = []
    body = vae.encoder.body.forward
    monkeypatch.setattr(tiles.in_tiles, "__kwdefaults__", {"tile": 8})
    monkeypatch.setattr(
        vae.encoder.body, "forward", lambda x: sizes.append(x[0, 0].numel()) or body(x)
    )
    tiled = vae.encode(video)
    reach = vae.encoder.reach
    assert len(sizes) == 2 * 3 * 3 and max(sizes) <= (2 * (8 + 2 * reach)) ** 2
    torch.testing.assert_close(tiled, whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(vae.decode(whole), frames, atol=1e-4, rtol=1e-4)
    vae.encoder.reach -= 2  # less than it takes shows at the seams
    assert (vae.encode(video) - whole).abs().max() > 1e-3

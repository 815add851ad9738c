"""How fast training data come from disk, and what memory they take as they grow tenfold.

    python -m benchmarks.data

Each measurement is a process of its own: a VAE of preset tiny trains on clips of frames, then clips
of latents are drawn as the dynamics' training draws them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from tqdm import tqdm

from worldsim.core import ActionSpec
from worldsim.data import DatasetSpec, Episode, NativeDataset, NativeWriter
from worldsim.data.clips import ClipLoader
from worldsim.data.latents import LatentFile
from worldsim.data.windows import Windows
from worldsim.diffusion.draws import Draws
from worldsim.evaluate.report import write_card
from worldsim.flags import refuse_repeated
from worldsim.presets import SIZES
from worldsim.store.provenance import provenance
from worldsim.train.loop import FitConfig
from worldsim.train.vae import VAETrainingConfig, new_vae, vae_losses

from . import RESULTS

SIDE, CHUNK, CHUNKS = 64, 2, 200
BATCH, LENGTH, STEPS = 16, 3, 40
POOL = 2**26  # bytes of frames in memory: neither data fit
LATENT = (8, 8, 16)


def main(episodes: int = 10, growth: int = 10, out: Path | None = None) -> None:
    """Measure on `episodes` and on `growth` times as many.

    Args:
        episodes: of 200 chunks of two frames 64x64.
        growth: how many times larger the larger data are.
        out: the JSON file; benchmarks/results/data.json by default.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as root:
        for name, count in (("base", episodes), ("grown", episodes * growth)):
            folder = Path(root) / name
            record(folder, count)
            command = [sys.executable, "-m", "benchmarks.data", "measure", str(folder)]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name] = json.loads(run.stdout.splitlines()[-1])
            print(name, found[name])
    ratio = found["grown"]["rss_mib"] / found["base"]["rss_mib"]
    speed = found["grown"]["loader_clips_s"] / found["grown"]["training_clips_s"]
    print(f"RSS grown / base {ratio:.3f}; loader / training step {speed:.1f}")
    figures = {"rss_ratio": ratio, "loader_over_training": speed}
    write_card(found | figures | {"provenance": provenance()}, out or RESULTS / "data.json")


def record(folder: Path, episodes: int) -> None:
    """Drifting gradients with some noise, and a file of latents of as many chunks."""
    spec = DatasetSpec(
        name="drift", frame_shape=(SIDE, SIDE, 3), fps=20.0, chunk=CHUNK,
        action=ActionSpec(kind="none"),
    )  # fmt: skip
    writer, rng = NativeWriter(folder, spec), np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    for place in tqdm(range(episodes), desc="writing"):
        t = np.arange(CHUNK * CHUNKS)[:, None, None, None] + 37 * place
        wave = np.stack([x + y, x - y, 2 * x], -1) * 0.1 + t * 0.05
        noise = rng.integers(0, 4, (CHUNK * CHUNKS, SIDE, SIDE, 3))
        frames = (127 + 90 * np.sin(wave) + noise).astype(np.uint8)
        writer.write("train", Episode(name=f"e{place}", frames=frames, chunk=CHUNK, fps=20.0))
    with (folder / "latents.bin").open("wb") as file:
        for _ in range(episodes):
            file.write(rng.standard_normal((CHUNKS, *LATENT)).astype(np.float16).tobytes())


def measure(folder: Path) -> None:
    """Print figures of one dataset as JSON."""
    data = NativeDataset(folder)
    loader = ClipLoader(data, batch=BATCH, length=LENGTH, pool_bytes=POOL)
    loader_rate = _rate(lambda step: loader.clips(step))
    vae, config = new_vae(SIZES["tiny"]().vae), VAETrainingConfig(fit=FitConfig(steps=1))

    def step(number: int) -> None:
        clips = loader.clips(STEPS + number).flatten(1, 2)
        losses = vae_losses(vae, clips / 127.5 - 1, config, Draws(0, number, range(BATCH)))
        sum(v for k, v in losses.items() if not k.startswith("_")).backward()  # type: ignore[union-attr]

    training_rate, latent_rate = _rate(step), _latents(folder, len(data))
    print(json.dumps({
        "episodes": len(data), "frames_mib": sum(data.lengths) * CHUNK * SIDE * SIDE * 3 / 2**20,
        "loader_clips_s": loader_rate, "training_clips_s": training_rate,
        "latent_clips_s": latent_rate, "rss_mib": _rss(),
    }))  # fmt: skip


def _rate(step: Any) -> float:
    step(0)
    begun = time.perf_counter()
    for number in range(1, STEPS):
        step(number)
    return (STEPS - 1) * BATCH / (time.perf_counter() - begun)


def _latents(folder: Path, episodes: int) -> float:
    """Clips of 12 latents a second."""
    path, size = folder / "latents.bin", 2 * int(np.prod(LATENT))
    with path.open("rb") as file:
        crc = torch.tensor([zlib.crc32(row) for row in iter(lambda: file.read(size), b"")])
    latents, windows = LatentFile(path, (len(crc), *LATENT), crc, ""), Windows((CHUNKS,) * episodes)
    g = torch.Generator().manual_seed(0)
    return _rate(lambda step: latents[windows.sample(BATCH, 12, g)])


def _rss() -> float:
    """The most memory that this process held, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(Path(sys.argv[2]))
    else:
        tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))

"""Recordings as latents: what the dynamics model trains on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from worldsim.files import atomic_path
from worldsim.models.vae import SpacetimeVAE, to_float
from worldsim.nn.dtype import narrow

from .dataset import Dataset
from .loader import Recording, Windows, load_recording


@dataclass(frozen=True)
class LatentRecording:
    """Episodes as normalised latents, N chunks in all.

    Attributes:
        latents: (N, h, w, C) float16.
        actions, rewards, continue_prob, windows: as in `Recording`.
    """

    latents: Tensor
    actions: Tensor
    rewards: Tensor
    continue_prob: Tensor
    windows: Windows


@torch.no_grad()
def encode_recording(vae: SpacetimeVAE, recording: Recording, *, rows: int = 256) -> Tensor:
    """Latents (N, h, w, C) float16 of all chunks, each episode encoded as one video."""
    parts: list[Tensor] = []
    first = 0
    for length in tqdm(recording.windows.lengths, desc="encoding", leave=False):
        chunks = recording.frames[first : first + length]
        for a in range(0, length, rows):
            before = min(a, 1)  # the encoder looks one chunk back
            piece = rearrange(to_float(chunks[a - before : a + rows]), "n c ... -> 1 (n c) ...")
            with narrow(piece.device):
                parts.append(vae.encode(piece)[0, before:].half())
        first += length
    return torch.cat(parts)


def latent_cache(vae: SpacetimeVAE, data: Dataset, file: Path) -> LatentRecording:
    """Latents of these episodes, from `file` if it was made by this VAE from these episodes."""
    mark = _fingerprint(vae, data)
    if not (file.exists() and _mark(file) == mark):
        recording = load_recording(data)
        tensors = {
            "latents": encode_recording(vae, recording),
            "actions": recording.actions,
            "rewards": recording.rewards,
            "continue_prob": recording.continue_prob,
            "lengths": torch.tensor(recording.windows.lengths),
        }
        with atomic_path(file) as part:
            save_file(tensors, part, metadata={"mark": mark})
    with safe_open(file, "pt") as stored:
        get = stored.get_tensor
        z, a, r, c = (get(n) for n in ("latents", "actions", "rewards", "continue_prob"))
        return LatentRecording(z, a, r, c, Windows(tuple(get("lengths").tolist())))


def _mark(file: Path) -> str:
    """What a cache was made from; nothing if it is damaged."""
    try:
        with safe_open(file, "pt") as stored:
            return (stored.metadata() or {}).get("mark", "")
    except SafetensorError:
        return ""


def _fingerprint(vae: SpacetimeVAE, data: Dataset) -> str:
    digest = hashlib.sha256(data.fingerprint().encode())
    for value in vae.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()

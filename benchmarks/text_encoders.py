"""Which attributes can be read from a prompt's encoding, by kinds of encoder and of wording."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from worldsim.models.text import TextConfig, TextEncoder, tokens_of
from worldsim.recipes.car_racing.captions import ATTRIBUTES, HELD_OUT, Wording, caption

CANDIDATES = {
    "hashed n-grams": TextConfig(kind="ngrams", depth=0, length=64),
    "words, 2 layers": TextConfig(kind="words", depth=2),
    "frozen vectors, 2 layers": TextConfig(depth=2, noise=0.0),
    "frozen vectors, 1 layer": TextConfig(depth=1, noise=0.0),
    "frozen vectors, no layer": TextConfig(depth=0, noise=0.0),
    "frozen vectors, 1 layer, noise": TextConfig(depth=1, noise=1.0),
    "frozen vectors, no layer, noise": TextConfig(depth=0, noise=1.0),
}
UNSAID = -1


@dataclass(frozen=True)
class Captions:
    """Tokens (N, L) and what they say, (N, attributes) int64, `UNSAID` where they do not."""

    tokens: Tensor
    truth: Tensor


def drawn(count: int, wording: Wording, seed: int, config: TextConfig, held_out: bool) -> Captions:
    """Captions of drawn truths; of held-out combinations, said whole, or of all others."""
    rng, texts, truths = np.random.default_rng(seed), [], []
    while len(texts) < count:
        truth = {name: str(rng.choice(values)) for name, values in ATTRIBUTES.items()}
        says = None
        if held_out:
            pair = HELD_OUT[int(rng.integers(len(HELD_OUT)))]
            truth, says = truth | pair, frozenset(pair)
        elif any(all(truth[k] == v for k, v in pair.items()) for pair in HELD_OUT):
            continue
        text, said = caption(rng, truth, wording=wording, says=says)
        texts.append(text)
        truths.append([v.index(truth[k]) if k in said else UNSAID for k, v in ATTRIBUTES.items()])
    return Captions(tokens_of(texts, config, check=False), torch.tensor(truths))


class Reader(nn.Module):
    """An encoder and a linear reading of each attribute from all that it gives."""

    def __init__(self, config: TextConfig, dim: int, count: int) -> None:
        super().__init__()
        self.encoder = TextEncoder(config, dim, count)
        self.heads = nn.ModuleList(
            nn.Linear(count * dim, len(values)) for values in ATTRIBUTES.values()
        )

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Logits (B, values) of each attribute."""
        flat = self.encoder(tokens).flatten(1)
        return [head(flat) for head in self.heads]


def fit(config: TextConfig, *, dim: int, count: int, steps: int, batch: int, seed: int) -> Reader:
    """A reader trained on training captions."""
    torch.manual_seed(seed)
    reader, data = Reader(config, dim, count), drawn(6000, "train", seed, config, False)
    optimizer = torch.optim.AdamW(reader.parameters(), 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in trange(steps, leave=False, mininterval=10):
        rows = torch.randint(len(data.tokens), (batch,))
        tokens, truth = data.tokens[rows], data.truth[rows]
        found = reader(tokens[:, : int((tokens > 0).sum(1).max())])
        losses = [
            F.cross_entropy(x, truth[:, i], ignore_index=UNSAID, reduction="sum")
            for i, x in enumerate(found)
        ]
        loss = torch.stack(losses).sum() / (truth != UNSAID).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return reader.eval()


@torch.no_grad()
def share_right(reader: Reader, data: Captions) -> float:
    """Of all attributes that are said."""
    right = torch.stack([x.argmax(-1) for x in reader(data.tokens)], 1) == data.truth
    return float(right[data.truth != UNSAID].float().mean())


def encoders(*, steps: int = 300, seeds: int = 1, quick: bool = False) -> list[dict[str, Any]]:
    """A row a candidate: share of attributes that are read right, mean and spread over seeds."""
    steps, seeds = (20, 1) if quick else (steps, seeds)
    rows = []
    for name, config in CANDIDATES.items():
        tests = {
            "seen": drawn(1000, "train", 901, config, False),
            "held-out combination": drawn(1000, "train", 902, config, True),
            "paraphrase": drawn(1000, "paraphrase", 903, config, False),
            "word in no caption": drawn(1000, "unseen", 904, config, False),
        }
        found: dict[str, list[float]] = {key: [] for key in tests}
        begun = time.process_time()
        for seed in range(seeds):
            reader = fit(config, dim=128, count=5, steps=steps, batch=64, seed=seed)
            for key, data in tests.items():
                found[key].append(share_right(reader, data))
        weights = sum(p.numel() for p in reader.encoder.parameters())
        row = {key: float(np.mean(values)) for key, values in found.items()}
        spread = {f"{key}, spread": float(np.ptp(values)) for key, values in found.items()}
        seconds = (time.process_time() - begun) / seeds
        rows.append({"encoder": name, "weights": weights, **row, **spread, "cpu_seconds": seconds})
        print(rows[-1], flush=True)
    return rows

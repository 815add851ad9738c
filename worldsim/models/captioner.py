"""Video to words: what a clip shows, in the words of the captions that it learned from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

UNITS = re.compile(r"\w+|[^\w\s]")
PAD, BEGIN, END = range(3)
SIDE, FRAMES = 32, 4  # of what is seen of a clip
CHANGE = 4.0  # how much larger changes are shown than they are: they are small


@dataclass(frozen=True)
class Vocabulary:
    """Words and marks that captions are made of; a caption is numbers of them, then `END`."""

    units: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Vocabulary:
        """All that occurs in captions."""
        return cls(tuple(sorted({unit for text in texts for unit in UNITS.findall(text)})))

    def __len__(self) -> int:
        return len(self.units) + 3

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Captions (B, L) int64, `BEGIN` first, `PAD` after `END`; unknown words are left out."""
        number = {unit: i + 3 for i, unit in enumerate(self.units)}
        rows = [[number[u] for u in UNITS.findall(text) if u in number] for text in texts]
        rows = [torch.tensor([BEGIN, *row, END]) for row in rows]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)

    def decode(self, ids: Sequence[int]) -> str:
        """A caption from numbers, up to `END`."""
        text = ""
        for i in ids:
            if i == END:
                break
            if i > END:
                unit = self.units[i - 3]
                mark = not unit[0].isalnum() and unit[0] != "_"
                text += unit if mark or not text else f" {unit}"
        return text


class Captioner(nn.Module):
    """Moments of a clip -> the next word of its caption, given those before it.

    A convolutional stem looks at a frame of each and at what changes to the one after it, as rain
    and snow are told by how they fall; then a Transformer layer looks, and a small Transformer
    decoder tells.
    """

    def __init__(self, words: int, dim: int = 96, depth: int = 2, longest: int = 64) -> None:
        super().__init__()
        self.longest = longest
        self.stem = nn.Sequential(
            nn.Conv2d(6, dim // 4, 3, 2, 1), nn.SiLU(), nn.Conv2d(dim // 4, dim // 2, 3, 2, 1),
            nn.SiLU(), nn.Conv2d(dim // 2, dim, 3, 2, 1),
        )  # fmt: skip
        places = FRAMES * (SIDE // 8) ** 2
        self.seen = nn.Parameter(0.02 * torch.randn(places, dim))
        how = {"dim_feedforward": 2 * dim, "dropout": 0.0, "batch_first": True, "norm_first": True}
        self.look = nn.TransformerEncoderLayer(dim, 4, **how)
        self.word = nn.Embedding(words, dim, padding_idx=PAD)
        self.place = nn.Parameter(0.02 * torch.randn(longest, dim))
        self.tell = nn.ModuleList(nn.TransformerDecoderLayer(dim, 4, **how) for _ in range(depth))
        self.out = nn.Linear(dim, words)

    def see(self, frames: Tensor) -> Tensor:
        """(B, FRAMES, SIDE, SIDE, 6) uint8, each frame and the next -> tokens (B, places, dim)."""
        x = rearrange(frames.float() / 127.5 - 1, "b t h w (n c) -> n (b t) c h w", n=2)
        x = torch.cat([x[0], CHANGE * (x[1] - x[0])], 1)
        x = rearrange(self.stem(x), "(b t) d h w -> b (t h w) d", t=frames.shape[1])
        return self.look(x + self.seen)

    def forward(self, seen: Tensor, ids: Tensor) -> Tensor:
        """Logits (B, L, words) of the word after each of `ids` (B, L), from what is `seen`."""
        count = ids.shape[1]
        x = self.word(ids) + self.place[:count]
        later = torch.ones(count, count, dtype=torch.bool, device=ids.device).triu(1)
        for layer in self.tell:
            x = layer(x, seen, tgt_mask=later)
        return self.out(x)

    def loss(self, frames: Tensor, ids: Tensor) -> Tensor:
        """Mean cross-entropy of captions (B, L)."""
        logits, following = self(self.see(frames), ids[:, :-1]), ids[:, 1:]
        return F.cross_entropy(logits.flatten(0, 1), following.flatten(), ignore_index=PAD)

    @torch.no_grad()
    def say(
        self, frames: Tensor, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> list[list[int]]:
        """Captions of clips: the likeliest words, or drawn where `temperature` is above 0."""
        seen, ids = self.see(frames), torch.full((len(frames), 1), BEGIN)
        for _ in range(self.longest - 1):
            logits = self(seen, ids)[:, -1]
            logits[:, :END] = -torch.inf
            if temperature:
                chance = (logits / temperature).softmax(-1)
                word = torch.multinomial(chance, 1, generator=generator)
            else:
                word = logits.argmax(-1, keepdim=True)
            ids = torch.cat([ids, word], 1)
            if bool((ids == END).any(1).all()):
                break
        return ids[:, 1:].tolist()

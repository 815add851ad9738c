"""Prompts as tokens, and these as vectors: a small encoder that learns beside the network.

Its words are learned from the captions alone ("words", "ngrams"), or they are the frozen vectors of
a public table ("static"), so that words which no caption had lie near those that had: the token
embeddings of the package `wordllama` (MIT), which its wheel brings. What is best is measured by
`python -m benchmarks.text --rows encoders`.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldsim.errors import WorldError

WORD = re.compile(r"[^\W_]+")
STATIC = "weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"
STATIC_DIM = 256
PIECES = 3.5  # tokens a word, on average, from which on a prompt is hardly English


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How a prompt is read.

    Attributes:
        kind: "static", frozen vectors under the encoder; "words", learned ones; "ngrams", learned
            ones of words and pairs of words.
        length: tokens that are read; a longer prompt is cut.
        depth: Transformer layers between the vectors and the queries that read them.
        heads: attention heads.
        buckets: rows of a learned table, in which words share places by their hash.
        noise: spread of what is added to frozen vectors in training, over their own length, so that
            a word's neighbours mean what it means.
    """

    kind: Literal["static", "words", "ngrams"] = "static"
    length: int = 40
    depth: int = 1
    heads: int = 4
    buckets: int = 4096
    noise: float = 1.0

    def __post_init__(self) -> None:
        least = {"length": 1, "depth": 0, "heads": 1, "buckets": 2}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name}: expected at least {bound}, got {getattr(self, name)}")
        if self.kind not in ("static", "words", "ngrams"):
            raise ValueError(f"kind: expected static, words or ngrams, got {self.kind!r}")


# --- Tokens ---------------------------------------------------------------------------------------


def tokens_of(texts: Sequence[str], config: TextConfig, *, check: bool = True) -> Tensor:
    """Prompts as (B, length) int64, 0 past the end.

    check: raise WorldError for what is no text, empty or in another script, and warn about what is
        cut or hardly English; captions are taken as they are.
    """
    rows = []
    for text in texts:
        words = _words(text, check=check)
        ids = _static_ids(" ".join(words)) if config.kind == "static" else _hashed(words, config)
        if check and len(ids) > config.length:
            message = f"text: {len(ids)} tokens, of which the first {config.length} are read"
            warnings.warn(f"{message}: {text[:60]!r}...", stacklevel=3)
        elif check and config.kind == "static" and len(ids) > PIECES * len(words):
            message = f"text: hardly an English word in {text[:60]!r}; what comes may be anything"
            warnings.warn(message, stacklevel=3)
        rows.append(F.pad(torch.tensor(ids[: config.length]), (0, config.length))[: config.length])
    return torch.stack(rows).long() if rows else torch.zeros(0, config.length).long()


def _words(text: Any, *, check: bool) -> list[str]:
    if not isinstance(text, str):
        raise WorldError(f"text: expected words, got {type(text).__name__}; give a string")
    words = WORD.findall(unicodedata.normalize("NFKC", text).lower())
    foreign = [w for w in words if any(c.isalpha() and not _latin(c) for c in w)]
    if check and foreign:
        raise WorldError(
            f"text: expected English, in Latin letters, got {foreign[0][:40]!r}; say it in English"
        )
    if check and not words:
        raise WorldError(f"text: expected words, got {text[:40]!r}; leave text out to say nothing")
    return words


def _latin(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith("LATIN")


def _hashed(words: list[str], config: TextConfig) -> list[int]:
    pairs = [" ".join(p) for p in zip(words[:-1], words[1:], strict=True)]
    units = words + pairs if config.kind == "ngrams" else words
    return [crc32(unit.encode()) % (config.buckets - 1) + 1 for unit in units]


def _static_ids(text: str) -> list[int]:
    return [i + 1 for i in static_tokenizer().encode(text, add_special_tokens=False).ids]


@lru_cache(maxsize=1)
def static_tokenizer() -> Any:
    """The tokenizer of the frozen vectors."""
    path = _static_path(STATIC[1])
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


@lru_cache(maxsize=4)
def static_table(device: torch.device | str = "cpu") -> Tensor:
    """The frozen vectors, (N + 1, 256) float16 of unit length, zeros first for padding."""
    from safetensors.torch import load_file

    table = next(iter(load_file(_static_path(STATIC[0])).values())).float()
    return F.pad(F.normalize(table, dim=-1), (0, 0, 1, 0)).half().to(device)


def _static_path(name: str) -> Path:
    spec = find_spec("wordllama")  # its own loader wants a download; the files are in its wheel
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / name
    if path is None or not path.exists():
        raise WorldError(
            "text: expected the package wordllama, whose word vectors this world reads, got none; "
            "pip install 'worldsim[text]'"
        )
    return path


# --- The encoder ----------------------------------------------------------------------------------


class TextEncoder(nn.Module):
    """Tokens of a prompt -> a few vectors, each read by a query of its own.

    Without layers a query weighs word by word (entity-to-sentence attention as in EMMA, Hanjie et
    al. 2021, 2101.07393); with them words see their neighbours before.
    """

    def __init__(self, config: TextConfig, dim: int, count: int) -> None:
        """dim: width of the `count` vectors that come out."""
        super().__init__()
        self.config, self.dim = config, dim
        self.heads = max(h for h in range(1, config.heads + 1) if dim % h == 0)
        learned = config.kind != "static"
        self.table = nn.Embedding(config.buckets, dim, padding_idx=0) if learned else None
        self.project = None if learned else nn.Linear(STATIC_DIM, dim)
        self.place = nn.Parameter(0.02 * torch.randn(config.length, dim))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, self.heads, 2 * dim, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(config.depth)
        )
        self.queries = nn.Parameter(torch.randn(count, dim) * dim**-0.5)
        self.kv = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, L) int64, L at most `length` -> (B, count, dim)."""
        x, absent = self._embedded(ids), ids == 0
        first = torch.arange(ids.shape[1], device=ids.device) == 0
        absent = absent & ~(first & ~ids.any(1, keepdim=True))  # an empty prompt is seen, too
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=absent)
        k, v = self.kv(x).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q = self.queries.unflatten(-1, (self.heads, -1)).transpose(0, 1)
        q = q.expand(len(ids), -1, -1, -1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=~absent[:, None, None])
        return self.out(y.transpose(1, 2).flatten(2))

    def _embedded(self, ids: Tensor) -> Tensor:
        place = self.place[: ids.shape[1]]
        if self.table is not None:
            return self.table(ids) + place
        assert self.project is not None
        frozen = F.embedding(ids, static_table(ids.device)).to(self.project.weight.dtype)
        if self.training and self.config.noise:
            frozen = frozen + self.config.noise * STATIC_DIM**-0.5 * torch.randn_like(frozen)
        return self.project(frozen * STATIC_DIM**0.5) + place

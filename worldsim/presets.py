"""Sizes of a world's networks, from about 1M parameters to the DiT-XL class, as functions.

A preset fixes no chunk: training takes the data's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from worldsim.core import WorldError
from worldsim.models.dit import DiTConfig
from worldsim.models.heads import HeadsConfig
from worldsim.models.text import TextConfig
from worldsim.models.vae import VAEConfig


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The networks of a world.

    Attributes:
        vae, dit, heads: their sizes.
        context: chunks that the next one is predicted from.
        text, text_tokens, encoder: how captions are read, where the data has any; see
            `ConditioningConfig`.
    """

    vae: VAEConfig
    dit: DiTConfig
    heads: HeadsConfig = HeadsConfig()
    context: int = 6
    text: int = 128
    text_tokens: int = 4
    encoder: TextConfig | None = None


def tiny() -> Sizes:
    """About 1M parameters in the DiT: two CPU cores and up to an hour."""
    return Sizes(
        vae=VAEConfig(widths=(32, 64), blocks=(1, 1)),
        dit=DiTConfig(dim=128, depth=4, heads=2, kv_heads=1, mlp=2),
        context=4,
        text_tokens=0,
    )


def small() -> Sizes:
    """About 4.5M in the DiT: two CPU cores and some hours, ships in 16 MB."""
    return Sizes(
        vae=VAEConfig(
            widths=(96, 192),
            blocks=(3, 1),
            decoder_widths=(64, 192),
            decoder_blocks=(3, 0),
            decoder_reach=1,
        ),
        dit=DiTConfig(dim=256, depth=6, heads=4, kv_heads=2, mlp=2),
    )


def medium() -> Sizes:
    """About 38M in the DiT, for one GPU and an hour."""
    return Sizes(
        vae=VAEConfig(widths=(128, 256), blocks=(4, 3)),
        dit=DiTConfig(dim=512, depth=10, heads=8, kv_heads=2, mlp=4),
        context=8,
    )


def base() -> Sizes:
    """About 117M in the DiT (the width and depth of DiT-B), for one GPU and a day."""
    return Sizes(
        vae=VAEConfig(widths=(192, 384), blocks=(4, 4)),
        dit=DiTConfig(dim=768, depth=14, heads=12, kv_heads=3, mlp=4),
        context=8,
    )


def xl() -> Sizes:
    """About 486M in the DiT: the width and depth of DiT-XL (adaLN shared by all blocks)."""
    return Sizes(
        vae=VAEConfig(widths=(256, 512), blocks=(4, 6), channels=32),
        dit=DiTConfig(dim=1152, depth=28, heads=16, kv_heads=4, time_every=4, mlp=4),
        context=16,
    )


SIZES = {f.__name__: f for f in (tiny, small, medium, base, xl)}
"""By the names the command line knows."""


def sizes_of(preset: str, **changes: Any) -> Sizes:
    """A preset's networks with some sizes changed; a change that is None changes nothing.

    changes: fields of `DiTConfig` (dim, depth, heads, kv_heads, time_every, patch, mlp), of
        `VAEConfig` (channels, widths, blocks) and `context`.
    Raises WorldError for an unknown preset and for sizes that do not fit each other.
    """
    if preset not in SIZES:
        raise WorldError(f"preset: expected one of {list(SIZES)}, got {preset!r}")
    sizes, given = SIZES[preset](), {k: v for k, v in changes.items() if v is not None}
    if "heads" in given and "kv_heads" not in given:
        most = sizes.dit.kv_heads
        given["kv_heads"] = max(n for n in range(1, most + 1) if given["heads"] % n == 0)
    ours = {"context": sizes, "channels": sizes.vae, "widths": sizes.vae, "blocks": sizes.vae}
    vae = {k: v for k, v in given.items() if ours.get(k) is sizes.vae}
    if vae.keys() & {"widths", "blocks"}:
        vae |= {"decoder_widths": None, "decoder_blocks": None}
    dit = {k: v for k, v in given.items() if k not in ours}
    try:
        return replace(
            sizes,
            vae=replace(sizes.vae, **vae),
            dit=replace(sizes.dit, **dit),
            context=given.get("context", sizes.context),
        )
    except (TypeError, ValueError) as error:
        raise WorldError(f"preset {preset}: {error}") from error

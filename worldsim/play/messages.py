"""What the page may say to the server: closed dataclasses, read from strict JSON.

Every message is answered by exactly one: a frame, a file that was saved, or an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from worldsim.config import from_json, parse_json, value_from_json
from worldsim.core import WorldError

VERSION = 1
KEYS_HELD = 8  # more fingers than anybody has on a keyboard
TEXT_LIMIT = 4096  # bytes of a message without its picture
LARGEST_SEED = 2**53 - 1  # the largest whole number that JavaScript counts to


@dataclass(frozen=True, kw_only=True)
class Step:
    """Dream one step on: under held keys (newest last), explicit numbers, or the chosen policy."""

    keys: tuple[str, ...]
    action: tuple[float, ...] | None
    driver: Literal["keys", "policy"]

    def __post_init__(self) -> None:
        if len(self.keys) > KEYS_HELD or any(len(key) != 1 for key in self.keys):
            raise WorldError(f"keys: expected up to {KEYS_HELD} single characters")


@dataclass(frozen=True, kw_only=True)
class Reset:
    """Begin an episode.

    pixels: base64 of (n, H, W, 3) uint8 to begin with, "" for a stored start.
    real: begin with what the real environment shows, which goes on beside the dream.
    """

    seed: int
    pixels: str
    real: bool

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= LARGEST_SEED:
            raise WorldError(f"seed: expected 0 to {LARGEST_SEED}, got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class Rewind:
    """Go to a step of this episode; stepping on from there drops what came after it."""

    step: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw further steps in `num_steps` denoising steps, None for the world's own."""

    num_steps: int | None


@dataclass(frozen=True, kw_only=True)
class Save:
    """Keep the episode up to the present moment on the server's disk."""

    what: Literal["film", "data"]


@dataclass(frozen=True, kw_only=True)
class Choose:
    """Choose the policy whose next action is shown, and who acts where `driver` is "policy"."""

    policy: str


@dataclass(frozen=True, kw_only=True)
class Say:
    """Tell the world what to show from the next step on, "" for nothing."""

    text: str


Message = Step | Reset | Rewind | Sample | Save | Choose | Say
KINDS: dict[str, type[Message]] = {
    "step": Step, "reset": Reset, "rewind": Rewind, "sample": Sample, "save": Save,
    "choose": Choose, "say": Say,
}  # fmt: skip


def parse(text: str) -> tuple[Message, float]:
    """A message and the page's clock when it was sent (ms), or `WorldError`.

    {"v": 1, "type": "step", "time": 17.5, "keys": ["w"], "action": null, "driver": "keys"}
    """
    data = parse_json(text, "message")
    if not isinstance(data, dict) or data.get("v") != VERSION:
        raise WorldError(f"message: expected an object with v: {VERSION}; reload the page")
    kind, time = data.get("type"), data.get("time")
    if not isinstance(kind, str) or kind not in KINDS:
        raise WorldError(f"message.type: expected one of {list(KINDS)}")
    sent = value_from_json(float, time, "message.time")
    fields: dict[str, Any] = {k: v for k, v in data.items() if k not in ("v", "type", "time")}
    return from_json(KINDS[kind], fields, "message"), sent

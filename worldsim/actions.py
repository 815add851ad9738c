"""The actions of a world as data: kinds, ranges, checks, and their Gymnasium spaces."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from math import inf, prod
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from torch import Tensor

from .errors import WorldError

MOST_ENTRIES = 4096  # of an action
MOST_CHOICES = 2**16  # of an entry: each is a row of an embedding

ActionKind = Literal["continuous", "discrete", "multi_discrete", "multi_binary", "none"]


@dataclass(frozen=True, kw_only=True, repr=False)
class ActionSpec:
    """The actions of a world, in the environment's own numbers.

    Attributes:
        kind: "continuous" (a bounded box of floats, flattened), "discrete" (one of `n` choices),
            "multi_discrete" (one of `nvec[i]` choices for each entry), "multi_binary" (0 or 1 for
            each entry; `nvec` is all 2) or "none" (video without actions: the world runs by
            itself, and its only action is 0).
        low, high: bounds of each entry of a box.
        n: number of choices of a discrete action.
        start: the least discrete action; choices are `start` to `start + n - 1`.
        nvec: number of choices of each entry.
    """

    kind: ActionKind
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    n: int = 0
    start: int = 0
    nvec: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        pairs = zip(self.low, self.high, strict=False)
        bounded = len(self.low) == len(self.high) > 0 and all(_apart(a, b) for a, b in pairs)
        box, choice, several = bool(self.low or self.high), bool(self.n or self.start), self.nvec
        fits = {
            "continuous": bounded and not (choice or several),
            "discrete": self.n > 0 and not (box or several),
            "multi_discrete": bool(several) and min(several) > 0 and not (box or choice),
            "multi_binary": bool(several) and set(several) == {2} and not (box or choice),
            "none": not (box or choice or several),
        }
        if not fits.get(self.kind, False):
            raise WorldError(
                "action: expected continuous with low < high per entry, finite and apart in "
                "float32, discrete with n > 0, multi_discrete with nvec, multi_binary with nvec of "
                f"2s, or none, got {self}"
            )
        entries, choices = len(self.low) or len(self.nvec), max(self.nvec, default=self.n)
        far = abs(self.start) > 2**62
        if entries > MOST_ENTRIES or choices > MOST_CHOICES or far:
            raise WorldError(
                f"action: expected at most {MOST_ENTRIES} entries, {MOST_CHOICES} choices of each "
                f"and a start within 64 bits, got {entries}, {choices} and {self.start}"
            )

    @classmethod
    def from_space(cls, space: gymnasium.Space[Any]) -> ActionSpec:
        """The spec of a Gymnasium space; a box of several dimensions is flattened.

        Raises `WorldError` for a space that is neither a bounded Box, Discrete, MultiDiscrete of
        one dimension nor MultiBinary.
        """
        spaces = gymnasium.spaces
        match space:
            case spaces.Discrete():
                return cls(kind="discrete", n=int(space.n), start=int(space.start))
            case spaces.MultiBinary():
                return cls(kind="multi_binary", nvec=(2,) * prod(space.shape))
            case spaces.MultiDiscrete() if space.nvec.ndim == 1 and not np.any(space.start):
                return cls(kind="multi_discrete", nvec=tuple(map(int, space.nvec)))
            case spaces.Box() if space.is_bounded() and prod(space.shape):
                low, high = (tuple(map(float, x.ravel())) for x in (space.low, space.high))
                return cls(kind="continuous", low=low, high=high)
        raise WorldError(
            "action space: expected a bounded Box, Discrete, MultiDiscrete from 0 of one dimension "
            f"or MultiBinary, got {space}; wrap the environment in "
            "gymnasium.wrappers.TransformAction or RescaleAction"
        )

    def __repr__(self) -> str:
        """What says something: a field that is as it is by default does not."""
        told = {f.name: getattr(self, f.name) for f in fields(self)}
        told = {name: value for name, value in told.items() if value not in ((), 0)}
        return f"ActionSpec({', '.join(f'{name}={value!r}' for name, value in told.items())})"

    @property
    def is_discrete(self) -> bool:
        """Whether actions are whole numbers."""
        return self.kind != "continuous"

    @property
    def shape(self) -> tuple[int, ...]:
        """`(A,)` for boxes and several choices, `()` for one choice or none."""
        return {"continuous": (len(self.low),), "discrete": (), "none": ()}.get(
            self.kind, (len(self.nvec),)
        )

    @property
    def dtype(self) -> torch.dtype:
        """float32 or int64."""
        return torch.int64 if self.is_discrete else torch.float32

    @property
    def least(self) -> int:
        """The least value of a discrete entry."""
        return self.start

    @property
    def choices(self) -> tuple[int, ...]:
        """Number of choices of each discrete entry: (n,), `nvec`, or (1,) without actions."""
        return {"discrete": (self.n,), "none": (1,)}.get(self.kind, self.nvec)

    def space(self, seed: int | None = None) -> gymnasium.Space[Any]:
        """The same as a Gymnasium space."""
        spaces = gymnasium.spaces
        if self.kind == "continuous":
            low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
            return spaces.Box(low, high, dtype=np.float32, seed=seed)
        if self.kind == "multi_discrete":
            return spaces.MultiDiscrete(list(self.nvec), seed=seed)
        if self.kind == "multi_binary":
            return spaces.MultiBinary(len(self.nvec), seed=seed)
        return spaces.Discrete(self.choices[0], start=self.start, seed=seed)

    def normalized(self) -> ActionSpec:
        """The same actions as learners like them: a box from -1 to 1, choices from 0."""
        ends = (1.0,) * len(self.low)
        return replace(self, low=tuple(-e for e in ends), high=ends, start=0)

    def from_normalized(self, actions: Tensor) -> Tensor:
        """Actions of `normalized()` in this spec's own range, `(..., *shape)`."""
        if self.is_discrete:
            return actions + self.start if self.start else actions
        if set(self.low) <= {-1.0} and set(self.high) <= {1.0}:
            return actions
        low, high = _ends(self.low, self.high, actions.device)
        return (low + (actions + 1) / 2 * (high - low)).clamp(low, high)

    def to_normalized(self, actions: Tensor) -> Tensor:
        """`from_normalized` backwards: every entry of a box from -1 to 1."""
        if self.is_discrete:
            return actions - self.start if self.start else actions
        ends = zip(self.low, self.high, actions.unbind(-1), strict=True)  # no constants to compile
        return torch.stack([2 * (x - low) / (high - low) - 1 for low, high, x in ends], -1)

    def blank(self, *batch: int, device: torch.device | str | None = None) -> Tensor:
        """Zeros `(*batch, *shape)`: what stands where no action is known."""
        return torch.zeros((*batch, *self.shape), dtype=self.dtype, device=device)

    def check(self, action: Any, batch: tuple[int, ...] = (), *, values: bool = True) -> Tensor:
        """Return `action` as a tensor `(*batch, *shape)`, or raise `WorldError`.

        Refuses wrong shapes, kinds of number, NaN, infinities and values out of range; the last
        three not where `values` is False, as looking at a tensor waits for the device it is on.
        """
        given = as_tensor(action, "action")
        expected = (*batch, *self.shape)
        if tuple(given.shape) != expected:
            raise WorldError(
                f"action: expected shape {expected}, got {tuple(given.shape)}; one is like "
                f"{self.blank(*batch).tolist()}"
            )
        if self.kind == "multi_binary" and (given.dtype == torch.bool or _is_binary(given)):
            given = given.to(torch.int64)
        whole = not (given.is_floating_point() or given.is_complex())
        if self.is_discrete and (given.dtype == torch.bool or not whole):
            raise WorldError(f"action: expected an integer, got {given.dtype}")
        if given.dtype == torch.bool or given.is_complex():
            raise WorldError(f"action: expected real numbers, got {given.dtype}")
        given = given.to(self.dtype)  # unsigned numbers do not compare; past int64 they wrap
        if values:
            self._check_values(given)
        return given

    def _check_values(self, given: Tensor) -> None:
        if self.is_discrete:
            counts = torch.tensor(self.choices, device=given.device)
            most = self.least + (counts if self.shape else counts[0]) - 1
            if not bool(((given >= self.least) & (given <= most)).all()):
                expected = f"{self.least} to {most.tolist()}"
                raise WorldError(f"action: expected {expected}, got {given.tolist()}")
            return
        low, high = _ends(self.low, self.high, given.device)
        if not torch.equal(given.clamp(low, high), given):  # NaN equals nothing
            expected = f"action: expected finite values from {self.low} to {self.high}, got"
            if not bool(given.isfinite().all()):
                remedy = "whoever made it has diverged: look for NaN in the policy"
            else:
                remedy = "clip it with np.clip(action, space.low, space.high)"
            raise WorldError(f"{expected} {given.tolist()}; {remedy}")


def _apart(low: float, high: float) -> bool:
    """Whether bounds are finite and apart in float32, which is what networks compute in."""
    with np.errstate(over="ignore"):
        a, b = np.float32(low), np.float32(high)
        return bool(-inf < a < b < inf and np.isfinite(b - a))


def _is_binary(x: Tensor) -> bool:
    """Whether floats are all 0 or 1, as learners that draw from a Bernoulli give them."""
    return x.is_floating_point() and bool(((x == 0) | (x == 1)).all())


def as_tensor(value: Any, field: str) -> Tensor:
    """`value` as a tensor; arrays may be reversed or repeated views and of any byte order.

    A tensor comes back as it is, an array of plain layout shares its memory. Raises `WorldError`
    naming `field` for what does not consist of numbers, or hides some of them.
    """
    if isinstance(value, Tensor):
        if value.is_nested or value.is_quantized or value.is_meta or value.layout != torch.strided:
            raise WorldError(f"{field}: expected a dense tensor of numbers, got another kind")
        return value
    try:
        if np.ma.is_masked(value):
            raise WorldError(f"{field}: expected numbers, got an array that masks some of them")
        array = np.asarray(value)
        once = array[(*(slice(None if step else 1) for step in array.strides), ...)]  # held once
        once = np.ascontiguousarray(once, array.dtype.newbyteorder("=")).reshape(once.shape)
        whole = torch.from_numpy(once if once.flags.writeable else once.copy())
        return whole.expand(array.shape)
    except (TypeError, ValueError) as error:
        if isinstance(error, WorldError):
            raise
        got = type(value).__name__
        got = f"{got} of {value.dtype}" if isinstance(value, np.ndarray) else got
        raise WorldError(f"{field}: expected numbers, got {got}") from error


@lru_cache(maxsize=64)
def _ends(
    low: tuple[float, ...], high: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Kept, because copying to a device once a step would wait for it once a step."""
    with torch.inference_mode(False):  # whoever comes next may want gradients
        kind = {"dtype": torch.float32, "device": device}
        return torch.tensor(low, **kind), torch.tensor(high, **kind)

"""The policy that a player chose: what it would do now, and that it does just that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from worldsim.core import WorldError

if TYPE_CHECKING:
    from .session import Moment


class Policy(Protocol):
    """Who may act in a player's place."""

    def reset(self, past: Sequence[Moment]) -> None:
        """Begin after these moments of the episode, as if it had seen them."""
        ...

    def __call__(self, moment: Moment) -> Any:
        """The action to take at a moment, in the world's own range; asked once a moment."""
        ...


@dataclass(frozen=True, kw_only=True)
class Company:
    """Who may be with a player; each session makes its own.

    Attributes:
        policies: by name, what makes a policy to hand over to.
        real: makes the real environment, see `worldsim.play.beside.Beside`.
    """

    policies: Mapping[str, Callable[[], Policy]] = field(default_factory=dict)
    real: Callable[[], Any] | None = None


class Handover:
    """One session's policies, made when they are first chosen.

    Attributes:
        name: of the chosen one, "" for none.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Policy]]) -> None:
        self.makers, self.name = makers, ""
        self._made: dict[str, Policy] = {}
        self._seen: Moment | None = None  # that it was asked about last
        self._advice: Any = None

    def choose(self, name: str) -> None:
        """Choose a policy by name, "" for none; WorldError for one that there is not."""
        if name and name not in self.makers:
            there = ", ".join(self.makers) or "none: worldsim play WORLD --agent AGENT"
            raise WorldError(f"policy: expected one of {there}, got {name!r}")
        if name and name not in self._made:
            self._made[name] = self.makers[name]()
        self.name, self._seen = name, None

    def advice(self, moments: Sequence[Moment], at: int) -> Any:
        """What the chosen policy does at `moments[at]`, None without one or after the end."""
        now = moments[at]
        if not self.name or now.over:
            return None
        if self._seen is not now:
            policy, past = self._made[self.name], moments[:at]
            if self._seen is None or not past or past[-1] is not self._seen:
                policy.reset(past)
            self._seen, self._advice = now, policy(now)
        return self._advice

"""Actor and critic: what to do and what it is worth, seen from a state's latents or from pixels.

Both look at the two newest chunks and at nothing else (no past actions: a clone that sees its last
action learns to repeat it; de Haan et al. 2019, 1905.11979), so what drives in a dream can drive in
the real environment, from the frames that a camera gives.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log, prod
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import softplus

from worldsim.core import ActionSpec, WorldError, WorldModel, WorldSpec, WorldState
from worldsim.fields import ABSENT
from worldsim.nn.dtype import default_float32

from .distributions import ScaledBeta

SEEN = 2  # chunks an agent looks at
IMPOSSIBLE = -1e4  # a logit: finite, as the distance of two actors is taken
START_MOST = 0.9  # of -1 to 1: nearer the ends an untrained actor would hardly move


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """Sizes of an agent.

    Attributes:
        sees: "latents", or the "pixels" that they decode to.
        width: channels of the convolutions.
        hidden: units of the last layer.
        distribution: of continuous actions: "normal", with one spread whatever the agent sees, and
            clipped; or "beta", whose spread it chooses by what it sees, and which ends where the
            actions' range does (Chou, Maturana and Scherer 2017).
        spread: standard deviation of actions (of -1 to 1) at first; less where "beta" starts near
            an end.
        start: the action that an untrained agent takes, in the world's own range, where actions are
            continuous; the middle of the range if None, which is a foot on every pedal of a car.
        state: whether it sees the state vector, too, in a world that knows one.
        height: pixels of the picture that it looks at, from the top; all if None. A panel below
            them may show the last action, which a clone would copy (1905.11979).
    """

    sees: Literal["latents", "pixels"] = "latents"
    width: int = 64
    hidden: int = 256
    distribution: Literal["normal", "beta"] = field(default="normal", metadata=ABSENT)
    spread: float = 0.2
    start: tuple[float, ...] | None = None
    height: int | None = None
    state: bool = field(default=False, metadata=ABSENT)

    def __post_init__(self) -> None:
        bounds = {"width": (1, 4096), "hidden": (1, 65_536), "spread": (1e-6, 1e3)}
        for name, (least, most) in bounds.items():
            if not least <= getattr(self, name) <= most:
                raise WorldError(
                    f"{name}: expected {least} to {most}, got {getattr(self, name)}; "
                    "choose another size"
                )
        if self.distribution not in ("normal", "beta"):
            raise WorldError(f"distribution: expected normal or beta, got {self.distribution!r}")


def seen_shape(spec: WorldSpec, config: AgentConfig) -> tuple[int, ...]:
    """Shape of what the agent sees: (channels, h, w), or (n,) where latents are flat."""
    told = 0
    if config.state:
        if spec.state is None:
            raise WorldError(
                f"state: expected False, as {spec.name} knows no state vector, got True; train the "
                "agent in a world that does"
            )
        told = len(spec.state) + 1
    if config.sees == "pixels":
        height, width, colours = spec.frame_shape
        return SEEN * spec.chunk * colours + told, height, width
    *place, channels = spec.latent_shape
    return (SEEN * channels + told, *place)


class Top(nn.Module):
    """The first `rows` of a picture (B, C, h, w)."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, rows, w)."""
        return x[..., : self.rows, :]


class WideConv2d(nn.Conv2d):
    """A convolution by a wide kernel, on a CPU in float32: in bfloat16 oneDNN's AMX kernels give
    wrong numbers for one of 8 pixels over 8 or 12 channels (torch 2.13, an Intel Xeon: they have a
    correlation of 0.03 with the right ones)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, out, h', w')."""
        if x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


def _top(spec: WorldSpec, height: int, place: list[int]) -> int:
    """How many rows of a `place` (h, w) of pixels or latents make `height` pixels."""
    cell = spec.frame_shape[0] // place[0] if place else 0
    if not place or height % cell or not 0 < height <= spec.frame_shape[0]:
        most = f"a multiple of {cell} up to {spec.frame_shape[0]}" if place else "None (no rows)"
        raise WorldError(f"height: expected {most}, got {height}; None looks at the whole picture")
    return height // cell


def torso(spec: WorldSpec, config: AgentConfig) -> nn.Sequential:
    """(B, *seen) -> (B, hidden)."""
    channels, *place = seen_shape(spec, config)
    layers: list[nn.Module] = []
    if config.height is not None:
        place[0] = _top(spec, config.height, place)
        layers.append(Top(place[0]))
    if not place:
        layers += [nn.Linear(channels, config.hidden), nn.SiLU()]
        return nn.Sequential(*layers, nn.Linear(config.hidden, config.hidden), nn.SiLU())
    if config.sees == "pixels":  # down to an eighth, the grid of a spacetime VAE's latents
        layers += [WideConv2d(channels, config.width // 2, 8, 4, 2), nn.SiLU()]
        layers += [nn.Conv2d(config.width // 2, config.width, 4, 2, 1), nn.SiLU()]
        channels, place = config.width, [side // 4 // 2 for side in place]
    layers += [nn.Conv2d(channels, config.width, 3, 1, 1), nn.SiLU()]
    layers += [nn.Conv2d(config.width, config.width, 3, 2, 1), nn.SiLU(), nn.Flatten()]
    cells = prod(-(-side // 2) for side in place)
    return nn.Sequential(*layers, nn.Linear(config.width * cells, config.hidden), nn.SiLU())


class ActorCritic(nn.Module):
    """Two networks that share nothing, as their losses pull apart on small ones.

    Continuous actions are drawn from -1 to 1 (`ActionSpec.normalized`): Gaussian around `tanh(...)`
    and clipped where they are carried out, or by a Beta distribution; choices have logits,
    `IMPOSSIBLE` where an entry has fewer choices than another.
    """

    @default_float32()
    def __init__(self, spec: WorldSpec, config: AgentConfig) -> None:
        super().__init__()
        if config.sees == "latents" and len(spec.latent_shape) not in (1, 3):
            raise WorldError(
                f"latent_shape: expected (h, w, C) or (C,), got {spec.latent_shape}; "
                'let the agent see "pixels"'
            )
        self.spec, self.config = spec, config
        self.choices = spec.action.choices if spec.action.is_discrete else ()
        self.beta = config.distribution == "beta"
        if self.beta and self.choices:
            raise WorldError(
                f'distribution: expected "normal", as actions of {spec.name} are choices, got '
                '"beta"; leave it out'
            )
        outputs = sum(self.choices) or len(spec.action.low) * (1 + self.beta)
        self.actor = nn.Sequential(torso(spec, config), nn.Linear(config.hidden, outputs))
        self.critic = nn.Sequential(torso(spec, config), nn.Linear(config.hidden, 1))
        last = self.actor[-1]
        assert isinstance(last, nn.Linear)
        nn.init.orthogonal_(last.weight, 0.01)
        with torch.no_grad():
            last.bias.copy_(_first_bias(spec.action, config))
        if not self.beta:
            self.log_spread = nn.Parameter(torch.full((outputs,), log(config.spread)))

    def loc(self, seen: Tensor) -> Tensor:
        """Mean actions from -1 to 1 `(B, A)`, logits `(B, n)` of one choice, or `(B, E, n)`.

        float32: in bfloat16 `tanh` is 1 from 3.5 on, and no gradient comes back from there.
        """
        if self.beta:
            high, low = self.concentrations(seen)
            return (high - low) / (high + low)
        out = self.actor(seen).float()
        if not self.choices:
            return out.tanh()
        if not self.spec.action.shape:
            return out
        entries = out.split(self.choices, -1)
        return nn.utils.rnn.pad_sequence([e.mT for e in entries], True, IMPOSSIBLE).permute(2, 0, 1)

    def scale(self, loc: Tensor) -> Tensor:
        """Standard deviations `(B, A)`, from 0.02 to 0.5."""
        return self.log_spread.clamp(-4.0, -0.7).exp().expand_as(loc)

    def concentrations(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Of Beta distributions, `(B, A)` each, above 1, so that each has one peak."""
        high, low = self.actor(seen).float().chunk(2, -1)
        return 1 + softplus(high), 1 + softplus(low)

    def distribution(self, seen: Tensor) -> tuple[Tensor, ...]:
        """Its parameters: the logits, (mean, deviation), or both concentrations."""
        if self.beta:
            return self.concentrations(seen)
        loc = self.loc(seen)
        return (loc,) if self.choices else (loc, self.scale(loc))

    def spread(self, seen: Tensor) -> float:
        """Mean standard deviation of continuous actions (of -1 to 1); choices have none."""
        if self.beta:
            return ScaledBeta(*self.concentrations(seen)).stddev.mean().item()
        return self.log_spread.exp().mean().item()

    def value(self, seen: Tensor) -> Tensor:
        """What is still to come, `(B, 1)`."""
        return self.critic(seen)

    def see(self, world: WorldModel, state: WorldState) -> Tensor:
        """What the agent sees of a state, `(B, *seen_shape)` float32."""
        if self.config.sees == "latents":
            seen = latents_seen(state.latents[:, -SEEN:])
        else:
            shorter = WorldState(**{**vars(state), "latents": state.latents.roll(1, 1)})
            before, now = world.decode(shorter), world.decode(state)
            seen = pixels_seen(torch.cat([before, now], 1))
        if not self.config.state:
            return seen
        return self.told(seen, state.states[:, -1], state.states_known[:, -1])

    def told(self, seen: Tensor, state: Tensor, known: Tensor) -> Tensor:
        """What the agent sees with the state vector (B, D) beside it, where known (B,), as planes.

        Each entry is a plane of one number, as counters are in AlphaZero's input (1712.01815).
        """
        assert self.spec.state is not None
        unit = self.spec.state.normalized(state).clamp(-5, 5)
        entries = torch.cat([torch.where(known[:, None], unit, 0), known[:, None].float()], 1)
        place = seen.shape[2:]
        planes = entries.reshape(*entries.shape, *[1] * len(place)).expand(-1, -1, *place)
        return torch.cat([seen, planes], 1)

    def act(self, seen: Tensor) -> Tensor:
        """The best action, in the world's own range, `(B, *action)`."""
        return to_world(self.spec.action, self.loc(seen))


def _first_bias(spec: ActionSpec, config: AgentConfig) -> Tensor:
    """What the actor's last layer says before it has learnt anything."""
    start = config.start
    if start is not None and (len(start) != len(spec.low) or spec.is_discrete):
        got = f"{start} for {spec.kind} actions"
        raise WorldError(
            f"start: expected {len(spec.low)} numbers of a continuous action, got {got}"
        )
    if spec.is_discrete:
        return torch.zeros(sum(spec.choices))
    first = torch.zeros(len(spec.low))
    if start is not None:  # it has to be reached, and to leave room for learning
        first = spec.to_normalized(torch.tensor(start)).clamp(-START_MOST, START_MOST)
    return _beta_bias(first, config.spread) if config.distribution == "beta" else first.atanh()


def _beta_bias(mean: Tensor, spread: float) -> Tensor:
    """Of an actor whose Beta distributions have this mean (of -1 to 1) and, where one peak allows
    it, this spread."""
    share = (1 + mean) / 2
    total = share * (1 - share) / (spread / 2) ** 2 - 1
    total = total.clamp(min=1.1 / torch.minimum(share, 1 - share))
    return torch.cat([share * total - 1, (1 - share) * total - 1]).expm1().log()


def to_world(spec: ActionSpec, loc: Tensor) -> Tensor:
    """Actions from -1 to 1 (clipped), or logits, as the world takes them."""
    return spec.from_normalized(loc.argmax(-1) if spec.is_discrete else loc.clamp(-1, 1))


def latents_seen(latents: Tensor) -> Tensor:
    """The two newest latents `(B, 2, *place, C)` -> `(B, 2C, *place)`."""
    return rearrange(latents.float(), "b k ... c -> b (k c) ...")


def pixels_seen(frames: Tensor) -> Tensor:
    """The frames of two chunks `(B, 2c, H, W, 3)` uint8 -> `(B, 6c, H, W)` from -1 to 1."""
    return rearrange(frames.float() / 127.5 - 1, "b t h w c -> b (t c) h w")


@dataclass(frozen=True)
class DreamPolicy:
    """An agent as `worldsim.imagine` takes it: state -> actions `(B, *action)`."""

    world: WorldModel
    agent: ActorCritic

    @torch.no_grad()
    def __call__(self, state: WorldState) -> Tensor:
        """The best actions."""
        return self.agent.act(self.agent.see(self.world, state))

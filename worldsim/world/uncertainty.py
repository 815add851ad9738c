"""How far a dream can be trusted: what gives it away, and the probability made of that.

Nothing here decodes or runs the network again. A step leaves signs of doubt behind for free: how
far its last denoising pass moved the first one's answer, how far the new latent lies from all that
was recorded, how unsure the heads are. `Senses` read them and keep their running mean and maximum
in the state (`WorldState.uncertainty`), so that a dream that was lost once is not trusted again
merely because it looks tidy. `Trust` maps a state to the probability that it still tracks reality;
it is fitted on dreams whose reality is known (`worldsim.evaluate.calibrate`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldsim.core import ActionSpec, WorldSpec, WorldState
from worldsim.nn.stable import sigmoid

SIGNS = ("disagreement", "unseen", "unlikely_move", "strange", "reward_entropy", "end_entropy",
         "jump")  # fmt: skip
"""Signs of doubt of one step, each larger the more there is to doubt; see `Trust.signs`."""

PARTS = 24  # principal components by which latents are compared
BANK = 2048  # recorded latents that a new one is compared with
FEATURES = 2 + 3 * len(SIGNS)  # that the judge looks at: see `Trust.features`
TINY = 1e-4


class Trust(nn.Module):
    """Senses and judge of one world; all that was fitted is in its buffers, so it can be saved.

    Attributes:
        sampling: (3,) method, steps and temperature that it was fitted for; others are unknown.
        bound: () mean squared error of frames (scale 0..1) up to which a dream tracks reality.
        centre (D,), basis (D, P): recorded latents and their principal components, scaled.
        bank: (M, P) recorded latents; moves: (M, P + A) with the action taken there.
        shift, scale: (F,) that centre and scale features; low, high: (F,) that they are held to.
        weight (F,), bias (): the judge's, a logistic regression.
    """

    sampling: Tensor
    bound: Tensor
    centre: Tensor
    basis: Tensor
    bank: Tensor
    moves: Tensor
    shift: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, spec: WorldSpec, bank: int = BANK) -> None:
        super().__init__()
        self.action = spec.action
        size = torch.Size(spec.latent_shape).numel()
        parts, inputs = min(PARTS, size), FEATURES
        shapes: dict[str, tuple[int, ...]] = {
            "sampling": (3,), "bound": (), "centre": (size,), "basis": (size, parts),
            "bank": (bank, parts), "moves": (bank, parts + action_width(spec.action)),
            "shift": (inputs,), "scale": (inputs,), "low": (inputs,), "high": (inputs,),
            "weight": (inputs,), "bias": (),
        }  # fmt: skip
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def fits(self, sampling: Tensor) -> bool:
        """Whether it was fitted on dreams drawn that way (`Sampling.numbers`)."""
        return bool(torch.equal(self.sampling.cpu(), sampling.to(self.sampling.dtype)))

    # --- Senses -----------------------------------------------------------------------------------

    def start(self, latents: Tensor, filled: Tensor) -> Tensor:
        """Doubt (B, 3, S) of a context (B, K, h, w, C) of which the newest `filled` are real.

        All there is to notice is how unlike recorded latents it is; at its worst in any chunk.
        """
        rows, count = latents.shape[:2]
        parts, strange = self._project(rearrange(latents, "b k ... -> (b k) (...)"))
        unseen = _log(nearest(parts, self.bank))
        found = torch.stack([unseen, strange], 1).reshape(rows, count, 2)
        real = torch.arange(count, 0, -1, device=filled.device) <= filled[:, None]
        worst = found.masked_fill(~real[..., None], -torch.inf).amax(1)
        signs = latents.new_zeros(rows, len(SIGNS))
        signs[:, SIGNS.index("unseen")] = worst[:, 0]
        signs[:, SIGNS.index("strange")] = worst[:, 1]
        return torch.stack([signs, torch.zeros_like(signs), signs], 1)

    def signs(
        self,
        state: WorldState,
        action: tuple[Tensor, Tensor],
        answers: list[Tensor],
        heads: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Signs (B, S) of the step that leads from `state` to the last of `answers`.

        action: (B, *action) and which are known (B,). answers: what each denoising pass took for
        the next latent. heads: logits of reward and end.
        """
        latent, before = answers[-1], state.latents[:, -1]
        parts, strange = self._project(latent.flatten(1))
        past, _ = self._project(before.flatten(1))
        move = torch.cat([past, embed_action(self.action, *action)], 1)
        reward, continue_prob = heads
        told = reward.log_softmax(-1)
        going = torch.stack([F.logsigmoid(continue_prob), F.logsigmoid(-continue_prob)], -1)
        return torch.stack([
            _log(rms(latent - answers[0])),
            _log(nearest(parts, self.bank)),
            _log(nearest(move, self.moves)),
            strange,
            -(told.exp() * told).sum(-1),
            -(going.exp() * going).sum(-1),
            _log(rms(latent - before)),
        ], 1)  # fmt: skip

    def grow(self, doubt: Tensor, signs: Tensor, age: Tensor) -> Tensor:
        """Doubt (B, 3, S) after a step that gave `signs`: the last, their mean and their maximum.

        doubt: before it; age: (B,) steps before it.
        """
        share = (1 / (age + 1).to(signs.dtype))[:, None]
        mean = doubt[:, 1] + (signs - doubt[:, 1]) * share
        return torch.stack([signs, mean, torch.maximum(doubt[:, 2], signs)], 1)

    def _project(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Whitened parts (B, P), and the log of what they leave unexplained (B,)."""
        centred = flat - self.centre
        parts = centred @ self.basis
        length = (self.basis**2).sum(0).clamp(min=TINY)  # basis is divided by each part's spread
        left = (centred**2).mean(-1) - (parts**2 / length).mean(-1) * parts.shape[1] / flat.shape[1]
        return parts, _log(left.clamp(min=0).sqrt())

    # --- Judge ------------------------------------------------------------------------------------

    def features(self, state: WorldState) -> Tensor:
        """What the judge looks at, (B, F): all of it is in the state."""
        age = state.age.to(state.uncertainty.dtype)[:, None]
        return torch.cat([age.log1p(), age / 50, state.uncertainty.flatten(1)], 1)

    def scaled(self, features: Tensor) -> Tensor:
        """Features (..., F) held to the range they were fitted on, centred and scaled."""
        x = torch.minimum(torch.maximum(features, self.low), self.high)
        return (x - self.shift) / self.scale

    def judge(self, features: Tensor) -> Tensor:
        """Log-odds (...) that the dream tracks reality."""
        # not a product with one column: that would round by a row's place
        return (self.scaled(features) * self.weight).sum(-1) + self.bias

    def forward(self, state: WorldState) -> Tensor:
        """Probability (B,) that the dream still tracks reality."""
        return sigmoid(self.judge(self.features(state)))


def action_width(action: ActionSpec) -> int:
    """Numbers that `embed_action` makes of an action."""
    return sum(action.choices) if action.is_discrete else len(action.low)


def embed_action(spec: ActionSpec, action: Tensor, known: Tensor) -> Tensor:
    """Actions (B, *action) as numbers of one size, (B, A); zeros where not `known` (B,)."""
    if not spec.is_discrete:
        return torch.where(known[:, None], spec.to_normalized(action), 0)
    entries = action.unbind(-1) if spec.shape else (action,)
    pairs = zip(entries, spec.choices, strict=True)
    hot = [F.one_hot((x - spec.least).clamp(0, n - 1), n) for x, n in pairs]
    return torch.cat(hot, -1).to(torch.float32) * known[:, None]


def nearest(x: Tensor, bank: Tensor) -> Tensor:
    """Distance (B,) of rows (B, P) to the nearest of the bank (M, P), over sqrt(P)."""
    square = (x**2).sum(-1, keepdim=True) + (bank**2).sum(-1) - 2 * x @ bank.T
    return (square.amin(-1).clamp(min=0) / x.shape[1]).sqrt()


def rms(x: Tensor) -> Tensor:
    """Root mean square of every row: (B, ...) -> (B,)."""
    return (x**2).flatten(1).mean(-1).sqrt()


def _log(x: Tensor) -> Tensor:
    return x.clamp(min=TINY).log()

"""Dreams of a thousand steps: do they stay finite, and do they still look like the world?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from worldsim.core import WorldState, row_keys
from worldsim.recipes.landmarks import Landmarks
from worldsim.world.diffusion import DiffusionWorld

from .clips import Recorded

LOOK_EVERY = 4  # steps between those that are looked at
WINDOW = 100  # steps over which the look of frames is averaged
SIGMAS = 3.0
LOOKS = ("mean", "contrast", "red", "green", "blue", "motion")
COUNTED = LOOKS[:5]  # motion is shown beside them: a still picture would pass the others
FIRST_SEED = 10_000  # of the dreams' keys


def look(frames: Tensor) -> Tensor:
    """What chunks (..., c, H, W, 3) uint8 look like: (..., 6), in the order of `LOOKS`.

    On 0..255, of the chunk's last frame: mean over all pixels and channels; contrast, the standard
    deviation over pixels of their grey value; mean of each channel. Motion: mean absolute
    difference between the chunk's last frame and its first.
    """
    last, first = frames[..., -1, :, :, :].float(), frames[..., 0, :, :, :].float()
    colour = last.mean((-3, -2))
    contrast = last.mean(-1).flatten(-2).std(-1)
    motion = (last - first).abs().mean((-3, -2, -1))
    return torch.stack([colour.mean(-1), contrast, *colour.unbind(-1), motion], -1)


def windows(looks: Tensor, size: int = WINDOW // LOOK_EVERY) -> Tensor:
    """Means over whole windows of `size` looks: (..., t, 6) -> (..., t // size, 6)."""
    whole = looks[..., : looks.shape[-2] // size * size, :]
    return rearrange(whole, "... (n s) k -> ... n s k", s=size).mean(-2)


@dataclass(frozen=True)
class RealLooks:
    """Windows of real frames, (n, 6), and in which frames, (m,), each landmark was in sight."""

    windows: Tensor
    visible: dict[str, Tensor]

    @staticmethod
    def cat(parts: Sequence[RealLooks]) -> RealLooks:
        """All episodes' windows and frames."""
        names = parts[0].visible
        visible = {name: torch.cat([p.visible[name] for p in parts]) for name in names}
        return RealLooks(torch.cat([p.windows for p in parts]), visible)


def real_looks(episode: Recorded, landmarks: Landmarks | None, window_looks: int) -> RealLooks:
    """The look of every 4th chunk of an episode, in windows as long as the dreams'."""
    seen = episode.frames[LOOK_EVERY - 1 :: LOOK_EVERY]
    looks = look(seen)
    return RealLooks(
        windows(looks, window_looks), landmarks.visible(seen[:, -1]) if landmarks else {}
    )


@dataclass(frozen=True)
class LongDreams:
    """N dreams of T steps, looked at every 4th step.

    Attributes:
        finite: (N,) bool, whether every latent, reward and continue_prob of all T steps was finite.
        looks: (N, T // 4, 6). visible: (N, T // 4) bool by landmark.
        by_sight: (N,) bool, dreams in which landmarks decided; the others had recorded actions.
    """

    finite: Tensor
    looks: Tensor
    visible: dict[str, Tensor]
    by_sight: Tensor


def recorded_actions(episodes: Sequence[Tensor], count: int, steps: int, seed: int = 0) -> Tensor:
    """Actions (count, steps, *action) of episodes in turn, each from a random time on, looped."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(count):
        actions = episodes[i % len(episodes)]
        first = int(torch.randint(len(actions), (1,), generator=generator))
        rows.append(actions[(first + torch.arange(steps)) % len(actions)])
    return torch.stack(rows)


@torch.no_grad()
def dream_long(
    world: DiffusionWorld, actions: Tensor, advance: Callable[[int], Any],
    landmarks: Landmarks | None = None,
) -> LongDreams:  # fmt: skip
    """Dream from the world's start clips under `actions` (N, T, *action).

    Where there are landmarks every other dream is acted in by sight instead: recorded actions fit
    another track, so under them a car leaves the road, in dreams as in reality.
    """
    count, steps = actions.shape[:2]
    state = world.reset(row_keys(range(FIRST_SEED, FIRST_SEED + count)))
    by_sight = (torch.arange(count) % 2 == 0) & (landmarks is not None)
    finite = torch.ones(count, dtype=torch.bool)
    looks: list[Tensor] = []
    visible: list[dict[str, Tensor]] = []
    action = actions[:, 0]
    for t in range(steps):
        action = _act(world, state, by_sight, actions[:, t], action, landmarks)
        state, prediction = world.step(state, action.to(world.device))
        finite &= _finite(state, prediction.reward, prediction.continue_prob)
        if (t + 1) % LOOK_EVERY == 0:
            frames = world.decode(state).cpu()
            looks.append(look(frames))
            visible.append(landmarks.visible(frames[:, -1]) if landmarks else {})
        advance(1)
    seen = {name: torch.stack([v[name] for v in visible], 1) for name in visible[0]}
    return LongDreams(finite, torch.stack(looks, 1), seen, by_sight)


def _act(
    world: DiffusionWorld, state: WorldState, by_sight: Tensor, given: Tensor, last: Tensor,
    landmarks: Landmarks | None,
) -> Tensor:  # fmt: skip
    """The given actions (N, *action), and in dreams acted in by sight what landmarks decide."""
    rows = by_sight.nonzero()[:, 0]
    if landmarks is None or not len(rows):
        return given
    frames = world.decode(state[rows.to(world.device)])[:, -1].cpu()
    action = given.clone()
    action[rows] = landmarks.act(frames, last[rows])
    return action


def _finite(state: WorldState, *heads: Tensor) -> Tensor:
    values = (state.latent.flatten(1), *(h[:, None] for h in heads))
    return torch.cat(values, 1).isfinite().all(1).cpu()


@dataclass(frozen=True)
class Reference:
    """What windows of real frames look like: their mean and spread, (6,) each."""

    centre: Tensor
    sigma: Tensor

    @staticmethod
    def of(windows: Tensor) -> Reference:
        """Of windows (n, 6)."""
        return Reference(windows.mean(0), windows.std(0).clamp(min=1e-6))

    def z(self, windows: Tensor) -> Tensor:
        """How many sigmas windows (..., 6) are from the mean."""
        return (windows - self.centre) / self.sigma


def summarise(
    dreams: LongDreams, real: RealLooks, offtrack_reference: dict[str, Any] | None = None,
    window_looks: int = WINDOW // LOOK_EVERY,
) -> dict[str, Any]:  # fmt: skip
    """Dreams against real frames, in windows of 100 steps (4 s of CarRacing), or of fewer.

    offtrack_reference: what `python -m benchmarks.offtrack_reference` wrote, reality under the
    recorded actions; dreams under them are compared with it, where given, else with driven
    episodes.

    A figure of a window is its mean over the frames looked at. sigma is the standard deviation of
    that figure over all real windows, z the distance from the real mean in sigmas.
    z_of_mean: of the mean over dreams, the largest over windows in time and kinds of driving.
    share_within: share of single (dream, window) pairs with z <= 3, beside the same share of the
    real windows. landmarks: shares of frames in which each is in sight: acting by sight, under
    recorded actions, and real.
    """
    reference, seen = Reference.of(real.windows), windows(dreams.looks, window_looks)
    kinds = [(torch.ones_like(dreams.by_sight), reference)]
    if offtrack_reference is not None:
        other = Reference.of(torch.tensor(offtrack_reference["windows"]))
        kinds = [(dreams.by_sight, reference), (~dreams.by_sight, other)]
    parts = [measure.z(seen[rows]) for rows, measure in kinds if rows.any()]
    z_mean = torch.stack([part.mean(0).abs().amax(0) for part in parts]).amax(0)
    single, real_z = torch.cat(parts), reference.z(real.windows)
    within, real_within = _within(single.flatten(0, 1)), _within(real_z)
    table = {
        name: {
            "real": reference.centre[i].item(),
            "sigma": reference.sigma[i].item(),
            "dream": seen[..., i].mean().item(),
            "last_window": seen[:, -1, i].mean().item(),
            "z_of_mean": z_mean[i].item(),
            "share_within": within[i].item(),
            "real_share_within": real_within[i].item(),
        }
        for i, name in enumerate(LOOKS)
    }
    other_shares = offtrack_reference or {}
    counted = [LOOKS.index(name) for name in COUNTED]
    return {
        "dreams": len(dreams.finite),
        "finite": int(dreams.finite.sum()),
        "real_windows": len(real.windows),
        "looks": table,
        "z_of_mean": z_mean[counted].max().item(),
        "share_within": _all_within(single[..., counted]),
        "real_share_within": _all_within(real_z[:, counted]),
        "landmarks": {
            name: _shares(seen, dreams.by_sight, real.visible[name], other_shares.get(name))
            for name, seen in dreams.visible.items()
        },
    }


def _all_within(z: Tensor) -> float:
    return (z.abs() <= SIGMAS).all(-1).float().mean().item()


def _within(z: Tensor) -> Tensor:
    return (z.abs() <= SIGMAS).float().mean(0)


def _shares(
    visible: Tensor, by_sight: Tensor, real: Tensor, offtrack: float | None
) -> dict[str, float | None]:
    """Shares of frames in which a landmark is in sight."""
    kinds = {"by_sight": visible[by_sight], "recorded": visible[~by_sight], "real": real}
    kinds |= {"by_sight_last": windows_last(visible[by_sight])}
    shares = {k: v.float().mean().item() if v.numel() else None for k, v in kinds.items()}
    return shares | {"recorded_real": offtrack}


def windows_last(seen: Tensor) -> Tensor:
    """What was seen in the last 100 steps: (N, t) -> (N, <= 25)."""
    return seen[:, -(WINDOW // LOOK_EVERY) :]

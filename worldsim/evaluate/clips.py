"""Which real clips a world is measured on: starts spread evenly over every test episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import ceil

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from worldsim.core import ActionSpec, Rows, WorldError, WorldSpec, WorldState
from worldsim.data import Dataset, Episode
from worldsim.data.captions import by_chunk
from worldsim.data.columns import check_kind, columns_of, state_width
from worldsim.models.text import TextConfig, tokens_of
from worldsim.world.diffusion import DiffusionWorld

PREFERRED = {"test": ("test", "val", "train"), "val": ("val", "train"), "train": ("train", "val")}
"""Which split serves where one is missing, best first."""


@dataclass(frozen=True)
class Recorded:
    """An episode in memory, cut after so many chunks that it fits there: n chunks.

    Attributes:
        frames: (n, c, H, W, 3) uint8.
        actions: (n, *action); `known` (n,) bool, which of them are.
        rewards: (n,), NaN where the data have none.
        terminated: whether the last chunk ended it.
        acts: whether there are any actions to know.
        states: (n, D) state vectors at each chunk's end, NaN where unknown.
        text: (n, L) tokens of what is said of each chunk, zeros where nothing; L is 0 if not asked.
    """

    frames: Tensor
    actions: Tensor
    known: Tensor
    rewards: Tensor
    terminated: bool
    acts: bool
    states: Tensor
    text: Tensor

    def __len__(self) -> int:
        return len(self.frames)

    @staticmethod
    def of(
        episode: Episode, action: ActionSpec, most: int = 10**6, *,
        state: int | None = None, encoder: TextConfig | None = None,
    ) -> Recorded:  # fmt: skip
        """The first `most` chunks of an episode.

        state: width of its state vectors, 0 for none; by default all that it has. encoder: reads
        its captions, None where nobody does.
        """
        own = 0 if episode.state is None else episode.state.shape[-1]
        width = own if state is None else state
        count, columns = min(len(episode), most), columns_of(episode, action, width)
        frames = torch.from_numpy(np.array(episode.frames[0 : count * episode.chunk], order="C"))
        return Recorded(
            frames=rearrange(frames, "(n c) ... -> n c ...", c=episode.chunk),
            actions=columns.actions[:count],
            known=columns.known[:count],
            rewards=columns.rewards.where(columns.rewards_known, torch.nan)[:count],
            terminated=episode.terminated and count == len(episode),
            acts=action.kind != "none",
            states=columns.states.where(columns.states_known[:, None], torch.nan)[:count],
            text=_text_of(episode, count, encoder),
        )

    @staticmethod
    def told(world: DiffusionWorld, data: Dataset, place: int, most: int = 10**6) -> Recorded:
        """An episode with all that `world` can be told of it."""
        return Recorded.of(
            data.episode(place), world.spec.action, most,
            state=state_width(data.spec, world.spec), encoder=world.config.conditioning.encoder,
        )  # fmt: skip


def _text_of(episode: Episode, count: int, encoder: TextConfig | None) -> Tensor:
    if encoder is None:
        return torch.zeros(count, 0, dtype=torch.int64)
    said = by_chunk(episode)[:count]
    texts = list(dict.fromkeys(said))
    tokens = tokens_of(texts, encoder, check=False)
    return tokens[[texts.index(text) for text in said]]


@dataclass(frozen=True)
class Clips(Rows):
    """N clips of episodes: a context and what really followed, T steps.

    Attributes:
        episode: (N,) int64, the place of the clip's episode in its split.
        context: (N, K * c, H, W, 3) uint8 and context_actions: (N, K, *action).
        context_known: (N, K) bool, which of these actions are known.
        frames: (N, T, c, H, W, 3) uint8; after the episode's end its last chunk is repeated.
        actions: (N, T, *action). rewards: (N, T), NaN where the data have none.
        ends: (N, T) bool, the step with which the episode terminated.
        valid: (N, T) bool, False after the episode's end and after an action that is not known.
        start: (N,) int64, chunk of the episode that step 1 should bring.
        context_states: (N, K, D) and states: (N, T, D), state vectors, NaN where unknown.
        text: (N, T, L) tokens of what is said of each step, zeros where nothing is; L is 0 for a
            world without words.
    """

    episode: Tensor
    context: Tensor
    context_actions: Tensor
    context_known: Tensor
    frames: Tensor
    actions: Tensor
    rewards: Tensor
    ends: Tensor
    valid: Tensor
    start: Tensor
    context_states: Tensor
    states: Tensor
    text: Tensor

    def upto(self, steps: int) -> Clips:
        """The same clips, cut after `steps` steps."""
        cut = ("frames", "actions", "rewards", "ends", "valid", "states", "text")
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Clips(**values | {name: values[name][:, :steps] for name in cut})

    def begin(self, world: DiffusionWorld, key: Tensor | None = None) -> WorldState:
        """The state after every clip's context, with its state vectors if the world takes such."""
        states = self.context_states if world.spec.state is not None else None
        if states is not None and not states.shape[-1]:
            states = None
        return world.encode(
            self.context, self.context_actions, key, known=self.context_known, states=states
        )

    @property
    def prompts(self) -> Tensor | None:
        """`text`; None where the world has no words."""
        return self.text if self.text.shape[-1] else None

    @property
    def cluster(self) -> Tensor:
        """(N,) int64, what intervals resample: episodes; of one or two episodes their clips."""
        few = len(self.episode.unique()) < 3
        return torch.arange(len(self)) if few else self.episode


def even_starts(length: int, context: int, horizon: int, count: int) -> list[int]:
    """`count` first steps, evenly from the earliest to the latest that leaves `horizon` steps."""
    last = length - horizon
    if last < context:
        return []
    return sorted({int(x) for x in torch.linspace(context, last, count).round().tolist()})


def ending_starts(episode: Recorded, context: int, steps: Sequence[int]) -> list[int]:
    """First steps from which a terminated episode ends with the given steps."""
    length = len(episode)
    return [length - s for s in steps if episode.terminated and length - s >= context]


def cut_clips(
    episode: Recorded, place: int, starts: Sequence[int], context: int, horizon: int
) -> Clips | None:
    """Clips of one episode, None if there are no starts."""
    if not starts:
        return None
    count, first = len(episode), torch.tensor(starts)[:, None]
    before, after = first + torch.arange(-context, 0), first + torch.arange(horizon)
    valid, after = after < count, after.clamp(max=count - 1)
    if episode.acts:
        valid = (valid & episode.known[after]).cumprod(1).bool()
    return Clips(
        episode=torch.full((len(starts),), place),
        context=episode.frames[before].flatten(1, 2),
        context_actions=episode.actions[before],
        context_known=episode.known[before],
        frames=episode.frames[after],
        actions=episode.actions[after],
        rewards=episode.rewards[after],
        ends=valid & (after == count - 1) & episode.terminated,
        valid=valid,
        start=first[:, 0],
        context_states=episode.states[before],
        states=episode.states[after],
        text=episode.text[after],
    )


def even_clips(data: Dataset, context: int, horizon: int, starts: int) -> Clips:
    """Clips from `starts` places of every episode, with their states; a cluster an episode."""
    parts = []
    for place in range(len(data)):
        episode = Recorded.of(data.episode(place), data.spec.action, state=len(data.spec.state))
        firsts = even_starts(len(episode), context, horizon, starts)
        parts.append(cut_clips(episode, place, firsts, context, horizon))
    return Clips.cat([clips for clips in parts if clips is not None])


def split_for(data: Dataset, spec: WorldSpec, wanted: str) -> tuple[str, Dataset]:
    """The split to use where `wanted` is asked for, and its episodes.

    The nearest split there is stands in for one that is missing. Raises WorldError for a dataset of
    another kind than the world's.
    """
    check_kind(data.spec, spec)
    if tuple(data.splits) and (
        name := next((s for s in PREFERRED[wanted] if s in data.splits), "")
    ):
        return name, data.split(name)
    raise WorldError(
        f"data: expected {wanted} episodes in {data.spec.name}, got splits {list(data.splits)}; "
        "record some"
    )


def horizon_for(lengths: Sequence[int], context: int, asked: int) -> int:
    """The longest horizon up to `asked` for which half of the episodes, and two, leave a clip.

    lengths: chunks of each episode. Raises WorldError where none leaves a single step.
    """
    enough = min(len(lengths), max(2, ceil(len(lengths) / 2)))
    leaves = sorted((length - context for length in lengths), reverse=True)[enough - 1]
    if leaves < 1:
        raise WorldError(
            f"data: expected episodes of {context + 1} chunks or more (a context of {context} and "
            f"a step), got {sorted(lengths)[:20]}; record longer ones"
        )
    return min(asked, leaves)

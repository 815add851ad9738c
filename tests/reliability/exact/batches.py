"""A4: micro-batches give the same bits in a batch of any size; without them, how close it is."""

from typing import Any

import torch
from torch import Tensor

from tests.reliability.exact.streams import actions, world
from worldsim.core import WorldModel, WorldState, row_keys
from worldsim.envs.source import find_world
from worldsim.world.fixed_batch import FixedBatch

Row = dict[str, Any]
SIZES = (1, 2, 3, 7, 8, 32, 64)


def as_world(name: str) -> WorldModel:
    made = world(name)
    return find_world(made, "cpu", None) if isinstance(made, str) else made


@torch.no_grad()
def walk(world: WorldModel, keys: Tensor, steps: int) -> list[tuple[WorldState, Any, Tensor]]:
    """States, predictions and frames of `steps` steps; row i acts the same in every batch."""
    state, lived = world.reset(keys), []
    acted = torch.stack(
        [torch.as_tensor(actions(world, steps, int(seed))) for seed in keys[:, 0]], 1
    )
    for action in world.spec.action.from_normalized(acted):
        state, said = world.step(state, action)
        lived.append((state, said, world.decode(state)))
    return lived


def bits_that_differ(a: Tensor, b: Tensor) -> int:
    """Differing bits of two tensors."""
    x, y = (t.contiguous().view(torch.uint8).long() for t in (a, b))
    wrong = x ^ y
    return int(sum(((wrong >> k) & 1).sum() for k in range(8)))


def differing_bits(name: str, micro_batch: int | None, steps: int, most: int = 64) -> int:
    """Bits that differ between a row in a batch of `most` and in smaller ones, over all steps."""
    made = as_world(name)
    made = made if micro_batch is None else FixedBatch(made, micro_batch)
    keys = row_keys(range(most))
    whole, wrong = walk(made, keys, steps), 0
    for size in (s for s in SIZES if s < most):
        for rows in (slice(0, size), slice(most - size, most)):  # another place in a group, too
            part = walk(made, keys[rows], steps)
            for (state, said, seen), (mine, heard, saw) in zip(whole, part, strict=True):
                pairs = [(state.latents[rows], mine.latents), (state.cache[rows], mine.cache)]
                pairs += [
                    (said.reward[rows], heard.reward),
                    (said.continue_prob[rows], heard.continue_prob),
                ]
                wrong += sum(bits_that_differ(a, b) for a, b in [*pairs, (seen[rows], saw)])
    return wrong


def farthest(pairs: list[tuple[Any, Any, slice]]) -> Row:
    """The largest differences of two walks: (one, other, which rows of the first)."""
    latents, pixels = [0.0] * len(pairs[0][0]), [0] * len(pairs[0][0])
    for one, other, rows in pairs:
        for t, ((state, _, seen), (mine, _, saw)) in enumerate(zip(one, other, strict=True)):
            far = (state.latent[rows] - mine.latent).abs().max().item()
            latents[t] = max(latents[t], far)
            pixels[t] = max(pixels[t], int((seen[rows].int() - saw.int()).abs().max()))
    return {
        "steps": len(latents),
        "latent_one_step": latents[0],
        "latent_last_step": latents[-1],
        "pixel_last_step": pixels[-1],
    }


def drift(name: str, steps: int, most: int = 64) -> Row:
    """Batches taken as they come: rows among `most` against themselves alone."""
    made, keys = as_world(name), row_keys(range(most))
    whole = walk(made, keys, steps)
    rows = [slice(row, row + 1) for row in range(0, most, 8)]
    return farthest([(whole, walk(made, keys[row], steps), row) for row in rows])


def across_threads(name: str, steps: int, rows: int = 4) -> Row:
    """One thread against two, at equal batch size."""
    made, keys, before = as_world(name), row_keys(range(rows)), torch.get_num_threads()
    walks = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            walks.append(walk(made, keys, steps))
    finally:
        torch.set_num_threads(before)
    return farthest([(*walks, slice(None))])

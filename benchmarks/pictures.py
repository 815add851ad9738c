"""Look at the dreams: real against dreamed rollouts under the same actions, as pictures.

    python -m benchmarks.pictures --world car-racing --data data/car-racing --out docs/media

Writes rollouts.png (a contact sheet by horizon), rollouts.mp4 (real | dream), the same for pages as
rollouts.webp, and long-dream.png (one dream, every 50 steps).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import tyro
from PIL import Image
from torch import Tensor

from worldsim.core import row_keys
from worldsim.data import Dataset, NativeDataset
from worldsim.evaluate.clips import Clips, Recorded, cut_clips, split_for
from worldsim.flags import refuse_repeated
from worldsim.play import film as video
from worldsim.recipes.car_racing import landmarks as car_racing
from worldsim.store.folder import load
from worldsim.world.diffusion import DiffusionWorld
from worldsim.world.rollout import dream_frames

HORIZONS = (0, 1, 2, 4, 8, 16, 32, 60)
LONG_EVERY, LONG_STEPS = 50, 1000
SPREAD = 8  # of the test episodes, every so many-th gives a clip: all behaviours are among them


def main(
    world: str = "car-racing",
    data: Path = Path("data/car-racing"),
    out: Path = Path("docs/media"),
    starts: int = 4,
    steps: int = 150,
    device: str = "cpu",
) -> None:
    """Draw real against dreamed rollouts.

    Args:
        world: a bundled world's name or a folder.
        data: a folder of episodes, whose test episodes are shown.
        out: folder for the pictures.
        starts: clips, each of another test episode.
        steps: length of the film, in steps; at least 60.
        device: where to compute.
    """
    loaded = load(world, device)
    clips = pick(loaded, NativeDataset(data), starts, max(steps, HORIZONS[-1]))
    state = clips.begin(loaded)
    actions = clips.actions.to(loaded.device)
    dreamed = dream_frames(loaded, state, actions).reshape(clips.frames.shape)
    video.save_picture(out / "rollouts.png", rollout_sheet(clips, dreamed))
    rate = loaded.spec.fps / loaded.spec.chunk
    film = rollout_film(clips, dreamed, rate)
    video.save_film(out / "rollouts.mp4", film, rate)
    save_animation(out / "rollouts.webp", film[::2], rate / 2)
    video.save_picture(out / "long-dream.png", long_sheet(loaded, clips.actions[0]))
    print(f"wrote rollouts.png, .mp4, .webp and long-dream.png into {out}")


def save_animation(path: Path, pictures: Sequence[video.Picture], fps: float) -> None:
    """Write a film that a page shows as a picture (WebP), a third smaller."""
    shown = [
        Image.fromarray(p).resize((p.shape[1] * 2 // 3, p.shape[0] * 2 // 3)) for p in pictures
    ]
    shown[0].save(path, save_all=True, append_images=shown[1:], duration=round(1000 / fps),
                  loop=0, quality=50, method=6)  # fmt: skip


def pick(world: DiffusionWorld, data: Dataset, starts: int, steps: int) -> Clips:
    """The middle of `starts` test episodes that are long enough."""
    found, context = [], world.spec.context
    _, test = split_for(data, world.spec, "test")
    for place in range(0, len(test), SPREAD):
        first = (test.lengths[place] - steps) // 2
        if first >= context:
            episode = Recorded.of(test.episode(place), world.spec.action)
            found.append(cut_clips(episode, place, [first], context, steps))
        if len(found) == starts:
            break
    if not found:
        raise SystemExit(f"data: no test episode has {steps} steps; pass a smaller --steps")
    return Clips.cat([c for c in found if c is not None])


def rollout_sheet(clips: Clips, dreamed: Tensor) -> video.Picture:
    """Real row above dreamed row for every clip, by horizon in steps."""
    rows, names = [], []
    for i in range(len(clips)):
        for name, frames in (("real", clips.frames[i]), ("dream", dreamed[i])):
            shown = [clips.context[i, -1] if h == 0 else frames[h - 1, -1] for h in HORIZONS]
            rows.append([frame.numpy() for frame in shown])
            names.append(name)
    heads = [f"step {h}" if h else "last context" for h in HORIZONS]
    return video.sheet(rows, names, heads)


def rollout_film(clips: Clips, dreamed: Tensor, rate: float) -> list[video.Picture]:
    """One picture a step: a tile for every clip, real left and dreamed right of each other."""
    films = []
    for t in range(dreamed.shape[1]):
        tiles = []
        for i in range(len(clips)):
            pair = [video.enlarge(x[i, t, -1].numpy(), 4) for x in (clips.frames, dreamed)]
            width = pair[0].shape[1]
            texts = ("real", f"dream, {(t + 1) / rate:.1f} s after the last real frame")
            heads = [video.label(text, width) for text in texts]
            tiles.append(video.below([video.beside(heads), video.beside(pair)]))
        columns = [video.below(tiles[i::2]) for i in range(2 if len(tiles) % 2 == 0 else 1)]
        films.append(video.beside(columns) if len(columns) == 2 else video.below(tiles))
    return films


def long_sheet(world: DiffusionWorld, actions: Tensor) -> video.Picture:
    """One dream from a start clip, every 50 steps up to 1,000.

    Driven by sight where the world looks like CarRacing, else by these actions, looped.
    """
    state = world.reset(row_keys([0]))
    shown = [world.decode(state)[0, -1].cpu().numpy()]
    drive = actions[:1]
    for t in range(LONG_STEPS):
        if not car_racing.recognised(world.spec):
            drive = actions[t % len(actions)][None]
        else:
            drive = car_racing.steer_by_sight(world.decode(state)[:, -1].cpu(), drive[:, 0])
        state, _ = world.step(state, drive.to(world.device))
        if (t + 1) % LONG_EVERY == 0:
            shown.append(world.decode(state)[0, -1].cpu().numpy())
    columns = 7
    pages = [shown[i : i + columns] for i in range(0, len(shown), columns)]
    tiles = []
    for p, page in enumerate(pages):
        width = page[0].shape[1] * 2
        steps = [(p * columns + i) * LONG_EVERY for i in range(len(page))]
        tiles.append(video.beside([video.label(f"step {s}", width) for s in steps]))
        tiles.append(video.beside([video.enlarge(frame, 2) for frame in page]))
    return video.below(tiles)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    tyro.cli(main, description=__doc__, args=refuse_repeated(sys.argv[1:]))

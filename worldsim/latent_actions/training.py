"""Training of a latent action model: foretell what follows from the first chunks and codes alone.

The forward model begins alone: what it learns from the past, codes need not tell. Codes are
bounded, by a rate of information or by their levels; few labels, where there are some, are read off
them linearly (LAOM, 2502.00379).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from worldsim.config import to_json
from worldsim.core import ActionSpec, WorldError
from worldsim.data.dataset import Dataset
from worldsim.data.windows import Windows
from worldsim.models.latent_actions import STILL, Code, LatentActionConfig, LatentActionModel
from worldsim.store.latent_actions import save_latent_actions
from worldsim.train.checkpoint import fingerprint
from worldsim.train.checks import check_data
from worldsim.train.loop import FitConfig, Losses, Watch, fit

from .adapting import begin_from
from .labels import Labels, labels_for

LEAST_STEPS = 2
"""Chunks to draw a clip, at the least: from one step alone a code need not say what was done."""

SEEN, SEEN_RUN = 3000, 12
"""Chunks that the basis is found in, and how many of them in a row."""

PIECE = 256  # chunks read together
MEASURED = 2048
"""Clips that the spread of latent actions is measured on."""

CODES = (2, 2, 2)
"""Levels of the eight codes that someone plays with."""


@dataclass(frozen=True, kw_only=True)
class LatentActionTraining:
    """How to train.

    Attributes:
        fit: the loop's settings.
        steps: chunks foretold from codes, in a row, each from those before it as foretold.
        alone: share of the training at whose start no clip is told anything.
        rate: nats that a continuous latent action holds on average; excess: what a nat more, or
            less, costs: codes that tell nothing are not listened to any more.
        uneven: what codes cost that are used less evenly than `USED`, a nat of entropy.
        labelled: weight of the readout's loss. labelled_batch: labelled windows a step.
    """

    fit: FitConfig = field(
        default_factory=lambda: FitConfig(steps=4000, batch=128, lr=3e-3, ema=0.995, warmup=50)
    )
    steps: int = 2
    alone: float = 0.3
    rate: float = 2.0
    excess: float = 0.1
    uneven: float = 0.05
    labelled: float = 0.3
    labelled_batch: int = 32


MOVING = LatentActionTraining(
    fit=FitConfig(steps=1500, batch=48, lr=2e-3, ema=0.995, warmup=50), alone=0.1
)
"""How to train a model that moves pictures, of which a step takes longer."""


def readout_error(model: LatentActionModel, latent: Tensor, actions: Tensor) -> Tensor:
    """Loss of the readout of latent actions (N, L) against actions (N, *action)."""
    spec = model.config.action
    assert model.readout is not None
    out = model.readout(latent)
    if not spec.is_discrete:
        return F.mse_loss(out, spec.to_normalized(actions))
    entries = (actions - spec.least).reshape(len(actions), -1).unbind(-1)
    parts = zip(out.split(list(spec.choices), -1), entries, strict=True)
    return torch.stack([F.cross_entropy(x, y) for x, y in parts]).mean()


USED = 0.8
"""Share of the codes that shall be in use, as if evenly: where all have to be, those that an action
does not need say where things are."""

SHARP = 2.0
"""By which squared distances to codes become odds, one distance of levels being 2."""


def uneven(model: LatentActionModel, values: Tensor) -> Tensor:
    """Nats that a batch's codes lack of the entropy of `USED` codes, from values (..., L)."""
    book = model.codebook().to(values.device)
    distance = ((values.flatten(0, -2)[:, None] - book) ** 2).sum(-1)
    share = (-SHARP * distance).softmax(-1).mean(0)
    lacking = math.log(USED * len(book)) + (share * share.clamp(min=1e-9).log()).sum()
    return lacking.clamp(min=0)


def drawn(code: Code, g: torch.Generator) -> Tensor:
    """Latent actions with their noise. Labels are read from these, too: few of them could be
    learned by heart from the means."""
    return code.mean + (0.5 * code.logvar).exp() * torch.randn(code.mean.shape, generator=g)


def latent_losses(
    model: LatentActionModel, parts: Tensor, training: LatentActionTraining, g: torch.Generator,
    labelled: tuple[Tensor, Tensor] | None = None, *, done: float = 1.0,
) -> Losses:  # fmt: skip
    """Losses of clips' parts (B, window - 1 + T, P), and of labelled windows (N, window, P) and
    their actions.

    done: share of the training that is done.
    """
    config, before = model.config, model.config.window - 1
    code, alone = model.code(parts), done < training.alone
    losses: Losses = {}
    if config.levels:
        latent = model.quantised(code.mean)
        losses["uneven"] = training.uneven * uneven(model, code.mean)
    else:
        latent = drawn(code, g)
        nats = code.kl().mean()
        losses["_nats"] = nats.detach()
        if not alone:
            losses["rate"] = training.excess * (nats - training.rate).abs()
    told = config.moves or not alone  # what only moves pictures learns nothing of the past alone
    foretold = model.ahead(parts[:, :before], latent * told)
    losses["foretold"] = model.missed(foretold, parts[:, before:])
    if labelled is not None:
        newest = Code(*(x[:, -1] for x in model.code(labelled[0])))
        seen = model.quantised(newest.mean) if config.levels else drawn(newest, g)
        losses["labelled"] = training.labelled * readout_error(model, seen, labelled[1])
    return losses


class Parts(NamedTuple):
    """Chunks of recordings as a model's dynamics see them, N in all: (N, P), pixels in half
    precision; and what belongs together. `first` has each episode's first row by its name."""

    rows: Tensor
    windows: Windows
    first: dict[str, int]

    def clips(self, count: int, length: int, g: torch.Generator) -> Tensor:
        """Random clips (count, length, P)."""
        return self.rows[self.windows.sample(count, length, g)].float()


def pieces(data: Dataset, place: int, piece: int = PIECE) -> Iterator[Tensor]:
    """Frames of an episode, in pieces (1, n * chunk, H, W, 3)."""
    episode, step = data.episode(place), piece * data.spec.chunk
    for first in range(0, len(episode.frames), step):
        yield torch.from_numpy(np.array(episode.frames[first : first + step]))[None]


@torch.no_grad()
def fit_basis(model: LatentActionModel, several: Sequence[Dataset]) -> None:
    """The basis of recordings, from chunks spread over them; raises WorldError for one in which
    nothing moves."""
    seen = []
    for data in several:
        runs = []
        for place in range(0, len(data), max(1, len(data) // (SEEN // SEEN_RUN))):
            frames = next(pieces(data, place, SEEN_RUN))
            if frames.shape[1] == SEEN_RUN * data.spec.chunk:
                runs.append(model.prepared(frames))
        runs = runs or [model.prepared(next(pieces(data, 0, min(data.lengths))))]
        change = max(float((x[:, 1:] - x[:, :-1]).abs().amax()) for x in runs if x.shape[1] > 1)
        if change <= 2 * STILL:
            raise WorldError(
                f"data: expected something that moves in {data.spec.name}, got frames that change "
                f"by {change / 2:.1%} at most; where nothing is done, nobody can tell what was"
            )
        seen += runs
    shortest = min(x.shape[1] for x in seen)
    model.fit_basis(torch.cat([x[:, :shortest] for x in seen]))


@torch.no_grad()
def parts_of(model: LatentActionModel, several: Sequence[Dataset]) -> Parts:
    """All chunks, read once: 512 bytes each along the basis, 12 kB of two frames' pixels."""
    kept = torch.float16 if model.config.moves else torch.float32
    rows: list[Tensor] = []
    first: dict[str, int] = {}
    count = 0
    for data in several:
        for place in tqdm(range(len(data)), desc="reading", leave=False):
            first[data.names[place]] = count
            found = [model.parts(model.prepared(x))[0].to(kept) for x in pieces(data, place)]
            rows += found
            count += sum(map(len, found))
    lengths = tuple(length for data in several for length in data.lengths)
    return Parts(torch.cat(rows), Windows(lengths), first)


def clip_length(data: Dataset, config: LatentActionConfig, training: LatentActionTraining) -> int:
    """Chunks of a clip, as its episodes allow; WorldError where they are too short."""
    longest = max(data.lengths, default=0)
    least = config.window - 1 + LEAST_STEPS
    if longest < least:
        raise WorldError(
            f"data: expected episodes of {least} chunks of {data.spec.chunk} frames or more in "
            f"{data.spec.name}, got {longest} at most; record longer ones, or with a smaller chunk"
        )
    return min(config.window - 1 + training.steps, longest)


def new_model(config: LatentActionConfig, seed: int = 0) -> LatentActionModel:
    """An untrained model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LatentActionModel(config)


def fit_latent_actions(
    model: LatentActionModel,
    parts: Parts,
    length: int,
    training: LatentActionTraining,
    folder: Path,
    settings: dict[str, Any],
    labelled: tuple[Tensor, Tensor] | None = None,
    watch: Watch | None = None,
) -> LatentActionModel:
    """Train `model` in `folder` (resumes there) on clips of `length` chunks; returns the averaged
    network with its spread measured.

    labelled: windows (N, window, P) and their actions (N, *action).
    """

    def losses(net: nn.Module, ema: nn.Module, step: int, g: torch.Generator) -> Losses:
        assert isinstance(net, LatentActionModel)
        taken = None
        if labelled is not None:
            rows = torch.randint(len(labelled[0]), (training.labelled_batch,), generator=g)
            taken = labelled[0][rows], labelled[1][rows]
        clips, done = parts.clips(training.fit.batch, length, g), step / training.fit.steps
        return latent_losses(net, clips, training, g, taken, done=done)

    known = to_json(training) | {"model": to_json(model.config), "begin": fingerprint(model)}
    trained = fit(model, losses, training.fit, folder, known | settings, watch=watch)
    assert isinstance(trained, LatentActionModel)
    with torch.no_grad():
        clips = parts.clips(MEASURED, length, torch.Generator().manual_seed(0))
        latent = trained.quantised(trained.code(clips).mean)
        trained.spread.copy_(latent.flatten(0, 1).std(0).clamp(min=1e-4))
    return trained.eval().requires_grad_(False)


def labelled_windows(parts: Parts, labels: Labels, window: int) -> tuple[Tensor, Tensor]:
    """Windows (N, window, P) that end with each labelled chunk, and its actions.

    Chunks with less than a window before them are left out; raises WorldError where none remains.
    """
    rows, actions = [], []
    for name, (chunks, values) in labels.rows.items():
        enough = torch.from_numpy(chunks >= window - 1)
        rows.append(parts.first[name] + torch.from_numpy(chunks)[enough])
        actions.append(values[enough])
    ends = torch.cat(rows)
    if not len(ends):
        raise WorldError(
            f"labels: expected some of chunks from {window - 1} on, whose past is seen, got none"
        )
    return parts.rows[ends[:, None] + torch.arange(1 - window, 1)].float(), torch.cat(actions)


def train_latent_actions(
    dataset: Dataset | Sequence[Dataset],
    labels: Any = None,
    *,
    out: str | Path | None = None,
    run: str | Path | None = None,
    codes: bool = False,
    dim: int = 6,
    size: tuple[int, int] = (32, 32),
    moves: bool = False,
    steps: int | None = None,
    seed: int = 0,
    training: LatentActionTraining | None = None,
    begin: LatentActionModel | None = None,
) -> LatentActionModel:
    """Learn what was done in recorded video, without its actions or with few of them.

        lam = worldsim.train_latent_actions(worldsim.open("films/"))
        latent, confidence = lam.infer(frames)

    Args:
        dataset: any recording; its actions are not looked at, except as `labels` say. Of several
            worlds' recordings, of one chunk, batches take turns.
        labels: None; a table (a path: CSV or Parquet with columns `episode`, `chunk` and `action`
            or several `action_*`); a share of the recorded actions, above 0 to 1; or `Labels`.
        out: a file to write the model to.
        run: folder of checkpoints and logs to go on from; a passing one if None.
        codes: eight codes to play with instead of `dim` continuous numbers.
        dim: numbers of a latent action.
        size: (height, width) that frames are reduced to, multiples of 8.
        moves: latent actions move the picture before instead of changing its principal components:
            for cameras that go along with the player.
        steps: of the optimiser; 4000 by default, 1500 where pictures are moved.
        seed: names every random choice.
        training: losses, rates and batches of your own.
        begin: a model to go on from, of the same sizes, which saw more or other video.

    Raises WorldError, before the first step, for a recording in which nothing moves or whose
    episodes are too short, and for labels that are not of this recording.
    """
    several = [dataset] if isinstance(dataset, Dataset) else list(dataset)
    data = _checked(several, labels)
    training = training or (MOVING if moves else LatentActionTraining())
    fit_config = replace(training.fit, seed=seed, steps=steps or training.fit.steps)
    training = replace(training, fit=fit_config)
    given = labels_for(data[0], labels, seed)
    chunk = data[0].spec.chunk
    config = LatentActionConfig(
        chunk=chunk,
        size=size,
        dim=len(CODES) if codes else dim,
        levels=CODES if codes else (),
        window=2 if chunk > 1 else 3,  # two frames before show how fast things were
        action=ActionSpec(kind="none") if given is None else given.action,
        moves=moves,
    )
    lengths = [clip_length(some, config, training) for some in data]
    model = new_model(config, seed)
    fit_basis(model, data)
    if begin is not None:
        begin_from(model, begin)
    parts = parts_of(model, data)
    labelled = None if given is None else labelled_windows(parts, given, config.window)
    settings = {
        "data": [some.fingerprint() for some in data], "labels": 0 if given is None else len(given)
    }  # fmt: skip
    with TemporaryDirectory(prefix=".latent-actions-") as passing:
        folder = Path(passing) if run is None else Path(run)
        trained = fit_latent_actions(
            model, parts, min(lengths), training, folder, settings, labelled
        )
    if out is not None:
        save_latent_actions(trained, out)
    return trained


def _checked(several: Sequence[Dataset], labels: Any) -> list[Dataset]:
    """Their training splits; raises WorldError for recordings that do not go together."""
    for some in several:
        check_data(some)
    chunks = {some.spec.chunk for some in several}
    if len(chunks) != 1:
        raise WorldError(f"dataset: expected recordings of one chunk, got {sorted(chunks)}")
    if labels is not None and len(several) > 1:
        raise WorldError("labels: expected None for several recordings; give them to the last one")
    return [some.split("train") for some in several]

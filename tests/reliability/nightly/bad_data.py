"""E2, E3: recorded data that is hostile is refused, and an honest mistake is named.

Sets are read as a training reads them, with a budget for what one file may unpack to.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import tempfile
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tests.reliability.nightly.audit import Audit
from tests.reliability.nightly.rows import Outcome, Row, main
from tests.world_folders import Payload
from worldsim.core import ActionSpec
from worldsim.data import DatasetError, DatasetSpec, Episode, NativeDataset, NativeWriter
from worldsim.data.native import MAX_PIECE

BUDGET = MAX_PIECE  # bytes that one array may unpack to
PIECE = "frames_000000"
N, H, W = 10, 16, 16
Draw = random.Random
Arrays = dict[str, Any]
NAME = "episode_000001.npz"


def dataset(folder: Path) -> Path:
    """Two good episodes."""
    action = ActionSpec(kind="continuous", low=(-1.0, 0.0), high=(1.0, 1.0))
    spec = DatasetSpec(name="good", frame_shape=(H, W, 3), fps=20.0, chunk=2, action=action,
                       has_rewards=True)  # fmt: skip
    writer = NativeWriter(folder, spec)
    for seed in range(2):
        g = np.random.default_rng(seed)
        whole = Episode(
            name=f"episode_{seed:06d}", frames=g.integers(0, 256, (2 * N, H, W, 3), np.uint8),
            chunk=2, fps=20.0, actions=g.uniform(0, 1, (N, 2)).astype(np.float32),
            rewards=np.zeros(N, np.float32), seed=seed, policy="still",
        )  # fmt: skip
        writer.write("train", whole)
    return folder


def read(folder: Path) -> None:
    """Read the training split, every frame of it."""
    data = NativeDataset(folder).split("train")
    for place in range(len(data)):
        data.episode(place).frames[:]


def arrays(path: Path) -> Arrays:
    """The arrays of an episode."""
    with np.load(path) as file:
        return dict(file)


def npy(array: Any) -> bytes:
    """A .npy file, of objects too."""
    stream = io.BytesIO()
    np.save(stream, np.asarray(array), allow_pickle=True)
    return stream.getvalue()


def rewrite(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> None:
    """An episode file of these entries."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def header(descr: str, shape: tuple[int, ...]) -> bytes:
    """A .npy header that declares what it likes."""
    stream = io.BytesIO()
    told = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, told)
    return stream.getvalue()


# --- E2: made to harm ---


def bomb(path: Path, draw: Draw) -> None:
    """Zeros that unpack to more than the budget."""
    entries = {f"{k}.npy": npy(v) for k, v in arrays(path).items()}
    frames = 2 * BUDGET // (H * W * 3)
    entries[f"{PIECE}.npy"] = header("|u1", (frames, H, W, 3)) + bytes(frames * H * W * 3)
    rewrite(path, entries)


def declared(path: Path, draw: Draw) -> None:
    """A header that declares another size than is there."""
    entries = {f"{k}.npy": npy(v) for k, v in arrays(path).items()}
    shapes = (
        (2**40, H, W, 3),
        (2**62, 2**62, 2, 3),
        (-1, H, W, 3),
        (2 * N + 2, H, W, 3),
        (0, 2**60, W, 3),
    )
    entries[f"{PIECE}.npy"] = header("|u1", draw.choice(shapes)) + bytes(
        draw.choice((0, 48, 15360))
    )
    rewrite(path, entries)


def wide_type(path: Path, draw: Draw) -> None:
    """An element that is itself enormous."""
    entries = {f"{k}.npy": npy(v) for k, v in arrays(path).items()}
    entries["meta.npy"] = header(f"<U{draw.choice((2**29 - 1, 10**6))}", ()) + b"xxxx"
    rewrite(path, entries)


def objects(path: Path, draw: Draw) -> None:
    """An array of objects: a pickle."""
    entries = {f"{k}.npy": npy(v) for k, v in arrays(path).items()}
    entries[f"{draw.choice(sorted(arrays(path)))}.npy"] = npy(np.array([Payload()], object))
    rewrite(path, entries)


def foreign(path: Path, draw: Draw) -> None:
    """Another file under an episode's name."""
    stray = io.BytesIO()
    np.save(stray, np.zeros(3))
    kinds = (
        pickle.dumps(Payload()), b"", b"PK\5\6" + bytes(18), b"\x89HDF\r\n\x1a\n" + bytes(100),
        b"#!/bin/sh\ntouch ran\n", stray.getvalue(), os.urandom(10_000), b"PK\3\4" + bytes(200),
    )  # fmt: skip
    path.write_bytes(draw.choice(kinds))


def zip_trick(path: Path, draw: Draw) -> None:
    """A zip that leads elsewhere, says a thing twice, or is packed in a way of its own."""
    entries = {f"{k}.npy": npy(v) for k, v in arrays(path).items()}
    kind = draw.choice(("escape", "twice", "many", "encrypted", "method", "sizes"))
    if kind == "escape":
        extra = draw.choice(("../ran", "/etc/passwd", "C:\\ran", "meta.npy/../../ran"))
        rewrite(path, entries | {extra: b"x"})
    elif kind == "many":
        rewrite(path, entries | {f"{i}.npy": b"" for i in range(20_000)}, zipfile.ZIP_STORED)
    elif kind == "twice":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"{PIECE}.npy", b"other")
    else:
        rewrite(path, entries)
        data = bytearray(path.read_bytes())
        spot = data.index(b"PK\1\2")  # the directory's first entry
        sizes = (24, b"\xf0\xff\xff\x0f")
        flags = {"encrypted": (8, b"\x01\x00"), "method": (10, b"\x63\x00"), "sizes": sizes}
        place, value = flags[kind]
        data[spot + place : spot + place + len(value)] = value
        path.write_bytes(data)


def link(path: Path, draw: Draw) -> None:
    """A way out of the folder, or one that blocks."""
    kept, kind = path.parent.parent.parent / "kept", draw.randrange(5)
    if kind == 0:  # the whole split lies elsewhere
        path.parent.rename(kept)
        path.parent.symlink_to(kept)
        return
    path.rename(kept)
    if kind == 1:
        path.symlink_to(kept)
    elif kind == 2:
        path.symlink_to(draw.choice(("/dev/zero", "/etc/passwd", "/proc/self/mem", "nowhere")))
    elif kind == 3:
        os.mkfifo(path)
    else:
        path.mkdir()


def description(path: Path, draw: Draw) -> None:
    """A dataset.json that names code, leads elsewhere or is endless."""
    file = path.parent.parent / "dataset.json"
    raw = json.loads(file.read_text())
    texts = (
        json.dumps(raw | {"env_spec": {"entry_point": "os:system", "kwargs": {"command": "true"}}}),
        json.dumps(raw | {"requirements": ["evil"], "_target_": "os.system"}),
        json.dumps(raw | {"action": {"kind": "continuous", "low": [-1e999], "high": [1]}}),
        json.dumps(raw | {"splits": {"../../kept": [0, 10]}}),
        json.dumps(raw | {"splits": {"/etc": [0, 10], "train": [10, 20]}}),
        json.dumps(raw | {"frame_shape": [10**30, 1, 3]}),
        json.dumps(raw | {"chunk": "1" * 10**5}),
        json.dumps(raw)[:-1] + ', "chunk": 3}', "[" * 100_000, '{"a":' * 50_000, "",
        json.dumps(raw | {"env_id": "x" * (2 * 2**20)}),
    )  # fmt: skip
    if draw.random() < 0.15:
        file.unlink()
        file.symlink_to("/dev/zero")
    else:
        file.write_text(draw.choice(texts))


HOSTILE = (bomb, declared, wide_type, objects, foreign, zip_trick, link, description)


# --- E3: honest mistakes, and the field that the error must name ---

Mistake = tuple[str, Callable[[Arrays, Draw], Arrays]]


def _some_nan(values: NDArray[Any], draw: Draw) -> NDArray[Any]:
    spoilt = values.copy()
    spoilt.reshape(-1)[draw.randrange(spoilt.size)] = draw.choice((np.nan, np.inf, -np.inf))
    return spoilt


def _said(changes: dict[str, Any]) -> Callable[[Arrays, Draw], Arrays]:
    """Other words in the description of the episode."""
    return lambda a, d: a | {"meta": np.array(json.dumps(json.loads(a["meta"].item()) | changes))}


def _frames(change: Callable[[NDArray[Any], Draw], NDArray[Any]]) -> Mistake:
    return PIECE, lambda a, d: a | {PIECE: change(a[PIECE], d)}


MISTAKES: tuple[Mistake, ...] = (
    # a frame more than declared, or one less
    _frames(lambda x, d: np.concatenate([x, x[:1]])),
    _frames(lambda x, d: x[1:]),
    _frames(lambda x, d: x.transpose(0, 3, 1, 2).copy()),
    _frames(lambda x, d: x[..., :1]),
    _frames(lambda x, d: x[..., [0, 1, 2, 0]]),
    _frames(lambda x, d: (x / 255).astype(d.choice(("f4", "f8")))),
    _frames(lambda x, d: x.astype(d.choice(("i2", "u2", "i8")))),
    _frames(lambda x, d: x[:, ::2]),
    _frames(lambda x, d: np.asfortranarray(x)),
    ("actions", lambda a, d: a | {"actions": a["actions"][1:]}),
    ("actions", lambda a, d: a | {"actions": a["actions"][:, : d.choice((0, 1))]}),
    ("actions", lambda a, d: a | {"actions": a["actions"] * d.choice((100, -1)) - 2}),
    ("actions", lambda a, d: a | {"actions": _some_nan(a["actions"], d)}),
    ("rewards", lambda a, d: a | {"rewards": _some_nan(a["rewards"], d)}),
    ("rewards", lambda a, d: a | {"rewards": np.zeros(d.choice((N + 1, N - 1, 1)), np.float32)}),
    ("rewards", lambda a, d: a | {"rewards": np.zeros((N, 1), np.float32)}),
    ("rewards", lambda a, d: a | {"rewards": np.zeros(N, "i8")}),
    ("known", lambda a, d: a | {"known": np.zeros(N)}),
    ("known", lambda a, d: a | {"known": np.zeros(N + 1, bool)}),
    ("state", lambda a, d: a | {"state": np.zeros((N, 2), np.float32)}),
    ("arrays", lambda a, d: {k: v for k, v in a.items() if k != PIECE}),
    ("arrays", lambda a, d: a | {"observations": a[PIECE]}),
    ("meta", lambda a, d: a | {"meta": np.array(7)}),
    ("seed", _said({"seed": -1})),
    ("chunk", _said({"chunk": 1})),
    ("fps", _said({"fps": 25.0})),
    ("text", _said({"text": "a car"})),
    ("frames", _said({"frames": [2 * N, H, W, 4]})),
    ("format", _said({"version": 1})),
    ("meta", _said({"terminated": 1})),
)  # fmt: skip


def mistake(case: int, path: Path, draw: Draw) -> str:
    """Make one; the field that the error must name."""
    field, change = MISTAKES[case % len(MISTAKES)]
    np.savez_compressed(path, **change(arrays(path), draw))  # type: ignore[arg-type]
    return field


# --- both ---


def hostile(count: int) -> Outcome:
    """Read `count` hostile sets."""
    draw, failures, tried, most = random.Random(0), [], Counter(), 0
    with tempfile.TemporaryDirectory() as root, Audit() as audit:
        good = dataset(_new(Path(root) / "good"))
        with audit.learning():
            read(good)
        for case in tqdm(range(count), desc="hostile sets", leave=False):
            harm, place = HOSTILE[case % len(HOSTILE)], Path(root) / "case"
            folder = shutil.copytree(good, place / "set")
            harm(folder / "train" / NAME, draw)
            tracemalloc.start()  # tells of NumPy's arrays, too
            with audit.watching(folder):
                wrong = _answer(folder, "")
            taken = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            most = max(most, taken)
            wrong += [f"{taken / 2**20:.0f} MiB"] if taken > 2 * BUDGET else []
            failures += [f"case {case}, {harm.__name__}: {x}" for x in [*wrong, *audit.found()]]
            tried[harm.__name__] += 1
            shutil.rmtree(place)
    figures = {"most memory / budget": most / BUDGET, **tried}
    return Outcome(failures=failures, figures=figures)


def honest(count: int) -> Outcome:
    """Read `count` sets with a mistake in one episode."""
    draw, failures = random.Random(0), []
    with tempfile.TemporaryDirectory() as root:
        good = dataset(_new(Path(root) / "good"))
        for case in tqdm(range(count), desc="mistakes", leave=False):
            folder = shutil.copytree(good, Path(root) / "set")
            field = mistake(case, folder / "train" / NAME, draw)
            wrong = _answer(folder, field)
            failures += [f"mistake {case % len(MISTAKES)}, {field}: {x}" for x in wrong]
            shutil.rmtree(folder)
    return Outcome(failures=failures, figures={"kinds": len(MISTAKES)})


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _answer(folder: Path, field: str) -> list[str]:
    """What is wrong with the way in which a set is refused."""
    try:
        read(folder)
    except DatasetError as error:
        text = str(error)
        told = not field or (f"{NAME}: {field}: expected " in text and ", got " in text)
        return [] if told and len(text) < 2000 else [f"vague: {text}"[:400]]
    except Exception as error:
        return [f"untyped: {error!r}"[:300]]
    return ["accepted"]


ROWS = (
    Row(name="E2", promise="a hostile data set is refused; no code, no way out, memory within 2x",
        unit="sets", ci=24, full=200, attempt=hostile),
    Row(name="E3", promise="an honest mistake gets an error that names file, episode and field",
        unit="mistakes", ci=len(MISTAKES), full=216, attempt=honest),
)  # fmt: skip

if __name__ == "__main__":
    main(ROWS)

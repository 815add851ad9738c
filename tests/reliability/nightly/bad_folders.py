"""D4: a damaged, foreign or hostile world folder is refused, fast and small, and runs nothing.

Cases are drawn from a seed: damage (bits, cuts), forgeries whose hashes fit, and folders made to
harm whoever opens them.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import resource
import shutil
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from tqdm import tqdm

from tests.reliability.nightly.audit import Audit
from tests.reliability.nightly.rows import Outcome, Row, main
from tests.store.test_networks import hostile_weights
from tests.world_folders import Payload, forge, forge_manifest, forge_weights, fresh
from worldsim.store.folder import load
from worldsim.store.manifest import CARD, CONFIG, MANIFEST, STARTS, WEIGHTS, WorldFolderError

SECONDS, MEBIBYTES = 2.0, 256
FILES = (MANIFEST, CONFIG, *WEIGHTS, STARTS, CARD)
Draw = random.Random
Harm = Callable[[Path, Draw], None]


# --- damage ---


def cut(folder: Path, draw: Draw) -> None:
    """A file that ends early."""
    path = folder / draw.choice(FILES)
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def flip(folder: Path, draw: Draw) -> None:
    """A bit that turned over."""
    path = folder / draw.choice(FILES)
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def swap(folder: Path, draw: Draw) -> None:
    """Two files in each other's place."""
    a, b = (folder / name for name in draw.sample(FILES, 2))
    first = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(first)


def misplace(folder: Path, draw: Draw) -> None:
    """No file, or none that is a file: a link, a pipe, a folder."""
    path, kept = folder / draw.choice(FILES), folder.parent / "kept"
    path.rename(kept)
    kind = draw.randrange(5)
    if kind == 0:
        path.symlink_to(kept)
    elif kind == 1:
        path.symlink_to("/dev/zero")
    elif kind == 2:
        os.mkfifo(path)
    elif kind == 3:
        path.mkdir()


# --- forgeries ---


def flip_header(folder: Path, draw: Draw) -> None:
    """A bit that turned over in what a weights file says of its tensors, with the hash to match."""
    name = draw.choice(WEIGHTS)
    data = bytearray((folder / name).read_bytes())
    text = bytes(data[8 : 8 + int.from_bytes(data[:8], "little")])
    told = text.index(b"}", text.index(b"__metadata__")) + 1  # what it says of itself is free
    spot = draw.choice([i for i in range(told, len(text.rstrip())) if text[i : i + 1] not in b" "])
    data[8 + spot] ^= 1 << draw.randrange(7)
    forge(folder, name, bytes(data), list_tensors=False)


def other_tensors(folder: Path, draw: Draw) -> None:
    """Weights of another shape, type or name, or that are not finite."""
    name = draw.choice(WEIGHTS)
    key = draw.choice(sorted(safetensors.torch.load((folder / name).read_bytes())))

    def spoil(state: dict[str, torch.Tensor]) -> None:
        value, place = state[key], draw.randrange(state[key].numel())
        bad = value.clone().reshape(-1)
        bad[place] = draw.choice((float("nan"), float("inf"), float("-inf")))
        kinds = {
            "shape": value[None], "longer": torch.cat([value.reshape(-1)] * 2),
            "F64": value.double(), "I64": value.long(), "bool": value > 0,
            "bad": bad.reshape(value.shape),
        }  # fmt: skip
        kind = draw.choice([*kinds, "gone", "more", "renamed"])
        if kind == "more":
            state["more"] = value.clone()
        elif kind == "gone":
            del state[key]
        elif kind == "renamed":
            state[key + "_"] = state.pop(key)
        else:
            state[key] = kinds[kind]

    forge_weights(folder, name, spoil)


def hostile_tensors(folder: Path, draw: Draw) -> None:
    """Weights files made to harm: pickles, headers of 100 MB, overlaps, repeated keys."""
    name = draw.choice(WEIGHTS)
    data, _ = draw.choice(list(hostile_weights((folder / name).read_bytes())))
    forge(folder, name, data, list_tensors=False)


def stray_pickle(folder: Path, draw: Draw) -> None:
    """A pickle under another name."""
    stream = io.BytesIO()
    torch.save({"a": Payload()}, stream)
    data = draw.choice((pickle.dumps(Payload()), stream.getvalue()))
    name = draw.choice(FILES)
    if name == MANIFEST:
        (folder / name).write_bytes(data)
    else:
        forge(folder, name, data, list_tensors=False)


DEEP = b"[" * 100_000
LONG = b"1" * 100_000
TEXTS = (
    b"", b"[]", b"3", b"null", DEEP, LONG, b'{"a": NaN}', b"\xff\xfe", b'{"a": 1, "a": 2}',
    b'{"a": ' + LONG + b"}", b'{"__class__": "os.system", "_target_": "os.system"}',
)  # fmt: skip


def foreign_json(folder: Path, draw: Draw) -> None:
    """JSON that is none, or another."""
    name, text = draw.choice((MANIFEST, CONFIG, CARD)), draw.choice(TEXTS)
    if name == MANIFEST:
        (folder / name).write_bytes(text)
        return
    fine = name == CARD and text.startswith(b'{"__')  # a card may say anything
    forge(folder, name, b"[]" if fine else text)


def absurd_config(folder: Path, draw: Draw) -> None:
    """A setting of the wrong kind, or one that no world can have."""
    raw = json.loads((folder / CONFIG).read_text())
    parent, key = draw.choice(list(_leaves(raw)))
    wrong = [{}, "x" * draw.choice((1, 10**6)), None, [[]], {"_target_": "os.system"}]
    if type(parent[key]) is int and key not in ("time_limit", "n"):
        wrong += [0, -1, 10**9, 10**30, 2**63, 1.5, True]
    if isinstance(parent[key], str):
        wrong = [7, None, [], {}]
    parent[key] = draw.choice([x for x in wrong if json.dumps(x) != json.dumps(parent[key])])
    if draw.random() < 0.2:
        raw[draw.choice(("extra", "_target_", "__reduce__"))] = "os.system"
    forge(folder, CONFIG, json.dumps(raw).encode())


def _leaves(raw: Any) -> Any:
    items = raw.items() if isinstance(raw, dict) else enumerate(raw)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from _leaves(value)
        else:
            yield raw, key


def other_manifest(folder: Path, draw: Draw) -> None:
    """A manifest that was changed by hand, that leads elsewhere, or of another version."""

    def change(raw: dict[str, Any]) -> None:
        entry = draw.choice(raw["files"])
        draw.choice((
            lambda: raw.update(schema=draw.choice((0, 2, -1, True, "1", None, 1.0, 10**40))),
            lambda: raw.update(format=draw.choice(("", "gguf", None, 1, []))),
            lambda: raw.pop(draw.choice(sorted(raw))),
            lambda: raw.update({draw.choice(("extra", "_target_", "")): 1}),
            lambda: entry.update(name=draw.choice(ESCAPES)),
            lambda: entry.update(bytes=draw.choice((0, -1, 2**70, entry["bytes"] + 1, "1", None))),
            lambda: entry.update(sha256=draw.choice(("", "0" * 64, "f" * 10**6, 3))),
            lambda: raw["files"].append(dict(entry)),
            lambda: raw["files"].remove(entry),
            lambda: raw["files"].extend([dict(entry)] * 10_000),
            lambda: entry.update(tensors=[{"name": "a", "dtype": "F32", "shape": [2**62, 2**62]}]),
        ))()  # fmt: skip

    forge_manifest(folder, change)


ESCAPES = (
    "../kept", "/etc/passwd", "../../etc/passwd", "vae.safetensors/../../kept", "C:\\kept", "",
    ".", "..", "\0", "vae.safetensors\0.txt", "\N{RIGHT-TO-LEFT OVERRIDE}", "a" * 10**5,
    "manifest.json", "dit-00001-of-00002.safetensors",
)  # fmt: skip


def hostile_starts(folder: Path, draw: Draw) -> None:
    """Start clips in a zip that lies, bursts or leads elsewhere."""
    with np.load(folder / STARTS) as file:
        frames, actions = file["frames"], file["actions"]
    good = {"frames.npy": _npy(frames), "actions.npy": _npy(actions)}
    name = draw.choice(sorted(good))
    array = {"frames.npy": frames, "actions.npy": actions}[name]
    kinds: dict[str, Callable[[], dict[str, bytes]]] = {
        "object": lambda: good | {name: _npy(np.array([Payload()]))},
        "type": lambda: good | {name: _npy(array.astype(draw.choice(("f8", "i2", "c8", "S3"))))},
        "shape": lambda: good | {name: _npy(array[..., :-1] if array.ndim > 3 else array[:, :-1])},
        "none": lambda: {
            k: _npy(v[:0]) for k, v in (("frames.npy", frames), ("actions.npy", actions))
        },
        "lies": lambda: good | {name: good[name].replace(b"(4, ", b"(9, ", 1)},
        "huge": lambda: good | {name: good[name].replace(b"(4, ", b"(4000000000, ", 1)},
        "bomb": lambda: good | {name: good[name] + bytes(2**26)},
        "escape": lambda: good | {draw.choice(("../kept", "/etc/kept", "frames.npy/../x")): b"x"},
        "fortran": lambda: good | {name: _npy(np.asfortranarray(array))},
        "many": lambda: good | {f"{i}.npy": b"" for i in range(5_000)},
        "gone": lambda: {name: good[name]},
        "beyond": lambda: good | {"actions.npy": _npy(actions + 5)},
    }
    data = _zip(kinds[draw.choice(sorted(kinds))]())
    if draw.random() < 0.3:
        data = draw.choice((data[: draw.randrange(len(data))], b"PK\5\6" + bytes(18), data[::-1]))
    forge(folder, STARTS, data)


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def _zip(entries: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return stream.getvalue()


HARMS: tuple[Harm, ...] = (
    cut, flip, swap, misplace, flip_header, other_tensors, hostile_tensors, stray_pickle,
    foreign_json, absurd_config, other_manifest, hostile_starts,
)  # fmt: skip


def folders(count: int) -> Outcome:
    """Open `count` bad folders."""
    draw, failures, tried, slowest = random.Random(0), [], Counter(), 0.0
    with tempfile.TemporaryDirectory() as root, Audit() as audit:
        good = fresh(Path(root))
        with audit.learning():
            load(good)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for case in tqdm(range(count), desc="bad folders", leave=False):
            harm = HARMS[case % len(HARMS)]
            place = Path(root) / "case"
            folder = shutil.copytree(good, place / "world")
            harm(folder, draw)
            used = _peak()
            start = time.process_time()
            with audit.watching(place):
                answer = _answer(folder)
            spent, taken = time.process_time() - start, _peak() - used
            slowest = max(slowest, spent)
            wrong = [answer] if answer else []
            wrong += [f"{spent:.1f} s"] if spent > SECONDS else []
            wrong += [f"{taken:.0f} MiB"] if taken > MEBIBYTES else []
            failures += [f"case {case}, {harm.__name__}: {x}" for x in [*wrong, *audit.found()]]
            tried[harm.__name__] += 1
            shutil.rmtree(place)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    figures = {"slowest s": slowest, "memory of all, making them too, MiB": grown, **tried}
    return Outcome(failures=failures, figures=figures)


def _peak() -> float:
    """The most memory that this process ever held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _answer(folder: Path) -> str | None:
    """What is wrong with the way in which a folder is refused."""
    try:
        load(folder)
    except WorldFolderError as error:
        return None if error.remedy and len(str(error)) < 2000 else f"vague: {error}"[:300]
    except Exception as error:
        return f"untyped: {error!r}"[:300]
    return "accepted"


ROWS = (
    Row(name="D4", promise="a bad world folder is refused, typed, in 2 s and 256 MiB; nothing runs",
        unit="bad folders", ci=36, full=1_008, attempt=folders),
)  # fmt: skip

if __name__ == "__main__":
    main(ROWS)

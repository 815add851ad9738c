"""Ways to change the bytes of a file that know something of its format."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from worldsim.store.tensors import MASK, _digest, _raw_header

Draw = random.Random
Change = Callable[[bytes, Draw], bytes]
VALUES = (None, True, -1, 0, 1, 2**31, 2**63, 10**30, -1e308, 0.5, "", "x", "\x1b[2J", [], {},
          [[]], {"a": 1}, "1" * 5000, [0] * 1000, "a.b:c", "../../x", [[[[]]]],
          "{:9999999d}")  # fmt: skip
NUMBERS = (0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


def bytes_changed(data: bytes, draw: Draw) -> bytes:
    """A few changes of a file's bytes."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5))):
        size = len(out)
        a = draw.randrange(size + 1)
        b = min(size, a + draw.choice((1, 2, 8, 100, size)))
        kind = draw.randrange(6)
        if kind == 0 and a < size:
            out[a] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del out[a:b]
        elif kind == 2:
            out[a:a] = out[a:b]
        elif kind == 3:
            out[a:b] = draw.randbytes(b - a)
        elif kind == 4:
            width = draw.choice((1, 2, 4, 8))
            number = draw.choice(NUMBERS) % 2 ** (8 * width)
            out[a : a + width] = number.to_bytes(width, draw.choice(("little", "big")))
        else:
            c = draw.randrange(size + 1)
            out[c:c] = data[a:b]
    return bytes(out)


def json_changed(data: bytes, draw: Draw) -> bytes:
    """One value of JSON replaced, taken out or given another name; bytes where it is none."""
    try:
        raw = json.loads(data)
    except (RecursionError, ValueError):
        return bytes_changed(data, draw)
    places = list(_places(raw)) if isinstance(raw, dict | list) else []
    if draw.random() < 0.2 or not places:
        return bytes_changed(data, draw)
    for _ in range(draw.choice((1, 1, 2))):
        parent, key = draw.choice(places)
        if isinstance(parent, dict) and key in parent and draw.random() < 0.2:
            parent[draw.choice(("x", "", "__class__", "\x1b[31m"))] = parent.pop(key)
        elif isinstance(parent, dict) and key in parent and draw.random() < 0.2:
            del parent[key]
        elif isinstance(parent, list) or key in parent:
            parent[key] = draw.choice(VALUES)
    return json.dumps(raw, indent=1).encode() + b"\n"


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def lines_changed(data: bytes, draw: Draw) -> bytes:
    """One line of JSON changed."""
    lines = data.splitlines()
    if lines:
        place = draw.randrange(len(lines))
        lines[place] = json_changed(lines[place], draw).replace(b"\n", b" ")
    return b"\n".join(lines) + b"\n"


def header_changed(data: bytes, draw: Draw) -> bytes:
    """JSON within the header of a safetensors file changed, its length put right."""
    length = int.from_bytes(data[:8], "little")
    text = json_changed(data[8 : 8 + length], draw)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def zip_changed(data: bytes, draw: Draw) -> bytes:
    """One member of a zip changed, and packed anew with a checksum that fits."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        place = draw.choice(sorted(members))
        if draw.random() < 0.1:
            members[draw.choice(("x.npy", "../x.npy", "meta.npy"))] = members.pop(place)
        else:
            head = members[place][:128] if draw.random() < 0.7 else members[place]
            members[place] = bytes_changed(head, draw) + members[place][len(head) :]
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return stream.getvalue()
    except Exception:  # what was changed before may be no zip any more
        return bytes_changed(data, draw)


def resealed(data: bytes) -> bytes:
    """A file of `save_tensors` with the hash that it would have, where one can be put in."""
    try:
        stream = io.BytesIO(data)
        raw = _raw_header(stream)
        told = json.loads(json.loads(raw)["__metadata__"]["worldsim"])["sha256"].encode()
        masked = raw.replace(told, MASK)
        sealed = raw.replace(told, _digest(stream, masked, raw).encode())
        return data[:8] + sealed + data[8 + len(raw) :]
    except Exception:
        return data

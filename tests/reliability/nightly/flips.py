"""D3: one bit of a file that worldsim wrote is another, wherever it lies: the file is refused.

Every file that has a hash: worlds, agents, snapshots, checkpoints, latents, latent actions, labels.
An episode has a checksum for each of its arrays instead; what its zip says besides (times of day,
attributes) is not looked at, so its arrays must be the same or refused. (What agent.json says is
for people: the weights hold it, too, and theirs counts.)
"""

from __future__ import annotations

import json
import random
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tests.reliability.nightly.fuzz_target import Target
from tests.reliability.nightly.fuzz_targets import targets
from tests.reliability.nightly.rows import Outcome, Row, main
from worldsim.core import WorldError
from worldsim.data.native import load_episode
from worldsim.store.manifest import CARD, CONFIG, LATENT_ACTIONS, MANIFEST, STARTS, TRUST
from worldsim.train.sharded import SEAL

HASHED = (
    MANIFEST, CONFIG, CARD, STARTS, TRUST, LATENT_ACTIONS, "dit.safetensors", "agent.safetensors",
    "tensors", "snapshot", "snapshot of an environment",
    "snapshot of a vector environment", "checkpoint", SEAL, "shard of a checkpoint", "latents.bin",
    "latent action model", "latent labels",
)  # fmt: skip
EPISODES = ("episode.npz", "episode with captions")


def flipped(count: int) -> Outcome:
    """`count` bits, in all files in turn."""
    failures, draw = [], random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        found = targets(Path(folder) / "files")
        names = (*HASHED, *EPISODES)
        for case in tqdm(range(count), desc="bits", leave=False):
            name = names[case % len(names)]
            path, good = found[name].path, found[name].path.read_bytes()
            bit = draw.randrange(8 * len(good))
            changed = bytearray(good)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            if taken(found[name], good, bytes(changed)):
                failures.append(f"{name}: bit {bit} of {8 * len(good)}")
            path.write_bytes(good)
    return Outcome(failures=failures, figures={"kinds of files": len(names)})


def taken(target: Target, good: bytes, changed: bytes) -> bool:
    """Whether the file is read as another than the good one."""
    try:
        target.read()
    except WorldError:
        return False
    if target.path.suffix == ".npz":  # its bytes may differ where nothing is said
        now = _arrays(target.path)
        target.path.write_bytes(good)
        return now != _arrays(target.path)
    with suppress(ValueError):  # JSON may say the same in other letters, 1e5 and 1E5
        return json.loads(changed) != json.loads(good)
    return True


def _arrays(path: Path) -> dict[str, bytes]:
    episode = load_episode(path)
    values = vars(episode) | {"frames": episode.frames[:]}
    return {
        name: x.tobytes() if isinstance(x, np.ndarray) else repr(x).encode()
        for name, x in values.items()
    }


ROWS = (
    Row(name="D3", promise="one flipped bit in a file of ours: refused", unit="bits", ci=40,
        full=2_000, attempt=flipped),
)  # fmt: skip

if __name__ == "__main__":
    main(ROWS)

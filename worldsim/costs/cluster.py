"""Clusters as plain numbers: how many GPUs, and how fast they talk to each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from worldsim.core import WorldError

from .devices import Device, device_named


@dataclass(frozen=True, kw_only=True)
class Links:
    """What connects GPUs, for each of them and in one direction.

    Attributes:
        node: GPUs of a machine.
        inside: bytes/s to others of its machine.
        outside: bytes/s to other machines.
        hop_inside, hop_outside: seconds that a message takes, however short.
    """

    node: int = 8
    inside: float = 450e9
    outside: float = 50e9
    hop_inside: float = 1e-6
    hop_outside: float = 5e-6

    def __post_init__(self) -> None:
        if self.node < 1 or min(self.inside, self.outside) <= 0:
            raise WorldError(f"links: expected a GPU or more and bytes/s above 0, got {self}")


LINKS = {
    "a100": Links(inside=300e9, outside=25e9),
    "h100": Links(inside=450e9, outside=50e9),
    "h200": Links(inside=450e9, outside=50e9),
    "b200": Links(inside=900e9, outside=50e9),
    "rtx4090": Links(node=4, inside=25e9, outside=12.5e9),
}
"""By the names of devices. Sources:

a100, h100, b200: NVLink 3, 4 and 5 at 600, 900 and 1,800 GB/s both ways (NVIDIA DGX A100, H100 and
    B200 datasheets), half of it one way; a network card of 200, 400 and 400 Gbit/s for each GPU.
rtx4090: PCIe 4.0 x16, which carries about 25 GB/s; one card of 100 Gbit/s.
Hops are those that NCCL's own model of itself takes for its simple protocol, rounded.
"""


@dataclass(frozen=True)
class Cluster:
    """Some GPUs of one kind."""

    device: Device
    gpus: int
    links: Links

    def __post_init__(self) -> None:
        if self.gpus < 1:
            raise WorldError(f"gpus: expected 1 or more, got {self.gpus}")

    def seconds(self, sent: float, collectives: float) -> float:
        """Time of collectives in which every GPU sends `sent` bytes in all, around one ring.

        The slowest link decides: that between machines as soon as there are two. Each collective
        waits for a message to go around.
        """
        if self.gpus == 1:
            return 0.0
        links, machines = self.links, ceil(self.gpus / self.links.node)
        slowest = links.inside if machines == 1 else min(links.inside, links.outside)
        crossings = machines if machines > 1 else 0
        around = (self.gpus - crossings) * links.hop_inside + crossings * links.hop_outside
        return sent / slowest + collectives * around


def cluster_named(
    device: str, gpus: int, node: int | None = None, inside: float | None = None,
    outside: float | None = None,
) -> Cluster:  # fmt: skip
    """GPUs by their device's name, its usual links unless others are given (GB/s).

    Raises WorldError for a device whose links nobody wrote down.
    """
    if device not in LINKS and (inside is None or outside is None):
        raise WorldError(
            f"gpus: expected a device of {', '.join(LINKS)}, got {device!r}; "
            "or give --node, --inside and --outside for another"
        )
    given = {
        "node": node,
        "inside": inside and inside * 1e9,
        "outside": outside and outside * 1e9,
    }
    known = {name: value for name, value in given.items() if value is not None}
    return Cluster(device_named(device), gpus, replace(LINKS.get(device, Links()), **known))

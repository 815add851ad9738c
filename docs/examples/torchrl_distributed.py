"""TorchRL's distributed collector over worlds: processes that talk by gloo, here or on other hosts.

    python docs/examples/torchrl_distributed.py --world pendulum --workers 2 --steps 4096

Every process has rows of its own, named by its seed. A row's dream follows from (seed, episode,
step) and the actions, so the frames are those of one process that holds all rows.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import tyro
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.collectors import Collector
from torchrl.envs import EnvBase, SerialEnv

from worldsim.envs import WorldSimTorchRL
from worldsim.flags import refuse_repeated


class Steering(nn.Module):
    """Actions as a fixed function of the latent: the same wherever it is computed."""

    def __init__(self, shape: torch.Size, actions: int) -> None:
        super().__init__()
        self.flat = len(shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layer = nn.Linear(shape.numel(), actions)

    def forward(self, latent: Tensor) -> Tensor:
        """(..., h, w, C) -> (..., actions) from -1 to 1."""
        return self.layer(latent.flatten(-self.flat)).tanh()


def make_env(world: str, rows: int, seed: int) -> WorldSimTorchRL:
    """Rows of one worker; `micro_batch` makes their bits the same in any batch."""
    torch.set_num_threads(1)
    env = WorldSimTorchRL(world, batch_size=[rows], micro_batch=rows)
    env.set_seed(seed)
    return env


def policy_for(env: EnvBase) -> TensorDictModule:
    """`Steering` as collectors take it."""
    shape = env.observation_spec["observation"].shape[env.batch_dims :]
    net = Steering(shape, env.action_spec.shape[-1])
    return TensorDictModule(net, in_keys=["observation"], out_keys=["action"])


def gather(collector: Collector) -> tuple[TensorDictBase, float]:
    """Everything it collects, (workers, rows, steps), and steps a second after the first batch."""
    batches, begun = [], 0.0
    for batch in collector:
        begun = begun or time.perf_counter()
        kept = batch.select("observation", "action", ("next", "reward"), ("world", "key"))
        batches.append(kept.clone())
    seconds = time.perf_counter() - begun
    collector.shutdown()
    whole: TensorDictBase = torch.cat(batches, -1)  # pyright: ignore[reportAssignmentType]
    return whole, (whole.numel() - batches[0].numel()) / seconds


def main(
    world: str = "pendulum", workers: int = 2, rows: int = 8, steps: int = 4096, batch: int = 512,
    port: int = 10003,
) -> dict[str, float | bool]:  # fmt: skip
    """Collect by `workers` processes and by one, with the same keys; compare and time them.

    steps, batch: of all workers together. port: and the next one, free on this machine.
    """
    makers: list[Callable[[], EnvBase]]
    makers = [partial(make_env, world, rows, seed) for seed in range(workers)]
    policy = policy_for(makers[0]())
    sizes: dict[str, Any] = {"frames_per_batch": batch, "total_frames": steps}
    options = {"launcher": "mp", "backend": "gloo", "tcp_port": port}
    many, rate = gather(
        Collector(
            makers,
            policy,
            backend="distributed",
            num_collectors=workers,
            sync=True,
            backend_options=options,
            **sizes,
        )  # fmt: skip
    )
    one, alone = gather(Collector(SerialEnv(workers, makers), policy, **sizes))
    same = all(torch.equal(a, b) for a, b in zip(_leaves(many), _leaves(one), strict=True))
    print(f"{many.numel():,} steps, frames equal those of one process: {same}")
    print(f"{workers} processes {rate:.0f} steps/s, one {alone:.0f}: {rate / alone:.2f} times")
    return {"equal": same, "steps": many.numel(), "rate": rate, "rate_alone": alone}


def _leaves(batch: TensorDictBase) -> list[Tensor]:
    return [x for _, x in sorted(batch.flatten_keys(".").items())]


if __name__ == "__main__":
    tyro.cli(main, args=refuse_repeated(sys.argv[1:]))

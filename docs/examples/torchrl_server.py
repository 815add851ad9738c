"""One world serves many single environments, by TorchRL's inference server.

    python docs/examples/torchrl_server.py --world pendulum --clients 8 --steps 200 --processes

Each client steps by itself; the server gathers what waits and steps it as one batch, which costs
far less than as many single steps. A world's state travels with the request, so the server holds
no episode: a client may be killed, saved, or copied. Clients are threads, or processes of this
machine; on a GPU the server alone needs the device.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import partial

import torch
import tyro
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.modules.inference_server import InferenceServer, MPTransport

import worldsim
from worldsim.core import WorldModel, WorldState, row_keys
from worldsim.flags import refuse_repeated

Call = Callable[[TensorDictBase], TensorDictBase]


class Served:
    """A world as a function of a batch: states, actions and who begins anew -> what follows."""

    def __init__(self, world: WorldModel, rows: int) -> None:
        self.world = worldsim.FixedBatch(world, rows)  # a client's bits hang on no other client

    def request(self) -> TensorDict:
        """What a client that has not begun may ask: one row, to be filled in."""
        (row,) = self._told(self.world.reset(row_keys([0]))).unbind(0)
        action = self.world.spec.action.blank(1)[0]
        return TensorDict({"world": row, "action": action, "begin": torch.tensor([True])})

    @torch.no_grad()
    def __call__(self, batch: TensorDictBase) -> TensorDict:
        """(B,) requests -> (B,) answers."""
        batch = batch.contiguous()
        begin, state = batch["begin"][:, 0], WorldState(**batch.get("world").to_dict())
        after, said = self.world.step(state, batch["action"])
        ended = said.continue_prob < 0.5
        if begin.any():
            after = self.world.reset(state.key).where(begin, after)
        frame = self.world.decode(after)[:, -1]
        heads = {"reward": said.reward, "ended": ended & ~begin, "trust": said.trust}
        heads = {name: x[:, None] for name, x in heads.items()}
        return TensorDict({"world": self._told(after), "frame": frame, **heads}, [len(after)])

    @staticmethod
    def _told(state: WorldState) -> TensorDict:
        parts = {field.name: getattr(state, field.name) for field in fields(state)}
        return TensorDict(parts, [len(state)])


class Client:
    """A single environment whose world is elsewhere."""

    def __init__(self, call: Call, request: TensorDict) -> None:
        self.call, self.request = call, request.clone()

    def reset(self, seed: int, episode: int = 0) -> Tensor:
        """The first frame (H, W, 3) of an episode."""
        self.request["world", "key"] = row_keys([seed], episode)[0]
        return self._ask(begin=True)["frame"]

    def step(self, action: Tensor) -> tuple[Tensor, float, bool]:
        """The next frame, the reward, and whether the episode has ended."""
        self.request["action"] = action.to(self.request["action"])
        said = self._ask(begin=False)
        return said["frame"], float(said["reward"]), bool(said["ended"])

    def _ask(self, begin: bool) -> TensorDictBase:
        self.request["begin"] = torch.tensor([begin])
        said = self.call(self.request)
        self.request["world"] = said["world"]
        return said


def live(call: Call, request: TensorDict, seed: int, steps: int) -> Tensor:
    """Some steps under no action; the last frame."""
    torch.set_num_threads(1)
    client, episode = Client(call, request), 0
    frame = client.reset(seed)
    for _ in range(steps):
        frame, _, ended = client.step(request["action"])
        if ended:
            frame = client.reset(seed, episode := episode + 1)
    return frame


def _child(call: Call, request: TensorDict, seed: int, steps: int, out: object) -> None:
    out.put((seed, live(call, request, seed, steps).numpy()))  # type: ignore[attr-defined]


def main(
    world: str = "pendulum", clients: int = 8, steps: int = 200, processes: bool = False,
    rows: int = 8,
) -> dict[int, Tensor]:  # fmt: skip
    """Let every client take `steps` steps; returns their last frames. rows: a batch, at most."""
    torch.set_num_threads(1)
    served = Served(worldsim.load(world), rows)
    work = partial(_processes if processes else _threads, served, clients, steps, rows)
    begun = time.perf_counter()
    frames, batch = work()
    rate = clients * steps / (time.perf_counter() - begun)
    print(f"{clients} clients, {rate:.0f} steps/s in all, {batch:.1f} requests a batch")
    return frames


def _threads(
    served: Served, clients: int, steps: int, rows: int
) -> tuple[dict[int, Tensor], float]:
    with InferenceServer(served, max_batch_size=rows) as server:
        calls = [server.client() for _ in range(clients)]
        with ThreadPoolExecutor(clients) as pool:
            ask = partial(live, request=served.request(), steps=steps)
            frames = pool.map(lambda n: ask(calls[n], seed=n), range(clients))
            return dict(enumerate(frames)), server.stats()["avg_batch_size"]


def _processes(
    served: Served, clients: int, steps: int, rows: int
) -> tuple[dict[int, Tensor], float]:
    context = multiprocessing.get_context("spawn")
    transport, out = MPTransport(context), context.Queue()
    asking = [
        context.Process(target=_child, args=(transport.client(), served.request(), n, steps, out))
        for n in range(clients)
    ]
    with InferenceServer(served, transport, max_batch_size=rows) as server:
        for process in asking:
            process.start()
        frames = {seed: torch.from_numpy(x) for seed, x in (out.get() for _ in asking)}
        for process in asking:
            process.join()
        return dict(sorted(frames.items())), server.stats()["avg_batch_size"]


if __name__ == "__main__":
    tyro.cli(main, args=refuse_repeated(sys.argv[1:]))

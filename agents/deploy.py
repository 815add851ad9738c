"""What was made in a world drives the real environment that the world came from."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.actions import as_tensor
from worldsim.collect.environment import RecordedEnv, make_environment
from worldsim.core import EnvironmentSpec, WorldError, WorldModel, WorldSpec
from worldsim.models.vae import to_float
from worldsim.nn.dtype import narrow
from worldsim.store.folder import load
from worldsim.store.hub import is_address
from worldsim.world.diffusion import DiffusionWorld

from .actor_critic import SEEN, ActorCritic, latents_seen, pixels_seen
from .planners import Policy
from .training import load_agent, read_agent


def real_environment(
    world: DiffusionWorld,
    environment: EnvironmentSpec | None = None,
    *,
    actions: Literal["normalized", "native"] = "normalized",
    trust_code: bool = False,
) -> RecordedEnv:
    """The real environment that `world` came from, seen chunk by chunk as its recording was.

    environment: how it is made, instead of as the world says. actions, trust_code: as of
        `worldsim.collect.environment.make_environment`.
    Raises WorldError where the world knows no environment, or this one is not the world's.
    """
    known = world.config.environment if environment is None else environment
    if known is None:
        raise WorldError(
            f"environment: {world.spec.name} was made of video that names no environment; pass the "
            "EnvironmentSpec of one that shows and takes the same"
        )
    env = make_environment(known, observation="chunk", actions=actions, trust_code=trust_code)
    spec, (chunk, *frame) = world.spec, env.frames.shape
    shown = {"action": (spec.action, env.native), "chunk": (spec.chunk, chunk),
             "frame_shape": (spec.frame_shape, tuple(frame))}  # fmt: skip
    for name, (expected, got) in shown.items():
        if got != expected:
            env.close()
            raise WorldError(
                f"environment: expected the {name} of {spec.name}, {expected}, got {got}; it is "
                "another world's"
            )
    return env


class RealPolicy:
    """Any policy as `policy(obs) -> action` for the real environment.

        policy = load_policy("runs/agents/seed-0/dream/agent")
        env = policy.environment()
        obs, _ = env.reset(seed=5000)
        obs, reward, terminated, truncated, info = env.step(policy(obs))

    In a world that knows a state vector it is `policy(obs, info["state"])`. It remembers what it
    saw; call `reset()` before another episode.

    Args:
        policy: a policy over states (`PlanningPolicy`, `DreamPolicy`, any function), which sees a
            rolling context of frames and taken actions; or an agent, which sees two chunks.
        world: whose encoder turns frames into states; None for an agent that sees pixels.
        actions: the range of the actions handed back, as of `WorldSimEnv`.
    """

    def __init__(
        self,
        policy: Policy | ActorCritic,
        world: WorldModel | None = None,
        *,
        actions: Literal["normalized", "native"] = "normalized",
    ) -> None:
        agent = policy if isinstance(policy, ActorCritic) else None
        if world is None and (agent is None or agent.config.sees == "latents"):
            raise WorldError("world: expected one, as its encoder is what the policy sees through")
        self.policy, self.world = policy, world
        self.actions: Literal["normalized", "native"] = actions
        self.spec: WorldSpec = agent.spec if world is None and agent else world.spec  # type: ignore[union-attr]
        size = SEEN if agent else self.spec.context
        self.frames: deque[Tensor] = deque(maxlen=size)
        self.latents: deque[Tensor] = deque(maxlen=size)
        self.taken: deque[Tensor] = deque(maxlen=size)
        self.told: deque[Tensor] = deque(maxlen=size)

    def environment(
        self, environment: EnvironmentSpec | None = None, *, trust_code: bool = False
    ) -> RecordedEnv:
        """The environment to drive; see `real_environment`."""
        if not isinstance(self.world, DiffusionWorld):
            raise WorldError("environment: expected a policy with a world that names one")
        return real_environment(
            self.world, environment, actions=self.actions, trust_code=trust_code
        )

    def reset(self) -> None:
        """Begin another episode."""
        for memory in (self.frames, self.latents, self.taken, self.told):
            memory.clear()
        if hasattr(self.policy, "reset"):
            self.policy.reset()  # type: ignore[union-attr]

    @torch.no_grad()
    def __call__(
        self, frames: NDArray[np.uint8], state: NDArray[np.float32] | None = None
    ) -> NDArray[Any]:
        """The newest chunk's frames (c, H, W, 3) uint8 -> the action to take, `(*action,)`.

        state: the state vector (D,) at its end, None where unknown; of a world that knows such.
        """
        expected = (self.spec.chunk, *self.spec.frame_shape)
        seen = as_tensor(frames, "obs")
        if tuple(seen.shape) != expected or seen.dtype != torch.uint8:
            raise WorldError(
                f"obs: expected a chunk of frames uint8 {expected}, got {seen.dtype} "
                f"{tuple(seen.shape)}; make the environment with policy.environment(), or "
                'observation="chunk"'
            )
        self.frames.append(seen.clone())  # an environment may draw into the same array again
        if self.spec.state is not None:
            self.told.append(self._vector(state))
        if isinstance(self.policy, ActorCritic):
            action = self.policy.act(self._seen(self.policy))[0].cpu()
        else:
            action = self._thought()
        self.taken.append(action)
        own = action if self.actions == "native" else self.spec.action.to_normalized(action)
        return own.numpy()

    def _vector(self, state: NDArray[np.float32] | None) -> Tensor:
        assert self.spec.state is not None
        width = len(self.spec.state)
        told = torch.full((width,), torch.nan) if state is None else as_tensor(state, "state")
        if told.shape != (width,):
            expected, got = f"{self.spec.state.names}", tuple(told.shape)
            raise WorldError(f"state: expected {expected}, got {got}; give those the world knows")
        return told.to(torch.float32, copy=True)

    def _thought(self) -> Tensor:
        assert self.world is not None
        clip, unknown = torch.cat(list(self.frames))[None], len(self.frames) - len(self.taken)
        actions = [self.spec.action.blank()] * unknown + list(self.taken)
        known = torch.arange(len(actions))[None] >= unknown
        states = torch.stack(list(self.told))[None] if self.told else None
        state = self.world.encode(clip, torch.stack(actions)[None], known=known, states=states)
        return self.policy(state)[0].cpu()  # type: ignore[arg-type]

    def _seen(self, agent: ActorCritic) -> Tensor:
        """What the agent sees of the two newest chunks; at first the same one twice."""
        seen = self._pictured(agent)
        if not agent.config.state:
            return seen
        told = self.told[-1][None]
        return agent.told(seen, told, told.isfinite().all(-1))

    def _pictured(self, agent: ActorCritic) -> Tensor:
        clip = torch.cat([self.frames[0], self.frames[-1]])[None]
        if agent.config.sees == "pixels":
            return pixels_seen(clip)
        assert self.world is not None
        latents = encode_chunks(self.world, clip)  # an encoder may look back: the newest is exact
        before = self.latents[-1] if self.latents else latents[:, :1]
        self.latents.append(latents[:, -1:])
        return latents_seen(torch.cat([before, latents[:, -1:]], 1))


def encode_chunks(world: WorldModel, frames: Tensor) -> Tensor:
    """Frames (B, k * c, H, W, 3) uint8 -> latents (B, k, *latent), as the recording's were made."""
    if isinstance(world, DiffusionWorld):  # needs no dynamics, which are most of the work
        with narrow(frames.device):
            return world.vae.encode(to_float(frames)).float()
    return world.encode(frames).latents[:, -frames.shape[1] // world.spec.chunk :]


def load_policy(
    path: Path | str,
    world: DiffusionWorld | str | Path | None = None,
    *,
    actions: Literal["normalized", "native"] = "normalized",
) -> RealPolicy:
    """A saved agent as a policy for the real environment; see `RealPolicy`.

    path: without suffix. world: that it was trained in, an object, name or folder; None takes the
        one that the agent names, unless that would have to be downloaded.
    Raises WorldError where the agent or its world is not there, or they are not of one kind.
    """
    if world is None:
        world = read_agent(Path(path)).world
        if not world:
            raise WorldError(f"world: the agent at {path} names none; pass the one it was made in")
        if is_address(world):  # a file's word is not the user's
            raise WorldError(
                f"world: expected no download to be asked for by a file, got {world!r} in the "
                f"agent at {path}; pass world={world!r} to fetch it, if you trust its maker"
            )
    loaded = world if isinstance(world, DiffusionWorld) else load(world)
    return RealPolicy(load_agent(Path(path), loaded.spec), loaded, actions=actions)

"""Other people's world models, built from a checkout of theirs, for `benchmarks.rollout_speed`.

Weights are random: speed does not hang on them. Sizes are those of each project's default config,
written here as numbers, since reading the configs needs Hydra. What a peer imports beside torch
(loggers, data sets, simulators) is replaced by empty modules. Nothing of a peer is copied.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

ACTIONS = 4
OWN = ("models", "utils", "envs", "data", "coroutines")  # names that both peers use
STUBS = (
    "wandb", "omegaconf", "hydra", "torcheval", "torcheval.metrics",
    "torcheval.metrics.functional", "gym", "cv2", "torchvision", "matplotlib", "matplotlib.pyplot",
    "models.actor_critic", "data", "utils",
)  # fmt: skip

Step = Callable[[], Any]
Ways = dict[str, Callable[[], list[Step]]]
"""By name, what makes the steps of a peer, one for each number of denoising passes."""


class Nothing(ModuleType):
    """A module in which every name is there and means nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextmanager
def checkout(folder: Path, real: dict[str, Any], stubs: Sequence[str] = STUBS) -> Iterator[None]:
    """Import from FOLDER/src, with `real` names in the stub of `utils`; other modules stay as they
    were."""
    before, path = dict(sys.modules), list(sys.path)
    for name in [m for m in sys.modules if m.partition(".")[0] in OWN]:
        del sys.modules[name]
    for name in stubs:
        if name.startswith(OWN) or name not in sys.modules:
            sys.modules[name] = Nothing(name)
    if real:
        vars(sys.modules["utils"]).update(real)
    sys.path.insert(0, str(folder / "src"))
    try:
        yield
    finally:
        sys.path[:] = path
        for name in [m for m in sys.modules if m in STUBS or m.partition(".")[0] in OWN]:
            del sys.modules[name]
        sys.modules.update({k: v for k, v in before.items() if k not in sys.modules})


def _environment(folder: Path) -> ModuleType:
    """A peer's environment alone: its package imports the real ones too."""
    spec = spec_from_file_location("peer", folder / "src/envs/world_model_env.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def digest(folder: Path) -> str:
    """SHA-256 of a checkout's sources, which say more than the name of a commit."""
    found = sha256()
    for file in sorted((folder / "src").rglob("*.py")):
        found.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


def ways(name: str, folder: Path, batch: int) -> tuple[tuple[int, ...], Ways]:
    """Numbers of denoising passes, and ways to step in as many: "default" and faster ones.

    Which of those is the fastest depends on the machine: a CPU without fast bfloat16 spends 5 s on
    a step that takes 0.1 s in float32.
    """
    types = {"best float32": None, "best bfloat16": torch.bfloat16}
    if name == "delta-iris":
        make = {"default": None} | types
        return (1,), {k: lambda t=t: [delta_iris(folder, batch, t)] for k, t in make.items()}
    made: Ways = {"default": lambda: diamond(folder, batch, (3, 1))}
    for key, dtype in types.items():
        made[key] = lambda dtype=dtype: diamond(folder, batch, (3, 1), dtype, compiled=True)
    return (3, 1), made


def fastest(ways: Ways, rounds: int = 3) -> tuple[str, list[Step]]:
    """ "best", and the steps of the way but "default" whose last step is the fastest, measured."""
    cost: dict[str, float] = {}
    made = {name: make() for name, make in ways.items() if name != "default"}
    for name, steps in made.items():
        steps[-1]()  # warms up
        for _ in range(rounds):
            begun = time.process_time()
            steps[-1]()
            spent = time.process_time() - begun
            cost[name] = min(spent, cost.get(name, spent))
            if spent > 1:  # a second is no contest
                break
    return "best", made[min(cost, key=cost.__getitem__)]


def diamond(
    folder: Path, batch: int, passes: tuple[int, ...], dtype: torch.dtype | None = None,
    *, compiled: bool = False,
) -> list[Step]:  # fmt: skip
    """DIAMOND (Alonso et al. 2024) at 64 x 64: denoiser, sampler, reward and end model.

    One way to step for each number of denoising passes; 3 is the default.

    dtype: of an autocast region, None for float32. compiled: the denoiser's network with frozen
    weights, as its trainer compiles it. `reset_dead` never runs: the horizon is
    far away and ends are undone.
    """
    with checkout(folder, {"init_lstm": lambda _: None}):
        diffusion, rew = import_module("models.diffusion"), import_module("models.rew_end_model")
        denoiser, env = _diamond(diffusion, rew, _environment(folder), batch)
        if compiled:
            options: dict[str, Any] = {"freezing": True}
            denoiser.inner_model = torch.compile(
                denoiser.inner_model, dynamic=False, options=options
            )
        action = torch.zeros(batch, dtype=torch.long)

        def step(sampler: Any) -> Any:
            env.sampler = sampler
            return env.step(action)

        configs = (diffusion.DiffusionSamplerConfig(count) for count in passes)
        samplers = [diffusion.DiffusionSampler(denoiser, config) for config in configs]
        steps = [_in(dtype, partial(step, s)) for s in samplers]
        for each in steps:
            each()  # compilers look for modules by their names
    return steps


def _diamond(diffusion: Any, rew: Any, env_of: Any, batch: int) -> tuple[Any, Any]:
    """Denoiser and environment, past its reset, which needs recorded data."""
    inner = diffusion.InnerModelConfig(
        img_channels=3, num_steps_conditioning=4, cond_channels=256, depths=[2] * 4,
        channels=[64] * 4, attn_depths=[0] * 4, num_actions=ACTIONS,
    )  # fmt: skip
    denoiser = diffusion.Denoiser(diffusion.DenoiserConfig(inner, 0.5, 0.3)).eval()
    judge = rew.RewEndModel(
        rew.RewEndModelConfig(512, 3, 64, 128, [2] * 4, [32] * 4, [0] * 4, ACTIONS)
    ).eval()
    _no_gradients(denoiser, judge)
    env = env_of.WorldModelEnv.__new__(env_of.WorldModelEnv)
    env.rew_end_model, env.horizon, env.return_denoising_trajectory = judge, 10**9, False
    env.obs_buffer = torch.rand(batch, 4, 3, 64, 64) * 2 - 1
    env.act_buffer = torch.zeros(batch, 4, dtype=torch.long)
    env.hx_rew_end, env.cx_rew_end = torch.zeros(2, 1, batch, 512)
    env.ep_len, env.reset_dead = torch.zeros(batch, dtype=torch.long), lambda _: None
    return denoiser, env


def delta_iris(folder: Path, batch: int, dtype: torch.dtype | None = None) -> Step:
    """Delta-IRIS (Micheli et al. 2024) at 64 x 64, its default (Crafter) sizes, in a type.

    Its context fills up and is begun anew every few steps, which `step` does by itself.
    """
    real = {"init_weights": lambda _: None, "symexp": _symexp}
    real |= {"compute_softmax_over_buckets": _expected}
    with checkout(folder, real):
        tokens, world = import_module("models.tokenizer"), import_module("models.world_model")
        convnet, transformer = (import_module(f"models.{n}") for n in ("convnet", "transformer"))
        env_of = _environment(folder)

    def cnn(inputs: int, latent: int, width: int) -> Any:
        return convnet.FrameCnnConfig(inputs, latent, width, [1, 1, 2, 2, 4], [1, 0, 1, 1, 0])

    tokenizer = tokens.Tokenizer(
        tokens.TokenizerConfig(
            3, 64, ACTIONS, 4, 4, 1024, 64, 0, cnn(7, 64, 64), cnn(3, 8 + 4 + 64, 64), cnn(3, 8, 64)
        )
    )
    sizes = transformer.TransformerConfig(6, 21, 3, 8, 512, "causal", 0.0, 0.0, 0.0)
    model = world.WorldModel(
        world.WorldModelConfig(1024, ACTIONS, 3, 64, 1.0, 1.0, 1.0, True, sizes, cnn(3, 8, 32))
    )
    _no_gradients(tokenizer, model)
    env = env_of.WorldModelEnv(tokenizer, model, "cpu")
    action = torch.zeros(batch, 1, dtype=torch.long)
    with torch.no_grad():
        env.reset_from_past(torch.rand(batch, 2, 3, 64, 64), action)
    return _in(dtype, lambda: env.step(action))


def _symexp(x: torch.Tensor) -> torch.Tensor:
    return x.sign() * x.abs().expm1()


def _expected(logits: torch.Tensor) -> torch.Tensor:
    """The mean of a distribution over 255 even bins from -20 to 20."""
    return (logits.float().softmax(-1) * torch.linspace(-20, 20, 255)).sum(-1)


def _no_gradients(*modules: nn.Module) -> None:
    for module in modules:
        module.requires_grad_(False)


def _in(dtype: torch.dtype | None, step: Step) -> Step:
    """`step` without gradients, in an autocast region where a type is given."""

    def run() -> Any:
        with torch.no_grad(), torch.autocast("cpu", dtype or torch.bfloat16, enabled=bool(dtype)):
            return step()

    return run

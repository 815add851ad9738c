"""RLlib's PPO on the vector environment: `python docs/examples/rllib_ppo.py --iterations 20`.

Needs `pip install 'ray[rllib]'`. Three settings matter: `gym_env_vectorize_mode` hands RLlib our
own batch instead of copies of the single environment; it takes the step after an end for a reset
(`autoreset_mode="next_step"`); and it wants arrays (`output="numpy"`).
"""

import sys
from typing import Any

import tyro
from ray.rllib.algorithms.ppo import PPOConfig  # pyright: ignore[reportMissingImports]
from ray.rllib.connectors.env_to_module import (  # pyright: ignore[reportMissingImports]
    FlattenObservations,
)

import worldsim  # noqa: F401  (registers WorldSim-v0)
from worldsim.flags import refuse_repeated


def configure(world: str, rows: int, horizon: int, runners: int, seed: int) -> PPOConfig:
    """PPO on latents, in dreams of `horizon` steps; every runner has `rows` dreams."""
    env = {
        "world": world,
        "observation": "latent",
        "max_episode_steps": horizon,
        "autoreset_mode": "next_step",
        "output": "numpy",
    }
    return (
        PPOConfig()
        .environment("worldsim:WorldSim-v0", env_config=env)  # imported where a runner is
        .env_runners(
            num_env_runners=runners,
            num_envs_per_env_runner=rows,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length=horizon,
            env_to_module_connector=lambda env, spaces, device: FlattenObservations(),
        )
        .training(
            train_batch_size_per_learner=max(1, runners) * rows * horizon,
            minibatch_size=256,
            num_epochs=10,
            lr=1e-3,
            gamma=0.95,
            lambda_=0.95,
            vf_clip_param=float("inf"),  # returns of hundreds: 10 would clip all there is to learn
            grad_clip=0.5,
        )
        .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
        .debugging(seed=seed)
    )


def main(
    world: str = "pendulum", iterations: int = 20, rows: int = 32, horizon: int = 64,
    runners: int = 0, seed: int = 0,
) -> list[float]:  # fmt: skip
    """Train; returns the mean return of each iteration's episodes. runners: processes, 0: here."""
    learner, returns = configure(world, rows, horizon, runners, seed).build_algo(), []
    for number in range(1, iterations + 1):
        found: dict[str, Any] = learner.train()
        returns.append(float(found["env_runners"]["episode_return_mean"]))
        print(f"iteration {number}, return {returns[-1]:.2f}", flush=True)
    learner.stop()
    return returns


if __name__ == "__main__":
    tyro.cli(main, args=refuse_repeated(sys.argv[1:]))

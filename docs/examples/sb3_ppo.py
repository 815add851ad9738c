"""stable-baselines3's PPO on a dream: `python docs/examples/sb3_ppo.py --steps 100000`.

Needs `pip install stable-baselines3`.
"""

import sys

import gymnasium
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import worldsim  # noqa: F401  (registers WorldSim-v0)
from worldsim.flags import refuse_repeated


def main(world: str = "car-racing", steps: int = 100_000, envs: int = 4, limit: int = 50) -> float:
    """Train on latents, in dreams of `limit` steps; returns the mean dream return afterwards."""
    settings = {"world": world, "observation": "latent", "time_limit": limit}
    dreams = make_vec_env(lambda: gymnasium.make("WorldSim-v0", **settings), envs, seed=0)
    agent = PPO("MlpPolicy", dreams, n_steps=limit, batch_size=limit, seed=0, device="cpu")
    agent.learn(steps)
    mean, _ = evaluate_policy(agent, dreams, n_eval_episodes=8)
    print(f"{agent.num_timesteps:,} steps, dream return {mean:.2f}")
    return float(mean)


if __name__ == "__main__":
    tyro.cli(main, args=refuse_repeated(sys.argv[1:]))

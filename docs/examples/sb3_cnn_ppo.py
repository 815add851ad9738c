"""stable-baselines3's PPO on the pictures of a dream, however small they are.

    python docs/examples/sb3_cnn_ppo.py --world pendulum --steps 100000

`CnnPolicy` brings the network of Mnih et al. (2015), which needs 36 pixels a side; this one works
from 8 up. Needs `pip install stable-baselines3`.
"""

import sys

import gymnasium
import torch
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

import worldsim  # noqa: F401  (registers WorldSim-v0)
from worldsim.flags import refuse_repeated


class SmallCnn(BaseFeaturesExtractor):
    """Three strided convolutions, each of which halves the picture."""

    def __init__(self, observation_space: gymnasium.spaces.Box, features_dim: int = 128) -> None:
        super().__init__(observation_space, features_dim)
        layers: list[nn.Module] = []
        channels = observation_space.shape[0]  # stable-baselines3 puts them first
        for width in (16, 32, 32):
            layers += [nn.Conv2d(channels, width, 3, 2, 1), nn.ReLU()]
            channels = width
        self.cnn = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            size = self.cnn(torch.zeros(1, *observation_space.shape)).shape[1]
        self.linear = nn.Sequential(nn.Linear(size, features_dim), nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        """(B, C, H, W) from 0 to 1 -> (B, features_dim)."""
        return self.linear(self.cnn(observations))


def main(world: str = "pendulum", steps: int = 100_000, envs: int = 4, limit: int = 50) -> float:
    """Train on frames, in dreams of `limit` steps; returns the mean dream return afterwards."""
    settings = {"world": world, "observation": "frame", "time_limit": limit}
    dreams = make_vec_env(lambda: gymnasium.make("WorldSim-v0", **settings), envs, seed=0)
    policy = {"features_extractor_class": SmallCnn}
    agent = PPO(
        "CnnPolicy", dreams, n_steps=limit, batch_size=limit, policy_kwargs=policy, seed=0,
        device="cpu",
    )  # fmt: skip
    agent.learn(steps)
    mean, _ = evaluate_policy(agent, dreams, n_eval_episodes=8)
    print(f"{agent.num_timesteps:,} steps, dream return {mean:.2f}")
    return float(mean)


if __name__ == "__main__":
    tyro.cli(main, args=refuse_repeated(sys.argv[1:]))

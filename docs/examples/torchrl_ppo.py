"""TorchRL's PPO on `WorldSimTorchRL`: `python docs/examples/torchrl_ppo.py --steps 100000`."""

import sys

import torch
import tyro
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.modules import NormalParamExtractor, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from worldsim.envs import WorldSimTorchRL
from worldsim.flags import refuse_repeated


def networks(env: WorldSimTorchRL) -> tuple[ProbabilisticActor, ValueOperator]:
    """Actor and critic on flat latents."""
    inputs = env.observation_spec["observation"].shape[1:].numel()
    actions = env.action_spec.shape[-1]
    flat = len(env.observation_spec["observation"].shape[1:])

    def network(outputs: int) -> nn.Sequential:
        layers = [nn.Flatten(-flat), nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(64, outputs))

    body = nn.Sequential(network(2 * actions), NormalParamExtractor())
    module = TensorDictModule(body, in_keys=["observation"], out_keys=["loc", "scale"])
    actor = ProbabilisticActor(
        module, in_keys=["loc", "scale"], distribution_class=TanhNormal, return_log_prob=True
    )
    return actor, ValueOperator(network(1), in_keys=["observation"])


def main(
    world: str = "car-racing", steps: int = 100_000, rows: int = 16, horizon: int = 32
) -> list[float]:
    """Train; returns the mean reward a step of each batch."""
    torch.manual_seed(0)
    env = WorldSimTorchRL(world, batch_size=[rows])
    env.set_seed(0)
    actor, critic = networks(env)
    estimate = GAE(gamma=0.97, lmbda=0.95, value_network=critic)
    loss = ClipPPOLoss(actor, critic, clip_epsilon=0.2, normalize_advantage=True)
    optimizer = torch.optim.Adam(loss.parameters(), 3e-4)
    batches = Collector(env, actor, frames_per_batch=rows * horizon, total_frames=steps)
    rewards: list[float] = []
    for batch in batches:
        with torch.no_grad():
            estimate(batch)
        moments = batch.exclude("world", ("next", "world")).reshape(-1)
        for _ in range(4):
            for some in torch.randperm(len(moments)).chunk(4):
                losses = loss(moments[some])
                total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
                optimizer.zero_grad()
                total.backward()
                nn.utils.clip_grad_norm_(loss.parameters(), 0.5)
                optimizer.step()
        rewards.append(batch["next", "reward"].mean().item())
        print(f"{len(rewards) * rows * horizon:,} steps, reward {rewards[-1]:.3f} a step")
    batches.shutdown()
    return rewards


if __name__ == "__main__":
    tyro.cli(main, args=refuse_repeated(sys.argv[1:]))

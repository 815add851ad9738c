"""PPO in one file, as CleanRL's ppo_continuous_action.py, on the vector environment.

python docs/examples/cleanrl_ppo.py --steps 100000
"""

import sys
from dataclasses import dataclass

import gymnasium
import torch
import tyro
from torch import Tensor, nn
from torch.distributions import Normal

import worldsim  # noqa: F401  (registers WorldSim-v0)
from worldsim.flags import refuse_repeated


@dataclass
class Args:
    """As CleanRL names them."""

    world: str = "car-racing"
    steps: int = 100_000
    num_envs: int = 16
    num_steps: int = 32
    learning_rate: float = 3e-4
    gamma: float = 0.97
    gae_lambda: float = 0.95
    update_epochs: int = 4
    minibatches: int = 4
    clip_coef: float = 0.2
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    seed: int = 0


class Agent(nn.Module):
    """Two small networks on flat latents."""

    def __init__(self, inputs: int, actions: int) -> None:
        super().__init__()
        self.critic = self._network(inputs, 1)
        self.actor = self._network(inputs, actions)
        self.logstd = nn.Parameter(torch.full((actions,), -0.5))

    def _network(self, inputs: int, outputs: int) -> nn.Sequential:
        hidden = [nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()]
        return nn.Sequential(*hidden, nn.Linear(64, outputs))

    def policy(self, obs: Tensor) -> Normal:
        """Actions' distribution."""
        return Normal(self.actor(obs), self.logstd.exp())


def collect(envs: gymnasium.vector.VectorEnv, agent: Agent, obs: Tensor, args: Args) -> tuple:
    """`num_steps` steps of all rows, each entry (num_steps, num_envs, ...), and what comes next."""
    steps = []
    for _ in range(args.num_steps):
        drawn = agent.policy(obs).sample()
        seen, reward, over, cut, _ = envs.step(drawn.clamp(-1, 1))
        logprob, value = agent.policy(obs).log_prob(drawn).sum(-1), agent.critic(obs)[:, 0]
        steps.append((obs, drawn, logprob, value, reward.float(), (over | cut).float()))
        obs = seen.flatten(1).float()
    return (*(torch.stack(x) for x in zip(*steps, strict=True)), obs)


def advantages(reward: Tensor, done: Tensor, value: Tensor, last: Tensor, args: Args) -> Tensor:
    """Generalised advantage estimates (num_steps, num_envs)."""
    found, ahead, after = torch.zeros_like(reward), torch.zeros_like(last), last
    for t in reversed(range(len(reward))):
        delta = reward[t] + args.gamma * after * (1 - done[t]) - value[t]
        found[t] = ahead = delta + args.gamma * args.gae_lambda * (1 - done[t]) * ahead
        after = value[t]
    return found


def update(agent: Agent, optimizer: torch.optim.Optimizer, batch: list[Tensor], args: Args) -> None:
    """PPO's clipped loss over shuffled minibatches."""
    obs, drawn, before, advantage, target = batch
    for _ in range(args.update_epochs):
        for rows in torch.randperm(len(obs)).chunk(args.minibatches):
            ratio = (agent.policy(obs[rows]).log_prob(drawn[rows]).sum(-1) - before[rows]).exp()
            a = advantage[rows]
            a = (a - a.mean()) / (a.std() + 1e-8)
            clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
            value = (agent.critic(obs[rows])[:, 0] - target[rows]).square().mean()
            loss = -torch.minimum(ratio * a, clipped * a).mean() + args.vf_coef * value
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
            optimizer.step()


def main(args: Args) -> list[float]:
    """Train; returns the mean reward a step of each batch."""
    torch.manual_seed(args.seed)
    envs = gymnasium.make_vec(
        "WorldSim-v0", args.num_envs, world=args.world, observation="latent", output="torch"
    )
    seen, _ = envs.reset(seed=args.seed)
    obs = seen.flatten(1).float()
    agent = Agent(obs.shape[1], envs.single_action_space.shape[0])
    optimizer, rewards = torch.optim.Adam(agent.parameters(), args.learning_rate), []
    for number in range(1, args.steps // (args.num_envs * args.num_steps) + 1):
        with torch.no_grad():
            *steps, obs = collect(envs, agent, obs, args)
            o, drawn, logprob, value, reward, done = steps
            advantage = advantages(reward, done, value, agent.critic(obs)[:, 0], args)
        batch = [o, drawn, logprob, advantage, advantage + value]
        update(agent, optimizer, [x.flatten(0, 1) for x in batch], args)
        rewards.append(reward.mean().item())
        print(f"{number * args.num_envs * args.num_steps:,} steps, reward {rewards[-1]:.3f} a step")
    return rewards


if __name__ == "__main__":
    main(tyro.cli(Args, args=refuse_repeated(sys.argv[1:])))

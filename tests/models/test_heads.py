import torch

from worldsim.models.heads import Heads, HeadsConfig


def test_two_hot_has_the_reward_as_its_mean():
    heads = Heads(HeadsConfig(), 16)
    reward = torch.tensor([-100.0, -0.2, 0.0, 0.31, 3.2, 146.0])
    weights = heads.two_hot(reward)
    assert torch.allclose(weights.sum(-1), torch.ones(6))
    assert ((weights > 0).sum(-1) <= 2).all()
    assert torch.allclose((weights * heads.values).sum(-1), reward, rtol=1e-4, atol=1e-5)


def test_rewards_beyond_the_bins_are_held_at_the_end():
    heads = Heads(HeadsConfig(), 16)
    far = (heads.two_hot(torch.tensor([1e6, -1e6])) * heads.values).sum(-1)
    assert torch.allclose(far, heads.values[[-1, 0]])


def test_heads_learn_a_skewed_reward_and_an_end():
    torch.manual_seed(0)
    heads = Heads(HeadsConfig(hidden=64), 16)
    optimizer = torch.optim.Adam(heads.parameters(), 1e-2)
    features = torch.randn(256, 16)
    reward, continue_prob = 5 * (features[:, 0] > 1).float() - 0.2, (features[:, 1] < 1).float()
    for _ in range(300):
        loss = sum(x.mean() for x in heads.losses(features, reward, continue_prob))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    out = heads(features)
    assert (heads.expected_reward(out.reward) - reward).abs().mean() < 0.3
    assert ((out.continue_logits > 0) == (continue_prob > 0.5)).float().mean() > 0.97

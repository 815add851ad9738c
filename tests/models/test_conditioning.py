"""Every part of what is said to a network counts, and so does not knowing it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.worlds import BUTTONS, CAR, WORDS, scramble
from worldsim.core import ActionSpec, Conditions
from worldsim.models.conditioning import Conditioning, ConditioningConfig
from worldsim.states import StateSpec

DIM = 16
TOKENS = torch.tensor([[3, 9, 4, 0, 0, 0], [7, 0, 0, 0, 0, 0]])
JOINING = ("latent_action", "text", "world", "unknown", "guidance")
KINDS = {
    "box": CAR,
    "choice": BUTTONS,
    "late": ActionSpec(kind="discrete", n=3, start=7),
    "several": ActionSpec(kind="multi_discrete", nvec=(2, 3)),
    "switches": ActionSpec(kind="multi_binary", nvec=(2, 2)),
}


def conditioning(**config) -> Conditioning:
    torch.manual_seed(0)
    if config.get("text"):
        config["encoder"] = WORDS
    made = Conditioning(ConditioningConfig(**{"action": CAR, **config}), DIM)
    scramble(made)
    return made


def every_action(spec: ActionSpec) -> Tensor:
    if spec.kind == "continuous":
        return torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0, 1, 0], [0, 0, 1]])[None]
    values = [torch.arange(n) + spec.least for n in spec.choices]
    grid = torch.cartesian_prod(*values)
    return (grid if spec.shape else grid.reshape(-1))[None]


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_every_action_and_no_action_differ(kind: str) -> None:
    spec = KINDS[kind]
    made, actions = conditioning(action=spec), every_action(spec)
    known = made(Conditions.of(actions)).vector[0]
    hidden = Conditions.of(actions, torch.zeros(actions.shape[:2], dtype=torch.bool))
    unknown = made(hidden).vector[0]
    assert (unknown == unknown[0]).all()  # whatever stands there
    assert torch.pdist(torch.cat([known, unknown[:1]])).min() > 1e-3


@torch.no_grad()
def test_parts_that_join_have_no_say_until_they_learn() -> None:
    action = torch.rand(2, 3, 3)
    torch.manual_seed(0)
    plain = Conditioning(ConditioningConfig(action=CAR), DIM)
    config = ConditioningConfig(action=CAR, latent_action=2, text=5, worlds=3, encoder=WORDS)
    more = Conditioning(config, DIM)
    missing = more.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert all(key.startswith(JOINING) for key in missing)
    given = {"latent_action": torch.rand(2, 3, 2), "text": TOKENS}
    said = Conditions.of(action, **given, world=torch.tensor([[0], [2]]))
    assert torch.equal(more(said).vector, plain(said).vector)


@torch.no_grad()
def test_every_part_counts_and_so_does_its_mask() -> None:
    made = conditioning(latent_action=2, text=5, worlds=3, text_tokens=2)
    said = Conditions.of(
        torch.rand(2, 3, 3), latent_action=torch.rand(2, 3, 2), text=TOKENS,
        world=torch.tensor([[0], [2]]),
    )  # fmt: skip
    base = made(said)
    assert base.tokens is not None and base.tokens.shape == (2, 2, DIM)
    changes = {
        "latent_action": said.latent_action + 1, "text": TOKENS.flip(0),
        "world": said.world * 0 + 1, "guidance": said.guidance + 1,
        **{f"{n}_known": torch.zeros_like(getattr(said, f"{n}_known"))
           for n in ("action", "latent_action", "text", "world")},
    }  # fmt: skip
    for name, value in changes.items():
        changed = made(replace(said, **{name: value})).vector
        assert not torch.isclose(changed, base.vector).all(-1).any(), name
    assert torch.equal(base.reads, said.text_known)  # type: ignore[arg-type]


def test_video_without_actions_says_nothing() -> None:
    made = conditioning(action=ActionSpec(kind="none"))
    vector = made(Conditions.of(torch.zeros(2, 3, dtype=torch.int64))).vector
    assert vector.shape == (2, 3, DIM) and not vector.any() and not list(made.parameters())


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="text: expected 0 or more, got -1"):
        ConditioningConfig(action=CAR, text=-1)
    with pytest.raises(ValueError, match="text_tokens: expected 0 without text"):
        ConditioningConfig(action=CAR, text_tokens=2)
    with pytest.raises(ValueError, match="encoder: expected one with text"):
        ConditioningConfig(action=CAR, text=8)


@torch.no_grad()
def test_narrow_weights_give_narrow_vectors() -> None:
    """Conditions are float32 and weights bfloat16 where a world is compiled on a fast processor."""
    spec = StateSpec(names=("speed",), mean=(0.0,), std=(1.0,), change=(1.0,))
    more = {"text": 8, "text_tokens": 2, "latent_action": 3, "worlds": 2, "state": spec}
    known = torch.ones(2, 5, dtype=torch.bool)
    given = Conditions.of(
        torch.zeros(2, 5, 3), known, text=TOKENS, text_known=known, guidance=torch.ones(2, 1),
        latent_action=torch.zeros(2, 5, 3), latent_action_known=known,
        world=torch.zeros(2, 5, dtype=torch.long), world_known=known,
        state=torch.zeros(2, 5, 1), state_known=known,
    )  # fmt: skip
    vector, tokens, _ = conditioning(**more).to(torch.bfloat16)(given)
    assert vector.dtype == torch.bfloat16
    assert tokens is not None and tokens.dtype == torch.bfloat16

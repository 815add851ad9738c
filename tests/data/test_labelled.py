"""A recording beside latent actions, in place of its actions, and without any."""

import pytest
import torch

from tests.data.contracts import check_dataset
from tests.latent_actions.pushes import pushes
from worldsim.core import ActionSpec, WorldError
from worldsim.data.labelled import CodedDataset, LabelledDataset, LatentLabels
from worldsim.data.view import WithoutActions, WithoutStates


def labels(data) -> LatentLabels:
    g = torch.Generator().manual_seed(0)
    latent = {
        n: torch.randn(k, 2, generator=g) for n, k in zip(data.names, data.lengths, strict=True)
    }
    sure = {n: torch.linspace(0, 1, k) for n, k in zip(data.names, data.lengths, strict=True)}
    return LatentLabels(2, latent, sure)


def test_each_is_a_dataset_and_codes_are_the_nearest() -> None:
    data = pushes()
    told, book = labels(data), torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    codes = ActionSpec(kind="discrete", n=2)
    made = (LabelledDataset(data, told), CodedDataset(data, told, codes, book),
            WithoutActions(data), WithoutStates(data))  # fmt: skip
    for some in made:
        check_dataset(some)
    assert len({some.fingerprint() for some in (data, *made)}) == 5
    episode = made[1].episode(0)
    expected = (told.latent[episode.name][:, 0] > 0).long()
    assert torch.equal(torch.from_numpy(episode.actions), expected)
    assert episode.known is not None and not episode.known[0] and episode.known[1:].all()
    assert made[2].spec.action.kind == "none" and made[2].episode(0).actions is None


@pytest.mark.parametrize("harm", ["an episode without", "one chunk less"])
def test_labels_of_another_recording_are_refused(harm: str) -> None:
    data = pushes()
    told = labels(data)
    latent, sure = dict(told.latent), dict(told.confidence)
    first, how_sure = latent.pop(data.names[0]), sure.pop(data.names[0])
    if harm == "one chunk less":
        latent[data.names[0]], sure[data.names[0]] = first[:-1], how_sure[:-1]
    with pytest.raises(WorldError, match=f"labels: expected {len(first)} of"):
        LabelledDataset(data, LatentLabels(told.width, latent, sure))

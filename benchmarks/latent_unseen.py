"""An environment that a latent action model never saw: Pendulum, after five others."""

from __future__ import annotations

from typing import Any

from worldsim.collect.api import collect
from worldsim.data.dataset import Dataset
from worldsim.data.labelled import LabelledDataset
from worldsim.data.native import NativeDataset
from worldsim.latent_actions.labelling import label
from worldsim.latent_actions.labels import Labels
from worldsim.latent_actions.training import train_latent_actions

from .latent_actions import RECORDED, TRANSITIONS, Setting, told

SEEN = ("CartPole-v1", "Acrobot-v1", "MountainCarContinuous-v0", "LunarLander-v3")
"""Recorded here, small; CarRacing is the recipe's."""

EACH = 20  # episodes of each
RACES = 6  # of CarRacing, which are longer
LONGEST = 200  # frames
MINUTES = 40  # episodes of its own video: 200 frames each at 30 a second, 4.4 minutes
ADAPTED = 3  # of the steps of a training, one in so many


def seen(setting: Setting) -> list[Dataset]:
    """The five recordings, made where they are missing."""
    from .latent_worlds import First

    found: list[Dataset] = []
    for env in SEEN:
        folder = setting.data / f"{env}-32"
        if not (folder / "dataset.json").exists():
            policy = "worldsim.recipes.lunar_lander:land" if env.startswith("Lunar") else None
            collect(
                env, out=folder, policy=policy, episodes=EACH, val=0, test=2, chunk=2,
                size=(32, 32), source="render", max_frames=LONGEST,
            )  # fmt: skip
        found.append(NativeDataset(folder))
    races = setting.recorded(RECORDED["car-racing"]).split("train")
    return [*found, First(races, RACES)]


def unseen(setting: Setting) -> dict[str, Any]:
    """What the model of the others makes of Pendulum, before and after a short adaptation."""
    from .latent_worlds import Few, First, Part

    data, others = setting.recorded("pendulum"), seen(setting)
    before, about = setting.model("seen", others, None)  # type: ignore[arg-type]
    video = First(data.split("train"), MINUTES)
    few = Labels.of(video, count=TRANSITIONS)
    file = setting.runs / "adapted.safetensors"
    steps = max(1, setting.steps // ADAPTED)
    if not file.exists():
        train_latent_actions(
            video, few, begin=before, run=setting.runs / "adapted", out=file, steps=steps
        )
    adapted, _ = setting.model("adapted", video, None)
    row = {"seen": [some.spec.name for some in others], **about, "adapted_steps": steps}
    test = data.split("test")
    row |= {"before": told(before, video, test), "after": told(adapted, video, test)}
    beside = LabelledDataset(Part(video, 0), label(video, adapted))
    return row | {"planner": planned(setting, beside, adapted, Few(video, few))}


def planned(
    setting: Setting, beside: LabelledDataset, model: Any, labelled: Dataset
) -> dict[str, Any]:
    """A planner in the adapted world, above random torques in the same episodes."""
    from .latent_worlds import PLAYED, difference, mapped, planning, trained
    from .pendulum import blind, play

    world = mapped(trained(setting, "unseen", beside), model, labelled)
    environment = labelled.spec.environment
    assert environment is not None
    random = play(blind(), environment, 2, name="random", seeds=PLAYED)
    context = world.spec.context
    ours = play(planning(world), environment, context, name="planner", seeds=PLAYED)
    return {"random": random, "planner": ours, "above_random": difference(ours, random)}

"""A model card for the hub, made from a world and its fidelity card."""

from __future__ import annotations

from typing import Any

from worldsim.evaluate.describe import describe
from worldsim.store.hub import client
from worldsim.world.diffusion import DiffusionWorld

TAGS = ["world-model", "video-generation", "diffusion", "gymnasium", "simulation"]
TASK = "reinforcement-learning"

BODY = """# {name}

A world of [worldsim](https://pypi.org/project/worldsim/): a simulator learned from video, which
agents step through. It shows {height} x {width} pictures at {fps:g} frames a second, {chunk} frames
a step, and takes {action}.{trained}

## Use it

```sh
pip install 'worldsim[hub]'
worldsim play hf://{repository}
```

```python
import gymnasium
import worldsim

env = gymnasium.make("WorldSim-v0", world="hf://{repository}")
world = worldsim.load("hf://{repository}")
```

Every file is checked against the SHA-256 in `manifest.json` when the world is loaded, and nothing
of it is executed.

## How far it can be trusted

{fidelity}

## What it is made of

{sizes}
"""

UNMEASURED = (
    "Nobody measured it: this world has no fidelity card. `worldsim eval --world FOLDER --data "
    "DATA` writes one."
)


def model_card(world: DiffusionWorld, repository: str, license: str | None = None) -> str:
    """README.md of `world`: YAML front matter with the card's figures, and the card in words.

    license: an identifier of the hub's list, such as "mit"; left out of the page if None.
    """
    spec = world.spec
    height, width, _ = spec.frame_shape
    body = BODY.format(
        name=spec.name, height=height, width=width, fps=spec.fps, chunk=spec.chunk,
        action=_action(world), trained=_trained(world), repository=repository, sizes=_sizes(world),
        fidelity=f"```text\n{describe(world.card)}\n```" if world.card else UNMEASURED,
    )  # fmt: skip
    data = client().ModelCardData(
        library_name="worldsim", license=license, tags=TAGS, pipeline_tag=TASK,
        model_name=spec.name, eval_results=_results(world) or None,
    )  # fmt: skip
    return f"---\n{data.to_yaml()}\n---\n\n{body}"


def _action(world: DiffusionWorld) -> str:
    action = world.spec.action
    if action.kind == "none":
        return "no actions"
    if not action.is_discrete:
        return f"{len(action.low)} numbers as an action"
    if action.shape:
        return f"choices among {', '.join(map(str, action.choices))} as an action"
    return f"one of {action.choices[0]} choices as an action"


def _trained(world: DiffusionWorld) -> str:
    """The frame sizes that it was trained on, where they were several."""
    sizes = world.config.sizes
    told = ", ".join(f"{height} x {width}" for height, width in sizes)
    return f" Trained at {told}." if len(sizes) > 1 else ""


def _sizes(world: DiffusionWorld) -> str:
    dynamics = world.dynamics
    parts = {"VAE": world.vae, "video DiT": dynamics.dit, "reward and end heads": dynamics.heads}
    rows = [f"| {n} | {sum(p.numel() for p in m.parameters()):,} |" for n, m in parts.items()]
    return "\n".join(["| part | parameters |", "|---|---|", *rows])


def _results(world: DiffusionWorld) -> list[Any]:
    """The card's judged figures, as the hub lists results."""
    card = world.card or {}
    data = card.get("data", {})
    name = f"{data.get('split', 'test')} episodes of {world.spec.name}"
    return [
        client().EvalResult(
            task_type=TASK, task_name="video prediction", dataset_type="recorded-episodes",
            dataset_name=name, metric_type=line["figure"], metric_value=line["value"],
            metric_name=f"{line['figure']} ({line['unit']})" if line["unit"] else line["figure"],
        )
        for line in card.get("lines", [])
        if line["value"] is not None and line["goal"] is not None
    ]  # fmt: skip

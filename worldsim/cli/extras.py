"""Which extra of the package brings a module that is not installed."""

from __future__ import annotations

EXTRAS = {
    "Box2D": "box2d",
    "pygame": "play",
    "starlette": "web",
    "uvicorn": "web",
    "websockets": "web",
    "pyarrow": "lerobot",
    "huggingface_hub": "hub",
    "h5py": "minari",
    "minari": "minari",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "matplotlib": "viz",
    "moviepy": "video",
    "stable_baselines3": "dev",
}
"""Module -> extra of `pip install 'worldsim[EXTRA]'`."""


def missing_module(error: ImportError) -> str | None:
    """A sentence that names the extra to install; None for an import that should have worked."""
    name = (error.name or "").split(".")[0]
    if name in EXTRAS:
        return f"{name} is not installed: pip install 'worldsim[{EXTRAS[name]}]'"
    text = " ".join(str(error).split())
    return text if "worldsim[" in text else None

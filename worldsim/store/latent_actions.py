"""A latent action model, and the labels it gave a recording, as files that know their own hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from worldsim.config import ConfigError, from_json, to_json
from worldsim.data.labelled import LatentLabels
from worldsim.models.latent_actions import LatentActionConfig, LatentActionModel

from .tensors import load_tensors, refusal, save_tensors

FORMAT, LABELS = "worldsim-latent-actions", "worldsim-latent-labels"
MOST_BYTES = 2**32


def save_latent_actions(model: LatentActionModel, path: str | Path) -> None:
    """Write the model, all or nothing; OSError where the disk fails."""
    about = {"format": FORMAT, "config": to_json(model.config)}
    save_tensors(path, model.state_dict(), about)


def load_latent_actions(path: str | Path) -> LatentActionModel:
    """The model of a file; raises TensorFileError for anything else."""
    tensors, about = load_tensors(path, max_bytes=MOST_BYTES, finite=True)
    model = _built(Path(path), about)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise refusal(Path(path), "tensors of another model") from error
    return model.eval().requires_grad_(False)


def _built(path: Path, about: Any) -> LatentActionModel:
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise refusal(path, "no latent action model")
    try:
        return LatentActionModel(from_json(LatentActionConfig, about.get("config"), "config"))
    except (ConfigError, RuntimeError, ValueError) as error:
        raise refusal(path, str(error)[:200]) from error


def save_labels(labels: LatentLabels, path: str | Path) -> None:
    """Write labels, all or nothing; OSError where the disk fails."""
    tensors = {f"latent/{name}": x for name, x in labels.latent.items()}
    tensors |= {f"confidence/{name}": x for name, x in labels.confidence.items()}
    save_tensors(path, tensors, {"format": LABELS, "width": labels.width})


def load_labels(path: str | Path) -> LatentLabels:
    """The labels of a file; raises TensorFileError for anything else."""
    tensors, about = load_tensors(path, max_bytes=MOST_BYTES, finite=True)
    if not isinstance(about, dict) or about.get("format") != LABELS:
        raise refusal(Path(path), "no labels of `worldsim label`")
    parts: dict[str, dict[str, Tensor]] = {"latent": {}, "confidence": {}}
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        parts[kind][name] = value
    return LatentLabels(int(about["width"]), parts["latent"], parts["confidence"])

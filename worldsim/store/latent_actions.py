"""A latent action model, and the labels it gave a recording, as files that know their own hash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from worldsim.config import from_json, parse_json, to_json
from worldsim.data.labelled import LatentLabels
from worldsim.models.latent_actions import LatentActionConfig, LatentActionModel

from .tensors import check_kinds, load_tensors, refusal, save_tensors

PARTS = ("latent", "confidence", "lengths", "names")
FORMAT, LABELS = "worldsim-latent-actions", "worldsim-latent-labels"
MOST_BYTES = 2**32


def save_latent_actions(model: LatentActionModel, path: str | Path) -> None:
    """Write the model, all or nothing; OSError where the disk fails."""
    about = {"format": FORMAT, "config": to_json(model.config)}
    save_tensors(path, model.state_dict(), about)


def load_latent_actions(path: str | Path) -> LatentActionModel:
    """The model of a file; raises TensorFileError for anything else."""
    tensors, about = load_tensors(path, max_bytes=MOST_BYTES, finite=True)
    with torch.device("meta"):  # takes no memory before the file's shapes are seen to fit
        check_kinds(Path(path), _built(Path(path), about), tensors)
    model = _built(Path(path), about).float()  # whatever the default dtype is just now
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)


def _built(path: Path, about: Any) -> LatentActionModel:
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise refusal(path, "no latent action model")
    try:
        return LatentActionModel(from_json(LatentActionConfig, about.get("config"), "config"))
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise refusal(path, str(error)[:200]) from error


def save_labels(labels: LatentLabels, path: str | Path) -> None:
    """Write labels, all or nothing; OSError where the disk fails.

    Those of all episodes lie end to end, so that a recording may have any number of them.
    """
    names = sorted(labels.latent)
    rows = {"latent": labels.latent, "confidence": labels.confidence}
    tensors = {kind: torch.cat([some[name] for name in names]) for kind, some in rows.items()}
    tensors["lengths"] = torch.tensor([len(labels.latent[name]) for name in names])
    told = json.dumps(names).encode()
    tensors["names"] = torch.frombuffer(bytearray(told), dtype=torch.uint8)
    save_tensors(path, tensors, {"format": LABELS, "width": labels.width})


def load_labels(path: str | Path) -> LatentLabels:
    """The labels of a file; raises TensorFileError for anything else."""
    tensors, about = load_tensors(path, max_bytes=MOST_BYTES, finite=True)
    if not isinstance(about, dict) or about.get("format") != LABELS:
        raise refusal(Path(path), "no labels of `worldsim label`")
    try:
        latent, confidence, lengths, told = (tensors.pop(name) for name in PARTS)
        names = parse_json(told.numpy().tobytes(), "names")
        parts = latent.split(lengths.tolist()), confidence.split(lengths.tolist())
        both = [dict(zip(names, part, strict=True)) for part in parts]
        return LatentLabels(about["width"], *both)
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise refusal(Path(path), str(error)[:300]) from error

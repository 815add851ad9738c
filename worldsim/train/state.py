"""What a run folder says of itself: `run.json` with its settings and the plan of each stage."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from worldsim.config import from_json, read_json
from worldsim.core import WorldError
from worldsim.files import atomic_path

from .checkpoint import CheckpointError, check_settings
from .distributed import is_main
from .plan import StagePlan, trained_seconds


@dataclass(frozen=True, kw_only=True)
class _Told:
    """`run.json`."""

    format: Literal["worldsim-run"] = "worldsim-run"
    settings: dict[str, Any]
    seconds: float
    plans: dict[str, Any]


class RunState:
    """The settings and progress of a run in `folder`; what is there must have the same settings.

    Attributes:
        plans: how long each stage trains, as decided when it began.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """Read or begin a run; raises CheckpointError for a foreign or other one."""
        self.folder, self.settings = folder, settings
        self.path = folder / "run.json"
        self.plans: dict[str, StagePlan] = {}
        self._before, self._begun = 0.0, time.monotonic()
        if self.path.exists():
            self._read()

    @property
    def seconds(self) -> float:
        """Spent so far, over all sittings; of a stage that was killed, as far as its log goes."""
        return self._before + time.monotonic() - self._begun

    def left(self, hours: float | None) -> float | None:
        """Seconds of the budget that are left, a minute at least; None where there is none."""
        return None if hours is None else max(60.0, hours * 3600 - self.seconds)

    def plan(self, stage: str, plan: StagePlan) -> None:
        """Keep a stage's plan, for good."""
        self.plans[stage] = plan
        self.save()

    def save(self) -> None:
        """Write `run.json`, all or nothing; of many processes, the main one does."""
        if not is_main():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        plans = {name: asdict(plan) for name, plan in self.plans.items()}
        known = asdict(_Told(settings=self.settings, seconds=self.seconds, plans=plans))
        with atomic_path(self.path) as part:
            part.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")

    def _read(self) -> None:
        try:
            told = from_json(_Told, read_json(self.path), "run")
            plans = {name: from_json(StagePlan, plan, name) for name, plan in told.plans.items()}
        except WorldError as error:
            raise CheckpointError(
                f"{self.path}: expected the settings of a training run, got {str(error)[:200]}; "
                "move the folder away, or choose another run folder"
            ) from error
        if not plans:  # refused before its first stage, say for a budget too small: binds nobody
            return
        check_settings(self.path, told.settings, self.settings)
        self.plans = plans
        begun = list(plans)[-1:]  # the stage that a kill interrupted, if any
        self._before = told.seconds + sum(trained_seconds(self.folder / name) for name in begun)

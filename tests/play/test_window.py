"""The dream in a window, on a screen that is not there."""

from pathlib import Path
from typing import Any

import pytest

pygame = pytest.importorskip("pygame")

from worldsim.core import WorldError  # noqa: E402
from worldsim.play.handover import Company  # noqa: E402
from worldsim.play.window import Window  # noqa: E402
from worldsim.world.point import PointWorld  # noqa: E402


def press(*keys: int, up: bool = False) -> None:
    for key in keys:
        pygame.event.post(pygame.event.Event(pygame.KEYUP if up else pygame.KEYDOWN, key=key))


def test_keys_step_rewind_save_and_end(tmp_path: Path) -> None:
    world: Any = PointWorld()
    window = Window(world, tmp_path, Company())
    pygame.event.clear()
    dot, comma = pygame.K_PERIOD, pygame.K_COMMA
    press(pygame.K_RIGHT, dot, dot, dot, comma, pygame.K_f)
    press(pygame.K_RIGHT, up=True)
    press(dot, pygame.K_ESCAPE)
    window.play()
    session = window.session
    assert session.now.step == 3 and session.moments[2].action.tolist() == [1, 0]
    assert session.now.action.tolist() == [0, 0] and len(list(tmp_path.glob("*.mp4"))) == 1


def test_without_a_screen_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "nowhere")
    world: Any = PointWorld()
    with pytest.raises(WorldError, match="window: no screen here .* leave --window out"):
        Window(world, tmp_path, Company())

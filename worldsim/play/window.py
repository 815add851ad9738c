"""The dream in a window of this machine's screen, for where there is no browser (pygame)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pygame

from worldsim.core import WorldError, WorldModel

from .handover import Company
from .keep import keep
from .session import Session

SIDE = 640  # pixels, about, of the longer side
BAR = 8  # pixels, of trust below the picture
ARROWS = {pygame.K_UP: "w", pygame.K_DOWN: "s", pygame.K_LEFT: "a", pygame.K_RIGHT: "d"}
HELP = (
    "Space: play or pause   .: one step   ,: one back   R: reset   H: hand over   F: save a film   "
    "Esc: end"
)


class Window:
    """A session on a screen. world: what is dreamt. keep_in: folder of films. company: as `Server`.

    Raises WorldError where there is no screen.
    """

    def __init__(self, world: WorldModel, keep_in: Path, company: Company) -> None:
        self.session, self.keep_in = Session(world, company=company), keep_in
        self.running = self.handed = False
        self.held: list[str] = []
        height, width, _ = world.spec.frame_shape
        self.times = max(1, SIDE // max(height, width))
        self.picture = width * self.times, height * self.times
        try:
            pygame.display.init()
            self.screen = pygame.display.set_mode((self.picture[0], self.picture[1] + BAR))
        except pygame.error as error:
            raise WorldError(f"window: no screen here ({error}); leave --window out") from error
        self.clock = pygame.time.Clock()

    def play(self) -> None:
        """Until the window is closed."""
        spec = self.session.world.spec
        keys = "   ".join(f"{k.key.upper()}: {k.label}" for k in self.session.controls.keys)
        print(f"{keys}\n{HELP}", flush=True)
        try:
            while all([self.on(event) for event in pygame.event.get()]):
                if self.running:
                    self.step()
                self.draw()
                self.clock.tick(spec.fps / spec.chunk)
        finally:
            pygame.display.quit()

    def step(self) -> None:
        """One step under the held keys, or the policy."""
        self.session.step(tuple(self.held), driver="policy" if self.handed else "keys")
        self.running = self.running and not self.session.now.over

    def on(self, event: Any) -> bool:
        """Take an event; False for the one that ends it."""
        if event.type == pygame.QUIT or (event.type, getattr(event, "key", 0)) == (
            pygame.KEYDOWN,
            pygame.K_ESCAPE,
        ):
            return False
        if event.type in (pygame.KEYDOWN, pygame.KEYUP):
            key = ARROWS.get(event.key) or (chr(event.key) if 0 < event.key < 128 else "")
            if any(known.key == key for known in self.session.controls.keys):
                self.held = [k for k in self.held if k != key]
                self.held += [key] * (event.type == pygame.KEYDOWN)
            elif event.type == pygame.KEYDOWN:
                self.command(key)
        return True

    def command(self, key: str) -> None:
        """What is no action: pausing, rewinding, handing over, saving."""
        session = self.session
        if key == " ":
            self.running = not self.running
        elif key == ".":
            self.running = False
            self.step()
        elif key == ",":
            self.running = False
            session.rewind(session.now.step - 1)
        elif key == "r":
            session.reset(session.seed + 1)
        elif key == "h" and session.company.policies:
            self.handed = not self.handed
            session.choose(next(iter(session.company.policies)) if self.handed else "")
        elif key == "f" and session.now.step:
            print(f"saved {keep(session, 'film', self.keep_in)}", flush=True)

    def draw(self) -> None:
        """The newest frame, its trust as a bar, its figures as the title."""
        now = self.session.now
        frame = pygame.surfarray.make_surface(np.swapaxes(now.frames[-1], 0, 1))
        self.screen.fill((24, 24, 28))
        self.screen.blit(pygame.transform.scale_by(frame, self.times), (0, 0))
        width = round(self.picture[0] * (now.trust or 0.0))
        pygame.draw.rect(self.screen, (90, 200, 120), (0, self.picture[1], width, BAR))
        who = self.session.handover.name if self.handed else "you"
        trust = "unknown" if now.trust is None else f"{now.trust:.2f}"
        name = self.session.world.spec.name
        pygame.display.set_caption(
            f"{name}: step {now.step}, return {now.total:.1f}, trust {trust}, driven by {who}"
        )
        pygame.display.flip()

"""How CarRacing-v3 is recorded."""

from dataclasses import replace

from worldsim.collect.sensors import PICTURE
from worldsim.core import EnvironmentSpec
from worldsim.recipes.recipe import Recipe
from worldsim.train.distill import DistillationConfig
from worldsim.train.loop import FitConfig
from worldsim.train.recipe import QUICK
from worldsim.train.recipe import Recipe as Training

from .drawing import draw_in_sight
from .drivers import DRIVERS, DRIVERS_APART, DRIVERS_BEYOND
from .sensors import SENSORS

FAST = 90.0  # units a second: beyond what most drivers reach


def car_racing() -> Recipe:
    """CarRacing-v3 as the bundled world saw it: the score bar cropped away, 56x64, 25 actions/s.

    The first 50 frames are the camera's zoom and are dropped.
    """
    environment = EnvironmentSpec(
        id="CarRacing-v3",
        source="observation",
        crop=(0, 84, 0, 96),
        size=(56, 64),
        chunk=2,
        warmup=50,
    )
    seeds = {"train": range(300), "val": range(1000, 1050), "test": range(5000, 5050)}
    return Recipe(
        environment=environment, seeds=seeds, policies=DRIVERS, apart=DRIVERS_APART,
        quicken=draw_in_sight,
    )  # fmt: skip


def scenery() -> Recipe:
    """CarRacing in drawn sceneries with captions, 40x48, every pixel the mean of four: 200 tracks
    of twelve seconds; something changes every second or two.

    Half of the test split has combinations that are in no other recording.
    """
    seeds = {"train": range(200), "val": range(1000, 1010), "test": range(5015, 5035)}
    return replace(
        scenery_large().seen(crop=(0, 80, 0, 96), size=(40, 48), max_frames=600), seeds=seeds
    )


def scenery_large() -> Recipe:
    """The same as the bundled `car-racing` sees it, 56x64: 500 whole tracks."""
    base = car_racing().seen(id="WorldSim/SceneryRacing-v0")
    return replace(base, seeds={**base.seeds, "train": range(500)})


def scenery_training() -> Training:
    """How a small world of sceneries is trained.

    Rain, snow and headlights ask more of the VAE than of what moves. Frames tell what words say, so
    that words are learned where frames are hidden, or in other colours: in single pictures, of
    which a step holds many, and in half of the clips. In some batches chunks ahead are known, or
    time runs backwards, for `generate`; in some clips the picture to be drawn again is in other
    colours, for `edit`. What the wheel does hardly shows in the next chunk: it is learned in
    dreams, which half of the student's clips are.
    """
    words = {"from_nothing": 0.3, "masked": 0.12, "recolour": 0.15, "recolour_context": 0.2,
             "stills": 0.25}  # fmt: skip
    dreams = {"dreamt": 0.5, "resample": 0.2, "guided": 0.25}
    return Training(
        vae=replace(QUICK.vae, fit=replace(QUICK.vae.fit, steps=13_000)),
        forced=replace(QUICK.forced, fit=replace(QUICK.forced.fit, steps=2000), **words),
        teacher=replace(QUICK.teacher, fit=replace(QUICK.teacher.fit, steps=400), **words),
        distill=replace(
            QUICK.distill, fit=replace(QUICK.distill.fit, steps=1200, lr=8e-4), **words, **dreams
        ),
    )


def car_racing_state() -> Recipe:
    """What `car-racing-state` is trained on: 56x64 and what the car feels, 620 tracks.

    Six kinds of drivers beside the expert: half of the tracks are the bundled world's, then come
    light feet, bad drivers, speed and the way back from the grass, each on tracks of its own.
    """
    base = car_racing().seen(id="WorldSim/StateRacing-v0", image=PICTURE, state=SENSORS)
    seeds = {**base.seeds, "train": range(620)}
    return replace(base, seeds=seeds, apart=DRIVERS_BEYOND, notable={"speed": FAST})


def car_racing_training() -> Training:
    """How `car-racing-state` goes on from the bundled `car-racing`, whose networks it has.

    The VAE is kept; the student learns the new tracks and the state vector, which joins without a
    say. Contexts are dreamt of drivers whose pedals or wheel do not always answer to the road,
    seeds 200 and up: of the others the actions would tell where it bends. Dreams begin in what the
    skilled ones saw: who is lost in the grass at first has no road to learn on.
    """
    return Training(
        vae=replace(Training().vae, fit=replace(Training().vae.fit, steps=0)),
        distill=DistillationConfig(
            fit=FitConfig(steps=3600, batch=16, lr=5e-4, ema=0.998, warmup=100, muon=True),
            targets=12, resample=0.3, dreamt=0.4, blind=(200, 620), drop_state=0.2,
            state_noise=0.1, heads=0.2, halvings=3, adversarial=0.06,
        ),
        starts=(0, 200),
    )  # fmt: skip

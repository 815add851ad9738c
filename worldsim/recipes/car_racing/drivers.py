"""Scripted drivers of CarRacing, from skilled to open-loop, and their mix in a recording.

They read the track from the simulator, so none needs training.
"""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.collect.environment import RecordedEnv
from worldsim.collect.policies import CollectPolicy, Policy

Action = NDArray[np.float32]


def _wrap(angle: float) -> float:
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def pursue(env: Any, *, top_speed: float = 88.0, gas: float = 0.5, brake: float = 0.2) -> Action:
    """Pure pursuit of the road ahead: (steer, gas, brake) for CarRacing in its present state.

    top_speed: on a straight road, in simulator units a second.
    """
    simulator = env.unwrapped
    hull, track = simulator.car.hull, np.asarray(simulator.track)  # (tiles, 4): alpha, beta, x, y
    position, velocity = np.array(hull.position), np.array(hull.linearVelocity)
    speed = float(np.linalg.norm(velocity))
    nearest = int(np.argmin(((track[:, 2:] - position) ** 2).sum(1)))
    ahead = np.roll(track, -nearest, axis=0)
    x, y = ahead[int(2.87 + 0.08 * speed)][2:] - position
    error = _wrap(np.arctan2(-x, y) - hull.angle)  # the car faces (-sin, cos) of its angle
    steer = np.clip(-3.38 * error + 0.15 * hull.angularVelocity, -1, 1)
    bend = abs(_wrap(ahead[10][1] - ahead[1][1]))
    target = top_speed / (1 + bend)
    if abs(error) > 0.8:  # sliding or turned round: gas now would only spin the car
        target = min(target, 20.0)
    pedals = (gas if speed < target else 0.0, brake if speed > 1.3 * target else 0.0)
    return np.array([steer, *pedals], np.float32)


def expert(env: RecordedEnv, rng: np.random.Generator) -> Policy:
    """The clean driver: stays on the road and finishes the lap."""
    return lambda obs: pursue(env)


def noisy_expert(env: RecordedEnv, rng: np.random.Generator, sigma: float) -> Policy:
    """The expert disturbed by Ornstein-Uhlenbeck noise of volatility `sigma` on every control."""
    noise = np.zeros(3)

    def policy(obs: Any) -> Action:
        nonlocal noise
        noise = 0.85 * noise + sigma * rng.standard_normal(3)
        return (pursue(env) + noise).astype(np.float32)

    return policy


def weave(env: RecordedEnv, rng: np.random.Generator) -> Policy:
    """Drives at a speed of its own, and now and then pulls the wheel for a moment and recovers."""
    top_speed = rng.uniform(35, 100)
    left, pull, gas, brake = 0, 0.0, 0.5, 0.2

    def policy(obs: Any) -> Action:
        nonlocal left, pull, gas, brake
        if left == 0:  # the next stretch: a pull of 3-8 actions, or clean driving of 5-25
            pull = rng.uniform(-1, 1) if pull == 0.0 else 0.0
            left = int(rng.integers(3, 9) if pull else rng.integers(5, 26))
            gas, brake = rng.uniform(0.2, 1.0), rng.uniform(0.1, 0.9)
        left -= 1
        action = pursue(env, top_speed=top_speed, gas=gas, brake=brake)
        return action + np.array([pull, 0, 0], np.float32)

    return policy


def brownian(env: RecordedEnv, rng: np.random.Generator) -> Policy:
    """Open loop: wheel and pedal wander at random, with the foot leaning towards the gas."""
    steer, pedal = 0.0, 0.5

    def policy(obs: Any) -> Action:
        nonlocal steer, pedal
        steer = float(np.clip(0.98 * steer + 0.2 * rng.standard_normal(), -1, 1))
        pedal = float(np.clip(0.97 * pedal + 0.01 + 0.15 * rng.standard_normal(), -1, 1))
        return np.array([steer, max(pedal, 0), max(-pedal, 0)], np.float32)

    return policy


def smooth_throttle(env: RecordedEnv, rng: np.random.Generator) -> Policy:
    """Steers as the expert does and holds its foot for seconds: a gentle gas or none, at times the
    brake beside it, at times the brake alone. Without this a world has to guess how fast a car goes
    that is treated so, and policies with a light foot are scored wrongly."""
    left, pedals = 0, (0.0, 0.0)

    def policy(obs: Any) -> Action:
        nonlocal left, pedals
        if left == 0:
            left = int(rng.integers(15, 101))
            gas = float(np.exp(rng.uniform(np.log(0.01), np.log(0.4)))) * (rng.random() < 0.85)
            kind = rng.random()
            brake = 0.0 if kind < 0.6 else rng.uniform(0, 0.15 if kind < 0.9 else 0.9)
            pedals = (gas, brake)
        left -= 1
        return np.array([pursue(env)[0], *pedals], np.float32)

    return policy


def unskilled(env: RecordedEnv, rng: np.random.Generator) -> Policy:
    """Drives as the unpractised do: wheel and pedals too weak or too strong, off to one side, under
    fresh noise at every action, and now and then open-loop for up to four seconds: nobody brings
    the car back in time, it gets lost or stands. Without this a world keeps a bad driver on the
    road, and a policy that is ruined in reality earns well in the dream."""
    gain = rng.uniform([0.2, 0.1, 0.0], [1.5, 1.2, 1.5])
    lean = rng.normal(0, [0.15, 0.05, 0.05])
    noise = rng.uniform(0, 0.8) if rng.random() < 0.6 else 0.0
    open_loop, left, held = rng.uniform(0.0, 0.03), 0, np.zeros(3)

    def policy(obs: Any) -> Action:
        nonlocal left, held
        if left:
            left -= 1
        else:
            held = pursue(env) * gain + lean
            if rng.random() < open_loop:
                left = int(rng.integers(10, 101))
                stand = np.array([held[0], 0, rng.uniform(0, 0.9)])
                held = (held, stand, rng.uniform([-1, 0, 0], [1, 1, 0.5]))[rng.integers(3)]
        return (held + noise * rng.standard_normal(3)).astype(np.float32)

    return policy


def fast(env: RecordedEnv, rng: np.random.Generator) -> Policy:
    """Drives on the limit: full throttle, a high speed of its own, brakes late, at times too late.
    Without this a world has seen no speed above 90, where agents that earn well spend their time.
    """
    top_speed, gas, brake = rng.uniform([105, 0.7, 0.2], [170, 1.0, 0.9])
    noise, volatility = np.zeros(3), rng.choice([0.0, 0.1, 0.2])

    def policy(obs: Any) -> Action:
        nonlocal noise
        noise = 0.85 * noise + volatility * rng.standard_normal(3)
        action = pursue(env, top_speed=top_speed, gas=gas, brake=brake)
        return (action + noise).astype(np.float32)

    return policy


def returning(env: RecordedEnv, rng: np.random.Generator) -> Policy:
    """Leaves the road now and then, wheel and pedals held for up to two seconds, and drives back
    onto it. Without this a world has hardly seen the road from the grass, and an agent that gets
    there is lost in its dream in another way than in reality."""
    top_speed, left, away = rng.uniform(30, 80), int(rng.integers(20, 60)), False
    held = np.zeros(3, np.float32)

    def policy(obs: Any) -> Action:
        nonlocal left, away, held
        if left == 0:
            away = not away
            left = int(rng.integers(12, 51) if away else rng.integers(40, 121))
            held = rng.uniform([-1, 0, 0], [1, 0.8, 0.2]).astype(np.float32)
        left -= 1
        return held if away else pursue(env, top_speed=top_speed)

    return policy


def distracted(env: RecordedEnv, rng: np.random.Generator) -> Policy:
    """Drives by the road for a while, then for a second or more as if it saw another road: it does
    again what it did some time ago, holds the wheel, or lets it wander. Both pedals may be held all
    along, and noise lies on everything at times. Good drivers' actions tell where the road is, so
    that a world trained on them alone bends the road to whoever drives (a delusion: Ortega et al.
    2021, 2110.10819); an open-loop driver's tell nothing, as an agent's in a dream."""
    done: list[Action] = []
    sighted, left, noise = False, 0, 0.0
    pedals: Action | None = None
    again: list[Action] = []
    wheel = turn = 0.0

    def begin() -> None:
        nonlocal sighted, left, noise, pedals, again, wheel, turn
        sighted = not sighted
        left = int(rng.integers(15, 60 if sighted else 90))
        noise = rng.uniform(0, 0.8) if rng.random() < 0.4 else 0.0
        pedals = _held_pedals(rng, sighted)
        again, kind, turn = [], rng.random(), 0.0
        if not sighted and len(done) > left and kind < 0.5:
            first = int(rng.integers(len(done) - left))
            again = done[first : first + left]
        elif not sighted:  # hold the wheel straight, as it is, or anywhere; or let it wander
            wheel = float(rng.choice([0.0, wheel, rng.uniform(-1, 1)]))
            turn = 0.2 if kind > 0.8 else 0.0

    def policy(obs: Any) -> Action:
        nonlocal left, wheel
        if left == 0:
            begin()
        left -= 1
        if sighted or again:
            action = again[-left - 1] if again else pursue(env)
            wheel = float(action[0])
        else:
            wheel = float(np.clip(0.97 * wheel + turn * rng.standard_normal(), -1, 1))
            action = np.array([wheel, 0, 0], np.float32)
        if pedals is not None and not again:
            action = np.array([wheel, *pedals], np.float32)
        if sighted:
            done.append(action)
        return (action + noise * rng.standard_normal(3)).astype(np.float32)

    return policy


def _held_pedals(rng: np.random.Generator, sighted: bool) -> Action | None:
    """Gas and brake held for a while, at times both; None leaves them to who sees the road."""
    most = rng.choice([0.0, 0.4, 1.0], p=[0.4, 0.4, 0.2])
    if rng.random() < 0.5:
        return rng.uniform(0, [1.0, most]).astype(np.float32)
    return None if sighted else np.array([rng.uniform(0, 0.6), 0], np.float32)


DRIVERS = (
    CollectPolicy(name="expert", make=expert, share=0.20),
    CollectPolicy(name="weave", make=weave, share=0.30),
    CollectPolicy(name="expert-ou-0.15", make=partial(noisy_expert, sigma=0.15), share=0.25),
    CollectPolicy(name="expert-ou-0.30", make=partial(noisy_expert, sigma=0.30), share=0.15),
    CollectPolicy(name="brownian", make=brownian, share=0.10),
)
"""The mix recorded for CarRacing: skill, recoveries from every kind of slip, the field."""

DRIVERS_APART = (
    (range(200, 300), CollectPolicy(name="smooth-throttle", make=smooth_throttle)),
    (range(300, 360), CollectPolicy(name="unskilled", make=unskilled)),
    (range(360, 480), CollectPolicy(name="distracted", make=distracted)),
)
"""Tracks for light feet and for bad drivers, by seed; those of the others stay as they were."""

DRIVERS_BEYOND = (
    *DRIVERS_APART,
    (range(480, 560), CollectPolicy(name="fast", make=fast)),
    (range(560, 620), CollectPolicy(name="returning", make=returning)),
)
"""The same, and tracks for speed and for the way back from the grass."""

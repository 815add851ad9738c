"""Worlds as environments for RL code, imported as `worldsim.envs`."""

from .gym_env import EnvState, WorldSimEnv

__all__ = ["EnvState", "WorldSimEnv"]

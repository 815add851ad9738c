"""Agents that live in a world model, imported as `worldsim.agents`; empty in version 0.1.

What will live here: `planners` (shooting methods over `WorldModel.step`), `tree_search`,
`actor_critic` (policies learnt from imagined rollouts) and `imagination` (batches of dreams as
training data). They know a world by the protocols in `worldsim.core` only, and never import
`worldsim.envs`.
"""

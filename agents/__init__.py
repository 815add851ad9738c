"""Agents that live in a world model, imported as `worldsim.agents`.

`planners` search for a plan by dreaming (iCEM, MPPI, categorical CEM), `tree_search` over forked
states (PUCT), `cloning` learns from what drivers did, `imagination` from dreams; `actor_critic`
holds the networks and drives the real environment with them. They know a world by the protocols in
`worldsim.core` only, and never import `worldsim.envs`. `tree_search` and `imagination` import
TorchRL, which is slow; this file imports nothing.
"""

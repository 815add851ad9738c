"""Worlds behind the `WorldModel` protocol, and what can be done with one."""

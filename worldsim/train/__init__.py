"""Training: one loop and what it trains. `worldsim.train(...)` is `worldsim.pipeline.train`."""

from worldsim.verbs import make_callable

make_callable(__name__, ".pipeline")

"""Recording episodes of Gymnasium environments: `worldsim.collect(...)` is `api.collect`."""

from worldsim.verbs import make_callable

from .environment import RecordedEnv, make_environment
from .errors import CollectError
from .policies import CollectPolicy

__all__ = ["CollectError", "CollectPolicy", "RecordedEnv", "make_environment"]

make_callable(__name__, "api")

"""Recording episodes of Gymnasium environments: `worldsim.collect(...)` is `api.collect`."""

from worldsim.verbs import make_callable

from .environment import RecordedEnv, make_environment
from .errors import CollectError
from .policies import CollectPolicy
from .sensors import SensorObservation

__all__ = ["CollectError", "CollectPolicy", "RecordedEnv", "SensorObservation", "make_environment"]

make_callable(__name__, "api")

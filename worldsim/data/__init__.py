"""Recorded episodes: their files, folders, and how to collect them."""

from .dataset import ActionInfo, Dataset, DatasetError, DatasetInfo, open_dataset
from .episodes import Episode, EpisodeError, load_episode, save_episode

__all__ = [
    "ActionInfo",
    "Dataset",
    "DatasetError",
    "DatasetInfo",
    "Episode",
    "EpisodeError",
    "load_episode",
    "open_dataset",
    "save_episode",
]

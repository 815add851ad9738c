"""Recorded episodes: their files, folders, and how to collect them."""

from .episode import Episode, EpisodeError, load_episode, save_episode
from .native import ActionInfo, Dataset, DatasetError, DatasetInfo, open_dataset

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

"""Recorded video: the `Dataset` protocol, its readers and writers."""

from .dataset import Dataset, DatasetError, DatasetSpec, Episode, Frames
from .native import NativeDataset, NativeWriter

__all__ = [
    "Dataset",
    "DatasetError",
    "DatasetSpec",
    "Episode",
    "Frames",
    "NativeDataset",
    "NativeWriter",
]

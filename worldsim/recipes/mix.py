"""Who drove in a recording, and how: the share of each kind of episode, and of notable moments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from worldsim.data.dataset import Dataset


def mix_of(data: Dataset, notable: Mapping[str, float]) -> dict[str, float]:
    """Shares of the chunks: by policy, largest first, and where an entry of the state is above its
    bound in `notable`, as "speed > 90"."""
    kinds: Counter[str] = Counter()
    above, total = Counter[str](), 0
    for place in range(len(data)):
        episode = data.episode(place)
        kinds[episode.policy or "unknown"] += len(episode)
        total += len(episode)
        for name, bound in notable.items():
            if episode.state is not None and name in data.spec.state:
                column = episode.state[:, data.spec.state.index(name)]
                above[f"{name} > {bound:g}"] += int((column > bound).sum())
    shares = {name: count / max(total, 1) for name, count in kinds.most_common()}
    return shares | {name: count / max(total, 1) for name, count in above.items()}


def told(shares: Mapping[str, float]) -> str:
    """One line of percentages."""
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items())

"""A published analysis of Sora's compute, recomputed from what it states, ours beside theirs.

    python -m benchmarks.sora

Plappert (Factorial Funds, March 2024), "Under the hood: how OpenAI's Sora model works",
factorialfunds.com/blog/under-the-hood-how-openai-s-sora-model-works. It starts from DiT-XL/2
(Peebles and Xie 2022, 2212.09748) at 512 x 512 and multiplies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from worldsim.costs.devices import DEVICES, crossover, devices_needed

H100 = DEVICES["h100"]
HOUR, DAY = 3600, 86400


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What the analysis states, and below it what its figures turn out to rest on.

    Attributes:
        dit_training: FLOPs of training DiT-XL.
        dit_step: FLOPs of one denoising step of one image.
        dit_parameters: of DiT-XL.
        larger: Sora's parameters over DiT-XL's.
        data: its data over DiT-XL's, least and most.
        minute, fps, squeeze: seconds of a video, its frames a second, frames to a latent.
        videos: share of video in the data.
        steps: denoising steps of a sample.
        tiktok, youtube: minutes uploaded a day.
        tiktok_share, youtube_share: of them made by such models.
        month: days.
        utilisation: of the H100's peak.
        flops_a_mac: FLOPs counted for a multiply-add; two is the custom.
    """

    dit_training: float = 1e21
    dit_step: float = 524e9
    dit_parameters: float = 675e6
    larger: float = 30
    data: tuple[float, float] = (4, 10)
    minute: float = 60
    fps: float = 24
    squeeze: float = 8
    videos: float = 0.5
    steps: int = 250
    tiktok: float = 17e6
    youtube: float = 43e6
    tiktok_share: float = 0.5
    youtube_share: float = 0.15
    month: float = 30
    utilisation: float = 1.0
    flops_a_mac: float = 1.0

    @property
    def frames(self) -> float:
        """Latent frames of a video."""
        return self.minute * self.fps / self.squeeze

    @property
    def image(self) -> float:
        """FLOPs of an image by DiT-XL."""
        return self.flops_a_mac * self.dit_step * self.steps

    @property
    def training(self) -> tuple[float, float]:
        """FLOPs of training Sora, least and most."""
        once = self.flops_a_mac * self.dit_training * self.larger * self.frames * self.videos
        return once * self.data[0], once * self.data[1]

    @property
    def step(self) -> float:
        """FLOPs of one denoising step of a video, were it linear in frames."""
        return self.flops_a_mac * self.dit_step * self.larger * self.frames

    @property
    def video(self) -> float:
        """FLOPs of a video, a minute long."""
        return self.step * self.steps

    @property
    def months(self) -> tuple[float, float]:
        """H100-months of training, least and most."""
        spans = (H100.seconds(flops, utilisation=self.utilisation) for flops in self.training)
        least, most = (seconds / (self.month * DAY) for seconds in spans)
        return least, most

    @property
    def minutes_an_hour(self) -> float:
        """Minutes of video an H100 makes in an hour."""
        return HOUR / H100.seconds(self.video, utilisation=self.utilisation)

    @property
    def breakeven(self) -> tuple[float, float]:
        """Minutes of video after which making them has cost more than training."""
        least, most = (crossover(flops, self.video) for flops in self.training)
        return least, most

    @property
    def wanted(self) -> float:
        """Minutes of video a day."""
        return self.tiktok * self.tiktok_share + self.youtube * self.youtube_share

    def serving(self, minutes_an_hour: float, peak_factor: float = 1.0) -> float:
        """H100s that make what is wanted."""
        rate, each = self.wanted / DAY, HOUR / minutes_an_hour
        return devices_needed(rate, each, peak_factor=peak_factor)


class DiTXL(NamedTuple):
    """DiT-XL/2 by its published shape, for latents of `tokens` patches of 2 x 2 x 4."""

    tokens: int = 1024  # 512 x 512 pixels
    width: int = 1152
    depth: int = 28

    @property
    def parameters(self) -> int:
        """All of it: blocks with adaLN, embeddings of patch, time and class, the last layer."""
        w = self.width
        block = 18 * w**2 + 15 * w
        embeddings = (16 + 1) * w + (256 + 1) * w + (w + 1) * w + 1001 * w
        return self.depth * block + embeddings + (w + 1) * 2 * w + (w + 1) * 32

    @property
    def macs(self) -> int:
        """Multiply-adds of a pass."""
        w, n = self.width, self.tokens
        block = n * 12 * w**2 + 2 * n**2 * w + 6 * w**2
        return self.depth * block + n * (16 + 32) * w + (256 + w) * w + 2 * w**2

    def full_attention(self, frames: float, larger: float) -> float:
        """What attention over all frames adds, over all other products; left out by the analysis.

        The network is `larger`, grown in width and depth alike. Each token costs 12 width**2
        multiply-adds a block, and 2 width for each token it looks at.
        """
        return 2 * frames * self.tokens / (12 * self.width * larger ** (1 / 3))


class Figure(NamedTuple):
    """A printed figure and ours.

    Attributes:
        name: what it is.
        printed: as printed, whose digits say how exact it is meant.
        ours: from the assumptions, nothing rounded on the way.
        rests_on: the assumptions that give it.
        instead: the value of another path that does give the printed figure, if ours does not.
        how: that path.
    """

    name: str
    printed: str
    ours: float
    rests_on: str
    instead: float | None = None
    how: str = ""

    def rounds(self, value: float) -> bool:
        """Whether `value` is the printed figure, to the digits printed."""
        digits = len(self.printed.split("e")[0].replace(".", "")) - 1
        return f"{value:.{digits}e}" == f"{float(self.printed):.{digits}e}"

    @property
    def follows(self) -> bool:
        """Whether the printed figure follows from what is printed beside it."""
        return self.rounds(self.ours)


def figures(a: Assumptions = Assumptions()) -> list[Figure]:  # noqa: B008
    """Every printed figure in the order of the analysis."""
    dit = DiTXL()
    flows = 3e6 * 256 * 3 * a.dit_step  # steps, images a step, forward and back
    return [
        Figure("DiT-XL, parameters", "675e6", dit.parameters, "its shape: width 1,152, 28 blocks"),
        Figure("DiT-XL, FLOPs a step", "524e9", dit.macs, "1,024 tokens (512 x 512), a MAC as one",
               dit.macs // 1e9 * 1e9, "cutting, not rounding"),
        Figure("DiT-XL, training FLOPs", "1e21", flows, "3M steps of 256 images, 3 x forward"),
        Figure("DiT-XL, FLOPs an image", "131e12", a.image, "250 steps"),
        Figure("DiT-XL, crossover in images", "7.6e6", crossover(a.dit_training, a.image), "1e21"),
        Figure("Sora, latent frames", "180", a.frames, "60 s, 24 frames a second, 8 to a latent"),
        Figure("Sora, training, least", "1.1e25", a.training[0], "1e21 x 30 x 180 / 2 x 4"),
        Figure("Sora, training, most", "2.7e25", a.training[1], "1e21 x 30 x 180 / 2 x 10"),
        Figure("Sora, H100-months, least", "4211", a.months[0], "100% of 989.4 TFLOP/s, 30 days"),
        Figure("Sora, H100-months, most", "10528", a.months[1], "100% of 989.4 TFLOP/s, 30 days"),
        Figure("Sora, FLOPs a step", "2.8e15", a.step, "524e9 x 30 x 180, linear in frames"),
        Figure("Sora, FLOPs a video", "708e15", a.video, "250 steps",
               2.83e15 * a.steps, "a step rounded to 2.83e15"),
        Figure("Sora, minutes an H100-hour", "5", a.minutes_an_hour, "100% of the peak"),
        Figure("Sora, crossover, least", "15.3e6", a.breakeven[0], "the two above"),
        Figure("Sora, crossover, most", "38.1e6", a.breakeven[1], "the two above",
               a.training[1] / 708e15, "a video rounded to 708e15"),
        Figure("H100s for the creators", "89e3", a.serving(5), "50% of 17M, 15% of 43M min a day",
               10.7e6 / (5 * 24), "10.7M minutes a day: 5% of YouTube, not 15%"),
        Figure("H100s at the peak", "720e3", 8 * 89e3,
               "89,000, doubled for utilisation, peaks and candidates", 8 * 90e3, "8 x 90,000"),
    ]  # fmt: skip


def counted_fully() -> list[tuple[str, str, str]]:
    """Figures as assumed, and with two FLOPs a multiply-add and 40% of the peak."""
    ways = (Assumptions(), Assumptions(flops_a_mac=2.0, utilisation=0.4))
    rows: tuple[tuple[str, str, Callable[[Assumptions], tuple[float, ...]]], ...] = (
        ("Sora, training FLOPs", "{:.2g}", lambda a: a.training),
        ("Sora, H100-months", "{:,.0f}", lambda a: a.months),
        ("Sora, minutes an H100-hour", "{:.2g}", lambda a: (a.minutes_an_hour,)),
        ("Sora, crossover in minutes", "{:.3g}", lambda a: a.breakeven),
        ("H100s for the creators", "{:,.0f}", lambda a: (a.serving(a.minutes_an_hour),)),
    )
    found = []
    for name, text, read in rows:
        first, second = (" to ".join(text.format(v) for v in read(a)) for a in ways)
        found.append((name, first, second))
    return found


def tables() -> str:
    """Both tables in Markdown."""
    lines = ["| figure | printed | ours | rests on | follows |", "|---|---|---|---|---|"]
    for f in figures():
        verdict = "yes" if f.follows else f"**no**: {f.instead:.4g} by {f.how}"
        lines.append(f"| {f.name} | {f.printed} | {f.ours:.4g} | {f.rests_on} | {verdict} |")
    lines += ["", "| figure | as assumed | 2 FLOPs a MAC, 40% of the peak |", "|---|---|---|"]
    lines += [f"| {name} | {first} | {second} |" for name, first, second in counted_fully()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())

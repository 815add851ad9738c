"""What the runs of the scaling law say, as tables and sentences for docs/explanation/scaling.md."""

from __future__ import annotations

from typing import Any

import torch

from worldsim.metrics import Interval, psnr

from .scaling_law import Law, fit_law

Record = dict[str, Any]


def of_kind(records: list[Record], kind: str) -> list[Record]:
    """Lines of one kind, "run" or "prediction"."""
    return [record for record in records if record["kind"] == kind]


def measures(record: Record) -> list[str]:
    """What is fitted: the loss, and the squared error of dreams at each horizon."""
    return [key for key in record if key == "loss" or key.startswith("mse")]


def law_of(seen: list[Record], key: str) -> Law:
    """The law of one measure through these runs."""
    flops, clips = ([r[name] for r in seen] for name in ("flops", "clips"))
    return fit_law(flops, clips, [r[key]["value"] for r in seen])


def check_whole(records: list[Record]) -> None:
    """SystemExit unless there is a prediction and the run it is about."""
    predicted = {record["name"] for record in of_kind(records, "prediction")}
    if not predicted & {record["name"] for record in of_kind(records, "run")}:
        raise SystemExit("results: the largest run is missing; run python -m benchmarks.scaling")


def split(records: list[Record]) -> tuple[list[Record], Record, Record]:
    """The runs that the prediction was made from, the prediction, and the run it is about."""
    [prediction] = of_kind(records, "prediction")
    by_name = {record["name"]: record for record in of_kind(records, "run")}
    return [by_name[n] for n in prediction["from"]], prediction, by_name[prediction["name"]]


def shown(records: list[Record]) -> list[Record]:
    """The smallest run, the best by loss of four times its compute, and the largest."""
    seen, _, last = split(records)
    base = min(seen, key=lambda r: r["budget"])
    fourfold = [r for r in seen if r["budget"] == 4 * base["budget"]]
    return [base, min(fourfold, key=lambda r: r["loss"]["value"]), last]


def report(records: list[Record]) -> str:
    """The whole report in Markdown."""
    parts = [runs_table(records), equal_compute(records), prediction_table(records),
             terms_table(records), "\n".join(sentences(records))]  # fmt: skip
    return "\n\n".join(parts)


def runs_table(records: list[Record]) -> str:
    """One line a run."""
    first = of_kind(records, "run")[0]
    heads = [title(key) for key in measures(first)]
    lines = ["| run | parameters | steps | FLOPs | minutes | " + " | ".join(heads) + " |",
             "|---" * (5 + len(heads)) + "|"]  # fmt: skip
    for r in of_kind(records, "run"):
        minutes = "" if r["seconds"] is None else f"{r['seconds'] / 60:.1f}"
        cells = [bracketed(key, r[key]) for key in measures(first)]
        lines.append(f"| {r['name']} | {r['parameters'] / 1e6:.2f}M | {r['steps']:,} "
                     f"| {r['flops']:.2e} | {minutes} | {' | '.join(cells)} |")  # fmt: skip
    still = [""] * 4 + [number(k, v) for k, v in ({"loss": None} | first["still"]).items()]
    return "\n".join([*lines, "| last frame, copied | " + " | ".join(still) + " |"])


def equal_compute(records: list[Record]) -> str:
    """Held-out loss by width and budget."""
    every = of_kind(records, "run")
    widths, budgets = (sorted({r[key] for r in every}) for key in ("width", "budget"))
    loss = {(r["width"], r["budget"]): r["loss"]["value"] for r in every}
    lines = ["| loss at equal compute | " + " | ".join(f"width {w}" for w in widths) + " |",
             "|---" * (1 + len(widths)) + "|"]  # fmt: skip
    for b in budgets:
        cells = [number("loss", loss.get((w, b))) for w in widths]
        lines.append(f"| {b}x | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def prediction_table(records: list[Record]) -> str:
    """What was predicted of the largest run, and what it reached."""
    _, prediction, last = split(records)
    lines = [f"| {last['name']} | predicted | outcome | within its 95% interval |",
             "|---|---|---|---|"]  # fmt: skip
    for key in measures(prediction):
        inside = "yes" if within(prediction[key], last[key]["value"]) else "**no**"
        outcome = number(key, last[key]["value"])
        lines.append(f"| {title(key)} | {bracketed(key, prediction[key])} | {outcome} | {inside} |")
    return "\n".join(lines)


def terms_table(records: list[Record]) -> str:
    """The law's terms before and after the largest run."""
    seen, _, last = split(records)
    lines = ["| law | runs | exponent b | tilt s | floor | floor known | scatter of a run |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for key in measures(last):
        for some in (seen, [*seen, last]):
            law = law_of(some, key)
            floor = Interval(*law.irreducible)
            lines.append(
                f"| {title(key)} | {len(some)} | {spelled(law.exponent)} | {spelled(law.tilt)} "
                f"| {bracketed(key, floor._asdict())} | {'yes' if law.floor_is_known else 'no'} "
                f"| {law.spread.value:.1%} |"
            )
    return "\n".join(lines)


def sentences(records: list[Record]) -> list[str]:
    """The reading that follows from the figures."""
    seen, prediction, last = split(records)
    keys = measures(prediction)
    missed = [title(k) for k in keys if not within(prediction[k], last[k]["value"])]
    hit = "lies within its predicted 95% interval in every measure" if not missed else (
        f"lies **outside** its predicted 95% interval in: {', '.join(missed)}")  # fmt: skip
    span = last["flops"] / min(r["flops"] for r in seen)
    base, four, _ = shown(records)
    found = [f"- The largest run, with {span:.0f} times the compute of the smallest, {hit}."]
    for key in keys:
        values = [number(key, r[key]["value"]) for r in (base, four, last)]
        found.append(f"- {title(key)}: {values[0]} at 1x ({base['name']}), {values[1]} at 4x "
                     f"({four['name']}), {values[2]} at {span:.0f}x.")  # fmt: skip
    law = law_of([*seen, last], "loss")
    halving = 2.0 ** (1 / law.exponent.value) if law.exponent.value > 0 else float("inf")
    above = f"What is above the floor of the loss halves with {halving:.1f} times the compute"
    floor = "narrow" if law.floor_is_known else "do not narrow"
    found.append(f"- {above}. These runs {floor} the floor itself to less than half of its range.")
    return [*found, f"- {allocation(law)}"]


def allocation(law: Law) -> str:
    """Whether width or steps are the better use of compute."""
    tilt = law.tilt
    if tilt.low > 0:
        return f"At equal compute the wider network has the lower loss: tilt {spelled(tilt)}."
    if tilt.high < 0:
        return f"At equal compute the longer training has the lower loss: tilt {spelled(tilt)}."
    return ("Whether width or steps are the better use of compute these runs do not tell: "
            f"tilt {spelled(tilt)}.")  # fmt: skip


def within(interval: Record, value: float) -> bool:
    """Whether a value lies in an interval."""
    return interval["low"] <= value <= interval["high"]


def title(key: str) -> str:
    """A measure in words."""
    return "held-out loss" if key == "loss" else f"dream at step {key.removeprefix('mse')}, dB"


def number(key: str, value: float | None) -> str:
    """A loss as it is, a squared error in dB, "" for None."""
    if value is None:
        return ""
    return f"{value:.4f}" if key == "loss" else f"{psnr(torch.tensor(value)).item():.2f}"


def bracketed(key: str, interval: Record) -> str:
    """A measure with its interval, the lower end first."""
    ends = sorted((interval["low"], interval["high"]), reverse=key != "loss")
    return f"{number(key, interval['value'])} [{', '.join(number(key, e) for e in ends)}]"


def spelled(interval: Interval) -> str:
    """A term of the law with its interval."""
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"

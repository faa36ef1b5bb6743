#!/usr/bin/env python3
"""Draws what a running campaignd's metrics say: `python3 grafana/picture.py [URL] [--seconds 60] [--out docs/metrics.svg]`.

Waits up to a minute for the first answer, scrapes each second, then draws four panels. Rates are what counters grew by
over the last RATE seconds, quantiles come from the buckets of the last QUANTILE seconds, with Prometheus' interpolation.
What was not scraped is not drawn: a line has gaps where nothing happened, and a panel without a metric says so. Needs
nothing but Python.
"""

import argparse
import math
import re
import sys
import time
import urllib.request
from pathlib import Path

RATE, QUANTILE = 5, 10
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
TIME = {"due", "check_due"}
SENDS = {"send_finished", "send_resolved"}
# As in generate.py: what happens outside and is reacted to.
OUTSIDE = set(
    "connection_accepted reply bounce message_delivered message_read mail_opened mail_clicked human_took_over unsubscribe".split()
)
COMMIT, LATE = "campaignd_persist_commit_seconds", "campaignd_timer_lateness_seconds"
TRIGGERS, SENT, REACTION = "campaignd_transitions_total", "campaignd_sends_total", "campaignd_reaction_seconds"

W, H, LEFT, TOP, PANEL_W, PANEL_H, STEP_X, STEP_Y = 924, 616, 64, 140, 372, 156, 464, 266
STYLE = """text{font:12px system-ui,sans-serif;fill:#444c56}.title{font-size:18px;font-weight:600;fill:#1f2328}
.name{font-size:14px;font-weight:600;fill:#1f2328}.end{text-anchor:end}.middle{text-anchor:middle}.grid{stroke:#d8dee4}
.back{fill:#fff}.line{fill:none;stroke-width:1.75;stroke-linejoin:round;stroke-linecap:round}
.c0{stroke:#0969da}.c1{stroke:#bc4c00}.c2{stroke:#1a7f37}.c3{stroke:#8250df}
@media(prefers-color-scheme:dark){text{fill:#adb5be}.title,.name{fill:#f0f3f6}.grid{stroke:#30363d}.back{fill:#0d1117}
.c0{stroke:#58a6ff}.c1{stroke:#f0883e}.c2{stroke:#3fb950}.c3{stroke:#bc8cff}}"""


def parse(text):
    """Name to a list of labels and value."""
    found = {}
    for line in text.splitlines():
        if match := SAMPLE.match(line):
            name, labels, value = match.groups()
            found.setdefault(name, []).append((dict(LABEL.findall(labels or "")), float(value)))
    return found


def scrape(url, seconds):
    """A list of seconds since the first scrape, and what was read."""
    scrapes, begin, patience = [], time.monotonic(), time.monotonic() + 60
    while (now := time.monotonic() - begin) <= seconds + 0.5:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                scrapes.append((now, parse(answer.read().decode())))
        except OSError as error:
            if scrapes:
                print(f"second {now:.0f}: {error}", file=sys.stderr)
            elif time.monotonic() < patience:
                begin = time.monotonic()
            else:
                sys.exit(f"{url}: {error}")
        time.sleep(max(0, math.floor(now) + 1 - (time.monotonic() - begin)))
    return scrapes


def increases(scrapes, name, window, pick, key):
    """For each scrape by how much the picked counters grew within the window before, summed up by `key`, and over how long."""

    def read(scrape):
        return {tuple(sorted(labels.items())): value for labels, value in scrape.get(name, []) if pick(labels)}

    series, totals = [(at, read(scrape)) for at, scrape in scrapes], []
    for (_, before), (_, after) in zip(series, series[1:]):
        # A counter that fell began anew with its process.
        grown = {}
        for labels, value in after.items():
            old = before.get(labels, 0)
            group = key(dict(labels))
            grown[group] = grown.get(group, 0) + (value - old if value >= old else value)
        totals.append(grown)
    for end in range(1, len(series)):
        begin = end
        while begin and series[end][0] - series[begin - 1][0] <= window + 0.5:
            begin -= 1
        if series[end][0] - series[begin][0] < window - 0.5:
            continue
        summed = {}
        for grown in totals[begin:end]:
            for group, value in grown.items():
                summed[group] = summed.get(group, 0) + value
        yield series[end][0], summed, series[end][0] - series[begin][0]


def rate(scrapes, name, pick):
    return [(at, sum(grown.values()) / over) for at, grown, over in increases(scrapes, name, RATE, pick, lambda _: "")]


def quantile(q, buckets):
    """Prometheus' histogram_quantile, of a map from upper bounds to cumulated counts."""
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    rank, low, below = q * buckets[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            return low if math.isinf(bound) else low + (bound - low) * (rank - below) / (buckets[bound] - below)
        low, below = bound, buckets[bound]


def quantiles(scrapes, name, q, pick=lambda _: True):
    """In milliseconds; None where there was nothing."""
    grown = increases(scrapes, name + "_bucket", QUANTILE, pick, lambda labels: float(labels["le"]))
    return [(at, None if (value := quantile(q, buckets)) is None else 1000 * value) for at, buckets, _ in grown]


def marks(high):
    """At most six round numbers from 0 to the first that is not below `high`."""
    step = next(m * 10**e for e in range(-3, 9) for m in (1, 2, 5) if high <= 5 * m * 10**e)
    return [step * n for n in range(max(1, math.ceil(high / step - 1e-9)) + 1)]


def panel(number, name, unit, lines, missing, seconds, logarithmic):
    x, y = LEFT + number % 2 * STEP_X, TOP + number // 2 * STEP_Y
    out = [f'<text class="name" x="{x}" y="{y - 36}">{name}</text>']
    if logarithmic:
        lines = [(legend, [(at, value or None) for at, value in points]) for legend, points in lines]
    lines = [(legend, points) for legend, points in lines if any(value for _, value in points)]
    values = [value for _, points in lines for _, value in points if value is not None]
    if logarithmic:
        least, most = min(values, default=1), max(values, default=10)
        ticks = [m * 10**e for e in range(-6, 9) for m in (1, 2, 5)]
        ticks = [tick for tick, after in zip(ticks, ticks[1:]) if after > least and tick < 2.5 * most]
        while len(ticks) > 2 and ticks[-2] >= most:
            ticks.pop()
        height = lambda value: math.log(value / ticks[0]) / math.log(ticks[-1] / ticks[0]) * PANEL_H
        if len(ticks) > 6:
            # The ends of the axis, and the powers of ten that do not touch their words.
            between = [tick for tick in ticks if f"{tick:e}".startswith("1.0") and 14 < height(tick) < PANEL_H - 14]
            ticks = [ticks[0], *between, ticks[-1]]
    else:
        ticks = marks(max(values, default=1) or 1)
        height = lambda value: value / ticks[-1] * PANEL_H
    across = lambda at: x + at / seconds * PANEL_W
    for tick in ticks:
        at = y + PANEL_H - height(tick)
        out.append(f'<path class="grid" d="M{x} {at:.1f}h{PANEL_W}"/>')
        out.append(f'<text class="end" x="{x - 8}" y="{at + 4:.1f}">{tick:g}</text>')
    out.append(f'<text class="end" x="{x - 8}" y="{y - 14}">{unit}</text>')
    for tick in marks(seconds):
        if tick <= seconds:
            out.append(f'<text class="middle" x="{across(tick):.1f}" y="{y + PANEL_H + 18}">{tick:g}</text>')
    out.append(f'<text class="middle" x="{x + PANEL_W / 2}" y="{y + PANEL_H + 36}">seconds since the first scrape</text>')
    along = x
    for colour, (legend, points) in enumerate(lines):
        path, pen = "", "M"
        for at, value in points:
            if value is None:
                pen = "M"
                continue
            # The stroke of a lone point is a dot, because line ends are round.
            path += f"{pen}{across(at):.1f} {y + PANEL_H - height(value):.1f}" + ("h0" if pen == "M" else "")
            pen = "L"
        if path:
            out.append(f'<path class="line c{colour}" d="{path}"/>')
        out.append(f'<path class="line c{colour}" d="M{along} {y - 18}h14"/><text x="{along + 20}" y="{y - 14}">{legend}</text>')
        along += 42 + 6.2 * len(legend)
    for row, note in enumerate(missing or ([] if values else ["nothing of the kind happened"])):
        out.append(f'<text class="middle" x="{x + PANEL_W / 2}" y="{y + PANEL_H / 2 + 18 * row}">{note}</text>')
    return out


def draw(scrapes):
    known = {name for _, scrape in scrapes for name in scrape}
    labels = lambda name, key: {found[key] for _, scrape in scrapes for found, _ in scrape.get(name, []) if key in found}
    one_of = lambda key, values: lambda found: found.get(key) in values
    others = labels(TRIGGERS, "trigger") - TIME - SENDS - OUTSIDE
    groups = ("timers", TIME), ("finished sends", SENDS), ("from outside", OUTSIDE), ("other", others)
    outside = one_of("trigger", OUTSIDE)
    panels = [
        ("Durable transitions, by what caused them", "per s", {TRIGGERS}, True,
         [(name, rate(scrapes, TRIGGERS, one_of("trigger", group))) for name, group in groups]),
        ("Finished sends, by channel", "per s", {SENT}, False,
         [(name, rate(scrapes, SENT, one_of("channel", {name}))) for name in sorted(labels(SENT, "channel"))]),
        ("Reaction: arrival from outside to durable", "ms", {REACTION}, True,
         [(f"p{q * 100:g}", quantiles(scrapes, REACTION, q, outside)) for q in (0.5, 0.99)]),
        ("Database commit, and lateness of timers", "ms", {COMMIT, LATE}, True,
         [(f"{what} p99", quantiles(scrapes, name, 0.99)) for what, name in (("commit", COMMIT), ("lateness", LATE))]),
    ]  # fmt: skip
    title = "Metrics of a campaignd at work"
    note = f"{len(scrapes)} scrapes · rates over {RATE} s, quantiles over {QUANTILE} s · log scale but for sends · a gap: nothing happened"
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {W} {H}" width="{W}" height="{H}" role="img"']
    out += [f' aria-label="{title}"><style>{STYLE}</style><rect class="back" width="{W}" height="{H}" rx="6"/>']
    out += [f'<text class="title" x="24" y="32">{title}</text><text x="24" y="54">{note}</text>']
    for number, (name, unit, needed, logarithmic, lines) in enumerate(panels):
        missing = [f"not in the scrapes: {metric}" for metric in sorted(needed) if not {metric, metric + "_bucket"} & known]
        out += panel(number, name, unit, lines, missing, max(1, math.ceil(scrapes[-1][0] - 0.5)), logarithmic)
    return "\n".join([*out, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:9464/metrics")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "metrics.svg")
    arguments = parser.parse_args()
    arguments.out.write_text(draw(scrape(arguments.url, arguments.seconds)))
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()

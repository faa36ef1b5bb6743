#!/usr/bin/env python3
"""Asks a running Prometheus every query of every panel: `python3 grafana/live_check.py http://127.0.0.1:9090`.

Starts nothing. Prometheus has to have scraped a campaignd at work for some minutes, under the job name `campaignd`. Fails
when a query is refused, or a panel has no data and is not listed below. Needs nothing but Python.
"""

import argparse
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

# Dashboard and title: why it may show nothing. Each is listed for a reason that lies in the world, not in the query.
MAY_BE_EMPTY = {
    ("persistence", "Answers that a broken database causes"): "no answer was a 5xx",
    ("runtime", "Progress of a start"): "the table was empty when the process started",
    ("accounts", "Hours of work in line"): "nothing was sent within the hour",
    ("delivery", "Share that failed"): "nothing was sent lately",
}


def ask(url, path, timeout, **parameters):
    data = urllib.parse.urlencode(parameters).encode()
    try:
        with urllib.request.urlopen(f"{url}{path}", data=data, timeout=timeout) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


def filled(expr, arguments):
    """A query with the variables as a viewer has them who looks at everything."""
    values = {"$__rate_interval": arguments.interval, "$job": arguments.job, "$instance": ".+", "$channel": ".+"}
    for name, value in values.items():
        expr = expr.replace(name, value)
    return expr


def has_data(result):
    """Whether there is a sample that is a number: 0/0 is none."""
    return any(sample["value"][1] != "NaN" for sample in result)


def check(arguments, board, panel):
    """What is wrong with a panel; None when it is well."""
    name, title = board["uid"].removeprefix("campaignd-"), panel["title"]
    data = False
    for target in panel["targets"]:
        answer = ask(arguments.url, "/api/v1/query", arguments.timeout, query=filled(target["expr"], arguments))
        if answer.get("status") != "success":
            return f"{name}: {title}: {answer.get('error')}: {target['expr']}"
        data = data or has_data(answer["data"]["result"])
    if not data and (name, title) not in MAY_BE_EMPTY:
        return f"{name}: {title}: no data: {[t['expr'] for t in panel['targets']]}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("url", help="where Prometheus listens, for example http://127.0.0.1:9090")
    parser.add_argument("--dashboards", type=Path, default=Path(__file__).parent / "dashboards")
    parser.add_argument("--job", default="campaignd")
    parser.add_argument("--interval", default="1m", help="in place of $__rate_interval: at least four scrapes")
    parser.add_argument("--timeout", type=float, default=10)
    arguments = parser.parse_args()
    arguments.url = arguments.url.rstrip("/")
    boards = [json.loads(file.read_text()) for file in sorted(arguments.dashboards.glob("*.json"))]
    panels = [(board, panel) for board in boards for panel in board["panels"]]
    known = {(board["uid"].removeprefix("campaignd-"), panel["title"]) for board, panel in panels}
    problems = [f"{name}: {title}: is listed as may-be-empty and does not exist" for name, title in MAY_BE_EMPTY.keys() - known]
    if not panels:
        problems.append(f"no dashboards in {arguments.dashboards}")
    problems += filter(None, (check(arguments, board, panel) for board, panel in panels))
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(panels)} panels of {len(boards)} dashboards, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

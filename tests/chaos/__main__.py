"""`python -m tests.chaos --runs 50 --seed 0 --report FILE`: one line a run, exit status 1 if any failed."""

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.faults import SCENARIOS, Skipped, Stage, Verdict, play


def main() -> int:
    """Play runs; see the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=50, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which they are struck")
    parser.add_argument("--report", type=Path, help="file for the results as JSON")
    parser.add_argument("--only", choices=SCENARIOS, action="append", help="this scenario; repeat for more")
    asked = parser.parse_args()
    names = [name for name in SCENARIOS if name in (asked.only or SCENARIOS)]
    plan = sorted(names[number % len(names)] for number in range(asked.runs))
    plan.sort(key=list(SCENARIOS).index)  # runs on the cluster one after another
    began, results = time.monotonic(), []
    folder = Path(tempfile.mkdtemp(prefix="lc-", dir="/tmp"))  # Ray's sockets must have short names
    failed = 0
    try:
        with Stage(folder) as stage:
            for number, name in enumerate(plan, 1):
                started = time.monotonic()
                seed = asked.seed * len(plan) + number
                try:
                    verdict, word = play(name, seed, stage), "ok"
                except Skipped as reason:
                    verdict, word = Verdict(), f"skipped: {reason}"
                if verdict.problems:
                    failed, word = failed + 1, "FAILED"
                seconds = round(time.monotonic() - started, 1)
                statuses = ", ".join(map(str, verdict.statuses))
                print(
                    f"{number:3} {name:24} seed {seed:<5} {verdict.when:32} status {statuses:8} "
                    f"{word} {seconds:.0f} s",
                    *(f"      {problem}" for problem in verdict.problems),
                    sep="\n", flush=True,
                )  # fmt: skip
                results.append(
                    {"number": number, "scenario": name, "seed": seed, "struck": verdict.when,
                     "statuses": verdict.statuses, "verdict": word, "problems": verdict.problems,
                     "seconds": seconds}
                )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = round(time.monotonic() - began)
    print(f"{len(results) - failed} of {len(results)} runs lost nothing, {seconds} s", flush=True)
    if asked.report is not None:
        metadata = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": platform.machine(), "python": platform.python_version(),
            "seed": asked.seed, "seconds": seconds, "failed": failed,
        }  # fmt: skip
        asked.report.write_text(json.dumps({"metadata": metadata, "results": results}, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""One rival in a process of its own: `python -m benchmarks.measure RIVAL FOLDER SETTING REPEATS`.

The last line printed is JSON. Start-up (imports, reading the graph, the rival's own form of it, compilation)
is measured apart from the runs.
"""

import json
import re
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks.epidemic import Graph, Setting
from benchmarks.rivals import RIVALS

# A rival is run again only while that keeps the whole benchmark to minutes.
ENOUGH_SECONDS = 60.0


def peak_rss() -> int:
    """Largest resident memory of this process so far, or since `forget_peak`, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "Linux reports VmHWM"
    return int(found[1]) * 1024


def forget_peak() -> None:
    """Start to measure the peak anew (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def main(rival: str, folder: str, setting: str, repeats: str) -> None:
    """Prepare the rival, run it, and print what that took."""
    began = time.perf_counter()
    run = RIVALS[rival](Graph.load(Path(folder)), Setting(**json.loads(setting)))
    start_up, start_up_peak = time.perf_counter() - began, peak_rss()
    forget_peak()
    seconds: list[float] = []
    attack_rates: list[float] = []
    for seed in range(int(repeats)):
        if sum(seconds) > ENOUGH_SECONDS:
            break
        began = time.perf_counter()
        attack_rates.append(run(seed))
        seconds.append(time.perf_counter() - began)
    result = {
        "rival": rival,
        "seconds": median(seconds),
        "runs": len(seconds),
        "start_up": start_up,
        "run_peak": peak_rss(),
        "start_up_peak": start_up_peak,
        "attack_rate": median(attack_rates),
    }
    sys.stdout.write(f"\n{json.dumps(result)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A public tool on the same kind of epidemic, by an interpreter that has it: `PYTHON outside.py TOOL AGENTS STEPS`.

Imports nothing of this repository. The last line printed is JSON; start-up (import, people, contacts) is apart.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

MEAN_DEGREE, TRANSMISSION_RATE, DAYS_INFECTIOUS, INITIAL_INFECTED = 10, 0.028, 7, 0.001


def starsim(num_agents: int, steps: int) -> tuple[str, Any, Callable[[Any], float]]:
    """SIR over fixed random contacts, as in its first tutorial."""
    import starsim as ss  # type: ignore[import-not-found]

    sim = ss.Sim(
        n_agents=num_agents,
        diseases=ss.SIR(
            beta=ss.perday(TRANSMISSION_RATE), init_prev=INITIAL_INFECTED, dur_inf=ss.days(DAYS_INFECTIOUS), p_death=0
        ),
        networks=ss.RandomNet(n_contacts=ss.poisson(MEAN_DEGREE), dynamic=False, uniform_targets=True),
        dt=ss.days(1),
        start=ss.date("2022-01-01"),
        dur=ss.days(steps - 1),
        verbose=0,
    )
    sim.init()
    return ss.__version__, sim, lambda done: 1 - float(done.results.sir.n_susceptible[-1]) / num_agents


def covasim(num_agents: int, steps: int) -> tuple[str, Any, Callable[[Any], float]]:
    """Its COVID-19 with its own ages and courses, over fixed random contacts."""
    import covasim as cv  # type: ignore[import-not-found]

    sim = cv.Sim(
        pop_size=num_agents,
        pop_type="random",
        contacts=MEAN_DEGREE,
        beta=TRANSMISSION_RATE,
        pop_infected=int(num_agents * INITIAL_INFECTED),
        n_days=steps - 1,
        verbose=0,
    )
    sim.initialize()
    return cv.__version__, sim, lambda done: float(done.results["cum_infections"][-1]) / num_agents


def main(tool: str, num_agents: int, steps: int) -> None:
    """Prepare, run, print what it took."""
    began = time.perf_counter()
    version, sim, attack_rate = {"starsim": starsim, "covasim": covasim}[tool](num_agents, steps)
    ready = time.perf_counter()
    sim.run()
    result = {
        "tool": tool,
        "version": version,
        "seconds": time.perf_counter() - ready,
        "start_up": ready - began,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "attack_rate": attack_rate(sim),
    }
    sys.stdout.write(f"\n{json.dumps(result)}\n")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

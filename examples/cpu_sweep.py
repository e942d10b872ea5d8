"""How long do people queue? A parameter sweep over arrivals and open counters, on all cores.

A plain script that defines its own functions: no main guard, and no separate module to import.
"""

import heapq
import random
from itertools import product

from parallelkit import run_parallel

ARRIVALS = (1, 2, 3)  # people a minute
COUNTERS = (1, 2, 3, 4)  # each serves one person a minute, on average


def mean_wait(arrivals, counters, people=50_000):
    """Minutes in the queue, by simulation."""
    if arrivals >= counters:
        raise OverflowError("the queue grows for ever")
    chance = random.Random(1)
    free_at = [0.0] * counters
    now = waited = 0.0
    for _ in range(people):
        now += chance.expovariate(arrivals)
        begin = max(now, heapq.heappop(free_at))
        waited += begin - now
        heapq.heappush(free_at, begin + chance.expovariate(1))
    return waited / people


results = run_parallel(
    mean_wait,
    product(ARRIVALS, COUNTERS),
    key=lambda pair: pair,  # results[2, 3]: the wait with 2 people a minute and 3 counters
    star=True,  # each pair becomes two arguments
    executor="processes",
    timeout=60,
    progress=True,
)

waits = results.to_dict(default=None)
print("counters        ", *(f"{counters:>6}" for counters in COUNTERS))
for arrivals in ARRIVALS:
    row = (waits[arrivals, counters] for counters in COUNTERS)
    print(f"{arrivals} people a minute", *("     –" if wait is None else f"{wait:6.2f}" for wait in row))
for (arrivals, counters), failure in results.failures.items():
    print(f"{arrivals} people a minute, {counters} counters: {failure.error}")

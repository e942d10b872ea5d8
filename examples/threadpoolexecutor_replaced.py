"""Replace ``ThreadPoolExecutor`` by changing one import, then use what the new executor can do in addition.

The program exits although one call hangs for ever: with the standard pool it would not.
"""

import threading
from concurrent.futures import as_completed

from parallelkit import TaskTimeout, ThreadExecutor  # was: from concurrent.futures import ThreadPoolExecutor


def check(host):
    if host == "db-3":
        threading.Event().wait()  # this host never answers
    return "up"


# Only the name of the class changes: submit, map, futures, callbacks and shutdown stay the same.
with ThreadExecutor(max_workers=4) as executor:
    futures = {executor.submit(check, host): host for host in ("db-1", "db-2")}
    for future in as_completed(futures):
        print(f"{futures[future]} is {future.result()}")

# New: a timeout for each call, counted from its start. A hung call costs itself and no other.
with ThreadExecutor(max_workers=1, timeout=0.2) as executor:
    futures = {host: executor.submit(check, host) for host in ("db-3", "db-4")}
    for host, future in futures.items():
        try:
            print(f"{host} is {future.result()}")
        except TaskTimeout as error:
            print(f"{host}: {error}")

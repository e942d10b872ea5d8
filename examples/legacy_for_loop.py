"""A ``for`` loop in legacy code, before and after: only the loop changes, not the function it calls."""

import time

from parallelkit import run_parallel

ACCOUNTS = {f"A-{number:03}": number for number in range(40)}


def balance_of(account):
    """Query the old ledger, which is slow, and fails for one account."""
    time.sleep(0.05)
    return 1_000 // (ACCOUNTS[account] - 13)


def before():
    balances = {}
    for account in ACCOUNTS:
        balances[account] = balance_of(account)  # one bad account, and 26 good ones are never queried
    return balances


def after():
    results = run_parallel(balance_of, list(ACCOUNTS), key=str, max_workers=20, timeout=5)
    for account, failure in results.failures.items():
        print(f"  no balance for {account}: {failure.error}")
    return results.successes


for version in (before, after):
    print(f"{version.__name__}:")
    began = time.monotonic()
    try:
        print(f"  {len(version())} of {len(ACCOUNTS)} balances", end=" ")
    except ZeroDivisionError as error:
        print(f"  nothing, as one account failed: {error}", end=" ")
    print(f"in {time.monotonic() - began:.1f} s")

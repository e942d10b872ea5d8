"""The tasks of the soak test, and the program that runs them. Imports next to nothing, because every worker imports it."""

import itertools
import os
import sys
import threading
import time


def work(number):
    """Like ``light``, but one task in a thousand crashes or hangs."""
    if number % 1000 == 500:
        if number // 1000 % 2:
            os._exit(3)
        time.sleep(1000)
    return light(number)


def light(number):
    """One task in a hundred fails, at every attempt."""
    if number % 100 == 7:
        raise ValueError(number)
    return number


class Stream:
    """An endless stream of tasks whose outcomes are counted and checked."""

    def __init__(self, function, executor, **options):
        self.function = function
        self.options = {"executor": executor, **options}
        self.count = 0
        self.wrong = []
        self.over = False

    def run(self):
        from parallelkit import Retry, iter_parallel

        retries = Retry(1, on=ValueError, delay=0.01, budget=None)
        stream = iter_parallel(self.function, itertools.count(), retries=retries, **self.options)
        for outcome in stream:
            self.count += 1
            if fate(outcome) != self.expected(outcome.key):
                self.wrong.append(repr(outcome)[:500])
            if self.over or self.wrong:
                stream.close()

    def expected(self, number):
        if self.function is work and number % 1000 == 500:
            return ("WorkerDied" if number // 1000 % 2 else "TaskTimeout"), 1
        return ("ValueError", 2) if number % 100 == 7 else (number, 1)


def fate(outcome):
    return (outcome.value if outcome.ok else type(outcome.error).__name__), outcome.attempts


def main(folder):
    """Run both streams until the file ``stop`` appears; report their counts several times a second."""
    streams = [
        Stream(work, "processes", max_workers=2, timeout=2.0),
        Stream(light, "threads", max_workers=4, timeout=60),  # long: none hangs, and a busy machine may pause
    ]
    threads = [threading.Thread(target=stream.run, daemon=True) for stream in streams]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        tell(folder, "counts", " ".join(str(stream.count) for stream in streams))
        if os.path.exists(f"{folder}/stop"):
            for stream in streams:
                stream.over = True
        for thread in threads:
            thread.join(0.125)
    wrong = [what for stream in streams for what in stream.wrong]
    tell(folder, "wrong", "\n".join(wrong))
    tell(folder, "counts", " ".join(str(stream.count) for stream in streams))
    tell(folder, "over", "")
    while not os.path.exists(f"{folder}/leave"):
        time.sleep(0.01)


def tell(folder, name, text):
    """Replace a file atomically."""
    with open(f"{folder}/{name}.new", "w") as file:
        file.write(text)
    os.rename(f"{folder}/{name}.new", f"{folder}/{name}")


if __name__ == "__main__":
    main(sys.argv[1])

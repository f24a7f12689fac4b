"""A bar on a terminal, a line for each finished step elsewhere. On standard error."""
import sys
import threading
import time


class Progress:
    def __init__(self, steps):
        self.steps, self.done, self.started = steps, 0, time.monotonic()
        self.lock, self.terminal = threading.Lock(), sys.stderr.isatty()

    def say(self, what):
        """Another step is done; `what` it was."""
        with self.lock:
            self.done += 1
            minutes = (time.monotonic() - self.started) / 60
            if self.terminal:
                full = 30 * self.done // self.steps
                end = "\n" if self.done == self.steps else ""
                print(f"\r\033[K[{'#' * full}{'.' * (30 - full)}] {self.done}/{self.steps} {minutes:.1f} min  {what[:60]}", end=end, file=sys.stderr, flush=True)
            else:
                print(f"[{self.done}/{self.steps}] {minutes:.1f} min  {what}", file=sys.stderr, flush=True)

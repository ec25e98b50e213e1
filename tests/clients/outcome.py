"""Counts checks, and waits for conditions that another thread brings about."""
import os
import sys
import threading
import time


class Outcome:
    """The checks so far. `changed` is held while a callback changes what conditions look at."""

    def __init__(self):
        self.passed = self.failed = 0
        self.changed = threading.Condition()

    def check(self, claim, holds, seen=''):
        """Notes whether a claim holds; `seen` is shown when it does not."""
        if holds:
            self.passed += 1
            print('ok    ' + claim, flush=True)
        else:
            self.failed += 1
            print('FAIL  %s: %s' % (claim, seen() if callable(seen) else seen), flush=True)
        return bool(holds)

    def check_soon(self, claim, condition, seen='', seconds=30):
        """Checks that a condition comes to hold."""
        end = time.monotonic() + seconds
        with self.changed:
            while not condition():
                left = end - time.monotonic()
                if left <= 0:
                    return self.check(claim, False, seen)
                self.changed.wait(min(left, 0.2))
        return self.check(claim, True)

    def note(self, change):
        """Makes a change that a condition may wait for."""
        with self.changed:
            change()
            self.changed.notify_all()

    def end(self):
        """Prints the sum and ends the process, whatever threads the client still has."""
        print('%d passed, %d failed' % (self.passed, self.failed), flush=True)
        sys.stdout.flush()
        os._exit(1 if self.failed else 0)

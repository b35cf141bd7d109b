# SPDX-License-Identifier: MIT
"""Runs a program's unittests and says in TAP what became of each, as the other tests do."""

import sys
import unittest


class Result(unittest.TextTestResult):
    """A line for each test."""

    def stopTest(self, test):
        bad = [case.id() for case, _ in self.failures + self.errors]
        good = not any(name.startswith(test.id()) for name in bad)
        why = [reason for case, reason in self.skipped if case is test]
        print("ok" if good else "not ok", self.testsRun, "-", test.id(), *(f"# SKIP {reason}" for reason in why), flush=True)
        super().stopTest(test)


def main():
    # Without the dots of unittest's own, which would fall into these lines.
    ended = unittest.main(testRunner=unittest.TextTestRunner(resultclass=Result, verbosity=0), exit=False).result
    print(f"1..{ended.testsRun}")
    sys.exit(not ended.wasSuccessful())

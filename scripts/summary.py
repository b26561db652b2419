"""Counts what a run of all tests printed: summary.py FOLDER, with one ctest log per build and the fuzzers' output.

A skipped case is a failure where the further test data lies beside the checkout: nothing may be left out then. A
program that did not run because the machine lacks what it tests, a GPU say, counts as skipped and is no failure."""

import dataclasses
import pathlib
import re
import sys

SHARED = pathlib.Path(__file__).resolve().parent.parent.parent / "shared"


@dataclasses.dataclass
class Count:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    not_run: int = 0  # of the skipped ones

    def __add__(self, other):
        return Count(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped,
                     self.not_run + other.not_run)

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def last(pattern, output):
    """The numbers of the last match: a program may print its closing lines only once, its output may be copied."""
    found = re.findall(pattern, output, re.M)
    return [int(n) for n in (found[-1] if isinstance(found[-1], tuple) else found[-1:])] if found else None


def count_program(output, succeeded):
    """One test program: the cases that doctest or unittest counted, or one for the program as a whole."""
    if re.search(r"^not run: ", output, re.M):
        return Count(skipped=1, not_run=1)
    cases = last(r"^\[doctest\] test cases: +\d+ \| +(\d+) passed \| +(\d+) failed", output)
    ran = last(r"^Ran (\d+) tests? in", output)
    skipped = sum(last(r"^(\d+) cases skipped$" if cases else r"skipped=(\d+)", output) or [0])
    if cases:
        count = Count(cases[0] - skipped, cases[1], skipped)
    elif ran:
        failed = sum(int(n) for n in re.findall(r"(?:failures|errors)=(\d+)", output))
        count = Count(ran[0] - failed - skipped, failed, skipped)
    else:
        count = Count(1, 0) if succeeded else Count(0, 1)
    if not succeeded and count.failed == 0:  # it broke off
        count.failed = 1
    return count


def count_ctest_log(text):
    """{test: Count}"""
    counts = {}
    for part in re.split(r"^\d+/\d+ Testing: ", text, flags=re.M)[1:]:
        counts[part.split("\n", 1)[0]] = count_program(part, "\nTest Passed.\n" in part)
    return counts


def count_fuzz_log(text):
    outcomes = re.findall(r"^(\w+_fuzz): (nothing found|FAILED)", text, re.M)
    return {name: Count(int(outcome != "FAILED"), int(outcome == "FAILED")) for name, outcome in outcomes}


def self_test():
    doctest = "[doctest] test cases:  12 |  11 passed | 1 failed | 3 skipped\n"
    log = (f"1/3 Testing: a\nskipped: no data\n{doctest}1 cases skipped\nTest Failed.\n"
           "2/3 Testing: b\nRan 5 tests in 1 s\n\nOK (skipped=2)\n\nTest Passed.\n"
           "3/3 Testing: c\nSegmentation fault\nTest Failed.\n4/4 Testing: d\nnot run: no GPU\n")
    assert count_ctest_log(log) == {"a": Count(10, 1, 1), "b": Count(3, 0, 2), "c": Count(0, 1), "d": Count(0, 0, 1, 1)}
    fuzz_log = "a_fuzz: nothing found in 7 inputs\nb_fuzz: FAILED\n"
    assert count_fuzz_log(fuzz_log) == {"a_fuzz": Count(1), "b_fuzz": Count(0, 1)}


def main(folder):
    self_test()
    total = Count()
    for path in sorted(folder.glob("*.log")):
        text = path.read_text(errors="replace")
        for name, count in (count_fuzz_log if path.stem == "fuzz" else count_ctest_log)(text).items():
            print(f"{path.stem:<10} {name:<14} {count}")
            total += count
        for reason in dict.fromkeys(re.findall(r"^(?:skipped|not run): .*", text, re.M)):
            print(f"{path.stem:<10} {reason}")
    without_data = total.skipped - total.not_run
    if without_data and SHARED.exists():
        print(f"{without_data} skipped cases count as failed, as their data should be in {SHARED}")
        total = Count(total.passed, total.failed + without_data, total.not_run)
    print(total)
    return total.failed == 0 and total.passed > 0


if __name__ == "__main__":
    sys.exit(0 if main(pathlib.Path(sys.argv[1])) else 1)

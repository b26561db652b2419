"""Counts what a run of all tests printed: summary.py FOLDER, with one ctest log per build and the fuzzers' output.

A skipped case is a failure where the further test data lies beside the checkout: nothing may be left out then."""

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

    def __add__(self, other):
        return Count(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def count_program(output, succeeded):
    """One test program: the cases that doctest or unittest counted, or one for the program as a whole."""
    skipped = len(re.findall(r"^skipped: ", output, re.M))
    cases = re.search(r"^\[doctest\] test cases: +\d+ \| +(\d+) passed \| +(\d+) failed", output, re.M)
    ran = re.search(r"^Ran (\d+) tests? in", output, re.M)
    if cases:
        count = Count(int(cases[1]), int(cases[2]))
    elif ran:
        failed = sum(int(n) for n in re.findall(r"(?:failures|errors)=(\d+)", output))
        count = Count(int(ran[1]) - failed, failed)
    else:
        count = Count(1, 0) if succeeded else Count(0, 1)
    count.passed = max(count.passed - skipped, 0)
    count.skipped = skipped
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
    return {name: Count(outcome != "FAILED", outcome == "FAILED") for name, outcome in outcomes}


def self_test():
    doctest = "[doctest] test cases:  12 |  11 passed | 1 failed | 3 skipped\n"
    log = (f"1/3 Testing: a\nskipped: no data\n{doctest}\nTest Failed.\n"
           "2/3 Testing: b\nRan 5 tests in 1 s\n\nTest Passed.\n"
           "3/3 Testing: c\nSegmentation fault\nTest Failed.\n")
    assert count_ctest_log(log) == {"a": Count(10, 1, 1), "b": Count(5), "c": Count(0, 1)}
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
        for reason in re.findall(r"^skipped: .*", text, re.M):
            print(f"{path.stem:<10} {reason}")
    if total.skipped and SHARED.exists():
        print(f"the skipped cases count as failed, as their data should be in {SHARED}")
        total = Count(total.passed, total.failed + total.skipped)
    print(total)
    return total.failed == 0 and total.passed > 0


if __name__ == "__main__":
    sys.exit(0 if main(pathlib.Path(sys.argv[1])) else 1)

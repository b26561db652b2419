"""Runs the program on damaged copies of a model file. Half of them have one field of the header, or the end of the
file, set to a hostile value: these must be refused with a message, quickly and in little memory. Half have random bytes
changed: these may pass, but nothing may crash.

    mutate_test.py --hearth build/release/hearth --model tests/data/nano/nano.gguf"""

import argparse
import collections
import dataclasses
import os
import pathlib
import random
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent

SECONDS_MAX = 1.0
BYTES_MAX = 1 << 30
ADDRESS_SPACE_MAX = 8 << 30  # a reservation that large is a lie believed, even if its pages are never touched
HANG_SECONDS = 60
SANITIZER_EXIT = 99
TOKENS = "0 5 77 1000 3 3 41 2"

SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9


@dataclasses.dataclass
class Field:
    """An integer of the header: what it is, where it lies, its width in bytes, its value."""
    kind: str
    at: int
    width: int
    value: int


class Header:
    """Where everything lies in a well-formed GGUF file."""

    def __init__(self, data):
        self.data, self.at, self.fields = data, 0, []
        self.alignment = 32
        self.integer("magic", 4)
        self.integer("version", 4)
        tensors = self.integer("tensor count", 8)
        keys = self.integer("key count", 8)
        for _ in range(keys):
            self.pair()
        ends = [self.tensor() for _ in range(tensors)]
        self.bytes = self.at
        data_begin = -(-self.at // self.alignment) * self.alignment
        self.data_end = data_begin + max(ends)

    def integer(self, kind, width):
        value = int.from_bytes(self.data[self.at:self.at + width], "little")
        self.fields.append(Field(kind, self.at, width, value))
        self.at += width
        return value

    def text(self, kind):
        length = self.integer(kind, 8)
        self.at += length
        return self.data[self.at - length:self.at].decode()

    def pair(self):
        name = self.text("key length")
        type_id = self.integer("key type", 4)
        if name == "general.alignment":
            self.alignment = struct.unpack_from("<I", self.data, self.at)[0]
        self.value(type_id)

    def value(self, type_id):
        if type_id == STRING:
            self.text("string length")
        elif type_id == ARRAY:
            element = self.integer("element type", 4)
            count = self.integer("array count", 8)
            if element in SCALAR_BYTES:
                self.at += count * SCALAR_BYTES[element]
            else:
                for _ in range(count):
                    self.value(element)
        else:
            self.at += SCALAR_BYTES[type_id]

    def tensor(self):
        """The end of the tensor's data; F32 and I32 only, which is what the model of this test holds."""
        self.text("tensor name length")
        dims = self.integer("dimension count", 4)
        weights = 1
        for _ in range(dims):
            weights *= self.integer("dimension", 8)
        type_id = self.integer("tensor type", 4)
        assert type_id in (0, 26), "this test wants a model of four-byte weights"
        if 4 * weights <= self.alignment:  # it may become any smaller type: the padding hides the difference
            self.fields.pop()
        return self.integer("offset", 8) + 4 * weights


def means_the_same(field, value):
    """Values that make another file, but not a wrong one."""
    if field.kind == "version":
        return value == 2  # read alike
    if field.kind in ("key type", "element type"):
        # The same bytes as an integer of the other sign or as a float; a value is not the header's to judge.
        return value in SCALAR_BYTES and SCALAR_BYTES.get(field.value) == SCALAR_BYTES[value]
    if field.kind == "tensor type":
        return value in (0, 26)  # as many bytes
    return False


def hostile_values(field, rng):
    top = 1 << (8 * field.width)
    values = [0, 1, field.value - 1, field.value + 1, 2 * field.value, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1,
              rng.randrange(top), rng.randrange(64), field.value ^ (1 << rng.randrange(8 * field.width))]
    fitting = {value for value in values if 0 <= value < top and value != field.value}
    return sorted(value for value in fitting if not means_the_same(field, value))


@dataclasses.dataclass
class Mutation:
    name: str
    data: bytes
    must_fail: bool


def header_mutations(data, header, count, rng):
    """One field each, every kind as often as the others; strings of a vocabulary don't crowd out the rest."""
    kinds = collections.defaultdict(list)
    for field in header.fields:
        kinds[field.kind].append(field)
    for i in range(count):
        kind = list(kinds)[i % len(kinds)]
        field = rng.choice(kinds[kind])
        value = rng.choice(hostile_values(field, rng))
        changed = bytearray(data)
        changed[field.at:field.at + field.width] = value.to_bytes(field.width, "little")
        yield Mutation(f"{kind} at byte {field.at}: {value} instead of {field.value}", bytes(changed), True)


def end_mutations(data, header, count, rng):
    """Files that end early, in the header or in the data, or go on after the last tensor. Where the last tensor's
    padding is missing nothing is lost."""
    for i in range(count):
        end = (rng.randrange(header.bytes), rng.randrange(header.bytes, header.data_end), header.data_end - 1,
               len(data) + header.alignment * rng.randrange(1, 100))[i % 4]
        changed = data[:end] + bytes(max(end - len(data), 0))
        yield Mutation(f"{end} bytes instead of {len(data)}", changed, True)


def byte_mutations(data, header, count, rng):
    for i in range(count):
        where = header.bytes if i % 2 == 0 else len(data)
        places = [rng.randrange(where) for _ in range(rng.choice((1, 1, 4, 32)))]
        changed = bytearray(data)
        for place in places:
            changed[place] ^= 1 << rng.randrange(8) if rng.random() < 0.5 else rng.randrange(1, 256)
        yield Mutation(f"bytes {places[:4]} changed, {len(places)} in all", bytes(changed), False)


def mutations(data, count, seed):
    rng = random.Random(seed)
    header = Header(data)
    ends = count // 10
    fields = count // 2 - ends
    yield from header_mutations(data, header, fields, rng)
    yield from end_mutations(data, header, ends, rng)
    yield from byte_mutations(data, header, count - fields - ends, rng)


@dataclasses.dataclass
class Outcome:
    exit_code: int  # negative: the signal
    message: str
    seconds: float
    peak_bytes: int


class Program:
    def __init__(self, path, sanitized):
        self.path, self.sanitized = path, sanitized
        # A sanitizer's report would else end with exit code 1, as a refusal does.
        options = f"exitcode={SANITIZER_EXIT}:halt_on_error=1"
        self.environment = {**os.environ, "ASAN_OPTIONS": options, "UBSAN_OPTIONS": options, "LSAN_OPTIONS": options}

    def run(self, arguments):
        def limit():
            if not self.sanitized:
                resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_MAX, ADDRESS_SPACE_MAX))
            resource.setrlimit(resource.RLIMIT_CPU, (HANG_SECONDS, HANG_SECONDS))
        with tempfile.TemporaryFile() as errors:
            begin = time.monotonic()
            process = subprocess.Popen([self.path, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=errors, env=self.environment, preexec_fn=limit)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
            errors.seek(0)
            return Outcome(process.returncode, errors.read().decode(errors="replace"), seconds, usage.ru_maxrss * 1024)


def problem_of(outcome, must_fail, sanitized):
    """What is wrong with how the program ended; empty where nothing is."""
    if re.search(r"Sanitizer|runtime error:", outcome.message) or outcome.exit_code not in (0, 1):
        return f"exit code {outcome.exit_code}"
    if must_fail and outcome.exit_code == 0:
        return "was not refused"
    if outcome.exit_code == 1 and not re.search(r"^hearth: .{10}", outcome.message, re.M):
        return "refused without a message"
    if re.search(r"out of memory|bad_alloc|length_error|vector::", outcome.message):
        return "the file was believed until memory ran out"
    if sanitized:  # slow and large by nature
        return ""
    if outcome.peak_bytes > BYTES_MAX:
        return f"took {outcome.peak_bytes >> 20} MiB"
    if must_fail and outcome.seconds > SECONDS_MAX:
        return f"took {outcome.seconds:.1f} s"
    return ""


def check(program, mutation, folder):
    """The problems of one file with each command."""
    path = folder / "mutated.gguf"
    path.write_bytes(mutation.data)
    problems = []
    for command in (["inspect", str(path)],
                    ["logits", str(path), "--tokens", str(folder / "tokens.txt"), "--out", str(folder / "logits.f32")]):
        outcome = program.run(command)
        problem = problem_of(outcome, mutation.must_fail, program.sanitized)
        if problem.endswith(" s"):  # once more, for machines that had something else to do
            outcome = program.run(command)
            problem = problem_of(outcome, mutation.must_fail, program.sanitized)
        if problem:
            problems.append(f"{command[0]}: {mutation.name}: {problem}: {outcome.message.strip()[:500]}")
    return problems


def self_test(data):
    """The judge must be able to say no, and every kind of field must be found."""
    good = Outcome(1, "hearth: x.gguf: not a GGUF file", 0.1, 1 << 20)
    assert problem_of(good, True, False) == ""
    assert problem_of(dataclasses.replace(good, exit_code=0), False, False) == ""
    for change in ({"exit_code": 0}, {"exit_code": -11}, {"exit_code": 2}, {"message": ""}, {"seconds": 2.0},
                   {"message": "hearth: out of memory"}, {"peak_bytes": 2 << 30},
                   {"message": good.message + "\nx.cpp:1: runtime error: overflow"}):
        assert problem_of(dataclasses.replace(good, **change), True, False), change
    header = Header(data)
    kinds = {field.kind for field in header.fields}
    assert len(kinds) == 14, kinds
    assert header.bytes < header.data_end <= len(data) < header.data_end + header.alignment


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hearth", type=pathlib.Path, required=True, help="the program")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "tests/data/nano/nano.gguf")
    parser.add_argument("--count", type=int, default=300, help="files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sanitized", action="store_true",
                        help="the program has sanitizers: time and memory don't count")
    options = parser.parse_args()

    data = options.model.read_bytes()
    self_test(data)
    program = Program(options.hearth, options.sanitized)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "tokens.txt").write_text(TOKENS)
        problems = check(program, Mutation("the file as it is", data, False), folder)
        passed = program.run(["inspect", str(options.model)]).exit_code == 0
        if problems or not passed:
            sys.exit(f"the undamaged file fails\n" + "\n".join(problems))
        for mutation in mutations(data, options.count, options.seed):
            problems += check(program, mutation, folder)
    print("\n".join(problems))
    print(f"{options.count} damaged files, seed {options.seed}: {len(problems)} problems")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()

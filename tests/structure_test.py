"""Checks the shape of the tree: who includes whom, which symbols and compiler flags the kernels carry, and the house
rules for files. Run from anywhere; --build names a build folder, whose objects are then checked too.

Each rule is a plain function from text to problems, so that SelfTest can show every one of them failing."""

import argparse
import json
import pathlib
import re
import shlex
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A box is a folder. It includes its own headers, those of the boxes named here and what those may include.
USES = {
    "src/main.cpp": ["src/cli"],
    "src/cli": ["src/server", "src/engine"],
    "src/server": ["src/engine"],
    "src/engine": ["src/model", "src/text"],
    "src/model": ["offload", "cpu_kernels", "gpu_kernels", "src/device"],
    "src/text": ["src/format"],
    "offload": ["src/device", "src/format", "cpu_kernels", "gpu_kernels"],
    "src/device": ["src/base", "gpu_kernels"],
    "cpu_kernels": ["src/format"],  # the registry and the reference; the bodies have stricter rules below
    "gpu_kernels": ["src/base"],
    "gpu_kernels/bench": ["src/device"],
    "src/format": ["src/base"],
    "src/base": [],
}

# Where only a part of another box is meant.
ONLY_PART = {
    # How weights lie for the kernels, and the tables that probes are handed; not which kernels there are.
    ("offload", "cpu_kernels"): ("cpu_kernels/kernels.h",),
    # Which kernels there are and where they run is the device's business: the others have it from there.
    ("offload", "gpu_kernels"): ("gpu_kernels/gpu_kernels.h",),
    ("src/model", "gpu_kernels"): ("gpu_kernels/gpu_kernels.h",),
    ("gpu_kernels/bench", "gpu_kernels"): ("gpu_kernels/gpu_kernels.h",),
    ("gpu_kernels/bench", "src/device"): ("src/device/device.h",),
    # Any device will do: which one it is, the engine says.
    ("src/model", "src/device"): ("src/device/device.h",),
    ("src/device", "gpu_kernels"): ("gpu_kernels/gpu_kernels.h", "gpu_kernels/registry.h",
                                  "gpu_kernels/emulation/stream.h"),
    # The engine loads; what happens to the bytes then is the model's and the store's business.
    ("src/engine", "offload"): ("offload/machine/", "offload/plan/", "offload/store/weight_memory.h",
                              "offload/store/open_cache.h"),
}

# What files compiled with -m flags may reach: plain data, and headers whose functions are all intrinsics. xsimd comes
# in through isa.h, with the instruction set chosen.
# Each folder of theirs is compiled once for every instruction set named.
BODIES = "cpu_kernels/bodies/"
TILE_BODIES = "cpu_kernels/amx/"
BODY_ISAS = {BODIES: {"avx2", "avx512"}, TILE_BODIES: {"amx", "amx_emulated"}}
BODY_HEADERS = re.compile(
    r"src/base/(check|codebooks|softmax|tensor_type)\.h|cpu_kernels/kernels\.h|cpu_kernels/(bodies|amx)/\w+\.h")
# Instructions that one instruction set alone may have: its emulation must run without them.
OWN_FLAGS = {"amx": re.compile(r"-mamx")}
BODY_SYSTEM_HEADERS = {"cstdint", "immintrin.h"}
BODY_EXTRA_HEADERS = {"cpu_kernels/bodies/isa.h": {"xsimd/xsimd.hpp"}}

# What the GPU kernels reach, as nvcc and the host's compiler both read them: headers of their own, and plain data. Only
# what makes one source fit both, below, includes more.
GPU_HEADERS = re.compile(r"src/base/(check|codebooks|softmax|tensor_type)\.h|gpu_kernels/(?!emulation/|bench/).+\.h")
GPU_SYSTEM_HEADERS = {"cstddef", "cstdint"}
GPU_SEAM = {"gpu_kernels/common/simt.h", "gpu_kernels/common/simt_cuda.h", "gpu_kernels/registry.cpp"}
GPU_EMULATION = "gpu_kernels/emulation/"
GPU_BENCH = "gpu_kernels/bench/"  # a program that uses the table as others do

# A library has one home. (headers that start so, folders, folders of which one file only)
HOMES = [
    ("cuda", ["gpu_kernels/"], ["src/device/"]),
    ("cublas", [], [GPU_BENCH]),
    ("dlfcn", [], [GPU_BENCH]),
    ("boost/context", [GPU_EMULATION], []),
    ("liburing", [], ["offload/io/"]),
    ("hwloc", ["offload/machine/"], []),
    ("xsimd", [BODIES], []),
    ("omp.h", [], ["src/base/"]),
    ("pcre2", ["src/text/"], []),
    ("nlohmann", ["offload/machine/", "offload/plan/", "src/text/", "src/cli/", "src/server/", GPU_BENCH], []),
    ("CLI/", ["src/cli/", "src/main.cpp"], [GPU_BENCH]),
    ("spdlog", ["src/cli/", "src/main.cpp"], []),
    ("histedit", ["src/cli/"], []),
    ("editline", ["src/cli/"], []),
]

# Libraries neither print nor end the program nor read the environment; a failed check of our own code does.
LOUD = re.compile(
    r"(?<![\w.>])(printf|fprintf|puts|fputs|putchar|getenv|secure_getenv|exit|_exit|quick_exit|abort)\s*\("
    r"|\bstd::(cout|cerr|clog)\b|\bfmt::print\b")
LOUD_HOMES = ("src/cli/", "src/main.cpp", "src/base/check.cpp", "gpu_kernels/bench/main.cpp", "tests/")

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
LINE_CHARS_MAX = 120
# Longer ones, with their length today: it may only shrink. "path:function" or "path".
LONGER = {}

CODE_FOLDERS = ("src", "cmake", "offload", "cpu_kernels", "gpu_kernels", "tests", "scripts", ".ci")
CPP = {".h", ".cpp", ".cu", ".cuh"}
PLAIN_TEXT = CPP | {".py", ".txt", ".md", ".json", ".cmake", ""}


# ---- reading C++ roughly ----

TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"([^()\\\s]{0,16})\(.*?\)\1"|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])*'", re.S)


def without_comments(text, keep_strings=False):
    """The code with comments (and the insides of strings) gone and every line where it was."""
    def blank(match):
        token = match.group()
        if token[0] == "/":
            return "\n" * token.count("\n")
        return token if keep_strings else '""' + "\n" * token.count("\n")
    return TOKEN.sub(blank, text)


def includes(text):
    """[(line, name, whether in quotes)]"""
    pattern = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
    found = []
    for number, line in enumerate(without_comments(text, keep_strings=True).split("\n"), 1):
        match = pattern.match(line)
        if match:
            found.append((number, match.group(2), match.group(1) == '"'))
    return found


def without_groups(text):
    """The text without what stands in parentheses; one () is left where something stood."""
    depth, kept = 0, []
    for char in text:
        depth -= char == ")"
        if depth <= 0:
            kept.append(char)
        depth += char == "("
    return "".join(kept)


def head_kind(head):
    """What a brace opens, by the words before it: scope, function or something else (an initializer)."""
    head = re.sub(r"operator\s*(\(\s*\)|[^\s(\w]+)", "operator_", head)
    flat = without_groups(head)
    if "=" in flat:
        return "other"
    if "()" in flat:
        return "function"
    return "scope" if re.search(r"\b(namespace|class|struct|union|enum|extern)\b", flat) else "other"


def functions(text):
    """[(name, first line, lines)] of the functions that have a body; lambdas and blocks count with theirs."""
    code = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: "\n" * m.group().count("\n"), without_comments(text),
                  flags=re.M)
    found, open_kinds, head_begin = [], [], 0
    for match in re.finditer(r"[{};]|\b(?:public|private|protected)\s*:", code):
        if match.group() == "{":
            head = code[head_begin:match.start()]
            inside = "function" in [kind for kind, *_ in open_kinds]
            kind = "block" if inside else head_kind(head)
            first = code.count("\n", 0, match.start() - len(head.lstrip())) + 1
            named = re.search(r"(operator\s*\S+|[~\w:]+)\s*\(", re.sub(r"^\s*template\s*<.*?>", "", head, flags=re.S))
            open_kinds.append((kind, named.group(1) if named else "", first))
        elif match.group() == "}" and open_kinds:
            kind, name, first = open_kinds.pop()
            if kind == "function":
                found.append((name, first, code.count("\n", 0, match.start()) + 2 - first))
        head_begin = match.end()
    return found


# ---- rules: text in, problems out ----

def box_of(path):
    return next((box for box in sorted(USES, key=len, reverse=True) if path == box or path.startswith(box + "/")), None)


def reachable(box):
    found, waiting = set(), [box]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += USES[one]
    return found


def resolve(name, files):
    return next((path for path in ("src/" + name, name) if path in files), None)


def include_problems(files):
    problems = []
    for path, text in files.items():
        box = box_of(path)
        if box is None:
            continue
        for line, name, quoted in includes(text):
            if not quoted:
                continue
            target = resolve(name, files)
            if target is None:
                problems.append(f"{path}:{line}: {name} is found neither from src/ nor from the root")
                continue
            other = box_of(target)
            parts = ONLY_PART.get((box, other), ("",))
            if other not in reachable(box):
                problems.append(f"{path}:{line}: {box} may not include {target}")
            elif not target.startswith(parts):
                problems.append(
                    f"{path}:{line}: of {other}, {box} may include {' and '.join(parts)} only, not {target}")
    return problems


def body_problems(files):
    """What the files with -m flags reach, through headers too."""
    problems, seen = [], set()
    waiting = [path for path in files if path.startswith(tuple(BODY_ISAS))]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for line, name, quoted in includes(files[path]):
            target = resolve(name, files) if quoted else None
            if target is not None and BODY_HEADERS.fullmatch(target):
                waiting.append(target)
            elif quoted or name not in BODY_SYSTEM_HEADERS | BODY_EXTRA_HEADERS.get(path, set()):
                problems.append(f"{path}:{line}: {name} may hold inline functions, which a file compiled with -m flags "
                                "would share with the whole program")
    return problems


def gpu_body_problems(files):
    problems = []
    for path, text in files.items():
        if not path.startswith("gpu_kernels/") or path.startswith((GPU_EMULATION, GPU_BENCH)) or path in GPU_SEAM:
            continue
        for line, name, quoted in includes(text):
            target = resolve(name, files) if quoted else None
            if not (target is not None and GPU_HEADERS.fullmatch(target)) and name not in GPU_SYSTEM_HEADERS:
                problems.append(f"{path}:{line}: a GPU kernel may not include {name}")
    return problems


def library_problems(files):
    problems = []
    for start, folders, single in HOMES:
        users = [path for path, text in files.items() if not path.startswith("tests/")
                 and any(name.startswith(start) for _, name, _ in includes(text))]
        homeless = [path for path in users if not path.startswith(tuple(folders + single))]
        problems += [f"{path}: {start} belongs into {' or '.join(folders + single)}" for path in homeless]
        alone = [path for path in users if path not in homeless and not path.startswith(tuple(folders))]
        if len(alone) > 1:
            problems.append(f"{start} belongs into one file, not into {' and '.join(alone)}")
    return problems


def loud_problems(files):
    problems = []
    for path, text in files.items():
        if path.startswith(LOUD_HOMES):
            continue
        for number, line in enumerate(without_comments(text).split("\n"), 1):
            if LOUD.search(line):
                problems.append(f"{path}:{number}: a library may not print, exit or read the environment")
    return problems


# Words are written in two parts here, so that the rules can be applied to this file.
LINE_RULES = [
    (re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b"), "an unfinished spot"),
    (re.compile(r"\t"), "a tab"),
    (re.compile(r"[ \t]+$"), "a space at the end of the line"),
    (re.compile(r"(?<![\w.])/(work|root|home)/"), "a path of one machine"),
    (re.compile(r"using\s+namespace\s+st" r"d\b"), "a whole namespace drawn in"),
]


def line_problems(path, text):
    problems = []
    for number, line in enumerate(text.split("\n"), 1):
        problems += [f"{path}:{number}: {what}" for rule, what in LINE_RULES if rule.search(line)]
        if len(line) > LINE_CHARS_MAX and not path.endswith(".md"):
            problems.append(f"{path}:{number}: {len(line)} characters, at most {LINE_CHARS_MAX}")
    return problems


def header_problems(path, text):
    problems = []
    if not text.startswith("//"):
        problems.append(f"{path}: a header opens with a comment that says why it is there")
    if not re.search(r"^#pragma once$", text, re.M):
        problems.append(f"{path}: #pragma once is missing")
    return problems


def length_problems(path, text, longer):
    """`longer` holds the exceptions; one that is longer than needed is a problem too."""
    sizes = [(path, text.count("\n"), FILE_LINES_MAX)]
    if pathlib.PurePath(path).suffix in CPP:
        sizes += [(f"{path}:{name}", lines, FUNCTION_LINES_MAX) for name, _, lines in functions(text)]
    problems = []
    for what, lines, limit in sizes:
        allowed = longer.get(what, limit)
        if lines > allowed:
            problems.append(f"{what}: {lines} lines, at most {allowed}")
        elif what in longer and lines < allowed:
            problems.append(f"{what}: {lines} lines now; lower its exception to that, or remove it")
    return problems


def flag_problems(commands):
    """`commands`: [(path, [argument])] of the whole build. Every kernel body, and nothing else, carries -m flags; each
    is compiled for the instruction sets of its folder, for them all and no other."""
    problems, bodies = [], {}
    for path, arguments in commands:
        isa = next((a.removeprefix("-DHEARTH_ISA=") for a in arguments if a.startswith("-DHEARTH_ISA=")), None)
        machine_flags = [a for a in arguments if re.match(r"-m(?!essage)", a)]
        if path.startswith(tuple(BODY_ISAS)):
            bodies.setdefault(path, set()).add(isa)
            foreign = [a for a in machine_flags for owner, own in OWN_FLAGS.items() if own.match(a) and isa != owner]
            if foreign:
                problems.append(f"{path} is compiled for {isa} with {' '.join(foreign)}")
            if isa is None or not machine_flags:
                problems.append(f"{path} is compiled without an instruction set")
        elif machine_flags:
            problems.append(f"{path} is compiled with {' '.join(machine_flags)}")
    for path, isas in bodies.items():
        wanted = next(wanted for folder, wanted in BODY_ISAS.items() if path.startswith(folder))
        if isas != wanted:
            problems.append(f"{path} is compiled for {isas}, not for {wanted}")
    return problems


def symbol_problems(isa, symbols):
    """`symbols`: [(nm's letter, demangled name)] of the objects of one instruction set. A name that other objects may
    define as well lets the linker keep this copy for everyone; the instruction set in it makes it this one's own:
    our namespace, or the architecture argument of an xsimd template. DW.ref.* are pointers, not code."""
    own = re.compile(rf"\bhearth::{isa}::|\bxsimd::{isa}\w*\b")
    problems = []
    for kind, name in symbols:
        if name.startswith("_GLOBAL__sub_I"):
            problems.append(f"{name} runs at start, before the CPU was asked what it can do")
        elif kind in "WVuTDBRGC" and not own.search(name) and not name.startswith("DW.ref."):
            problems.append(f"{name} is shared with the rest of the program")
    return problems


# ---- the tree and the build folder ----

def tree():
    """{path from the root: text} of our own files; data, build folders and hidden folders left out."""
    files = {}
    for folder in CODE_FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and path.suffix in PLAIN_TEXT and not name.startswith("tests/data/"):
                files[name] = path.read_text(encoding="utf-8")
    for path in sorted(ROOT.glob("[!.]*.*")) + sorted(ROOT.glob("*/README.md")):
        if path.is_file() and path.suffix in PLAIN_TEXT:
            files[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
    return files


def undefined_symbols(path):
    listing = subprocess.run(["nm", "-u", path], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in listing.splitlines() if line.strip()}


def compile_commands(build):
    entries = json.loads((build / "compile_commands.json").read_text())
    commands = []
    for entry in entries:
        path = pathlib.Path(entry["directory"], entry["file"]).resolve()
        if path.is_relative_to(ROOT):
            commands.append((path.relative_to(ROOT).as_posix(), shlex.split(entry["command"])))
    return commands


def symbols_of(objects):
    output = subprocess.run(["nm", "-C", "--defined-only", *map(str, objects)], check=True, capture_output=True,
                            text=True).stdout
    return re.findall(r"^[0-9a-f]+ (\w) (.*)$", output, re.M)


class Structure(unittest.TestCase):
    build = None

    @classmethod
    def setUpClass(cls):
        cls.files = tree()
        cls.cpp = {path: text for path, text in cls.files.items() if pathlib.PurePath(path).suffix in CPP}

    def expect_none(self, problems):
        if problems:
            self.fail("\n" + "\n".join(problems))

    def test_includes_point_down(self):
        self.assertGreater(len(self.cpp), 50)
        self.expect_none(include_problems(self.cpp))

    def test_kernel_bodies_reach_plain_headers_only(self):
        self.expect_none(body_problems(self.cpp))

    def test_gpu_kernels_reach_plain_headers_only(self):
        self.assertTrue(any(path.endswith(".cu") for path in self.cpp))
        self.expect_none(gpu_body_problems(self.cpp))

    def test_libraries_stay_at_home(self):
        self.expect_none(library_problems(self.cpp))

    def test_libraries_are_silent(self):
        self.expect_none(loud_problems(self.cpp))

    def test_lines(self):
        self.expect_none([p for path, text in self.files.items() for p in line_problems(path, text)])

    def test_headers(self):
        headers = {path: text for path, text in self.cpp.items() if path.endswith((".h", ".cuh"))}
        self.expect_none([p for path, text in headers.items() for p in header_problems(path, text)])

    def test_lengths(self):
        code = {path: text for path, text in self.files.items() if not path.endswith((".md", ".json"))}
        self.expect_none([p for path, text in code.items() for p in length_problems(path, text, LONGER)])
        known = set(code) | {f"{path}:{name}" for path, text in self.cpp.items() for name, *_ in functions(text)}
        self.expect_none([f"{what}: an exception for nothing" for what in LONGER if what not in known])

    def test_only_kernel_bodies_carry_machine_flags(self):
        self.expect_none(flag_problems(self.commands()))

    def test_kernel_symbols_are_their_own(self):
        commands = self.commands()
        if any(a.startswith("-fsanitize") for path, arguments in commands for a in arguments):
            self.skipTest("sanitizers inline less and add symbols of their own")
        folders = sorted(self.build.glob("cpu_kernels/CMakeFiles/hearth_kernels_*.dir"))
        objects = {folder: sorted(folder.rglob("*.o")) for folder in folders}
        if not folders or not all(objects.values()):
            self.skipTest("the kernels are not built")
        for folder in folders:
            isa = folder.name.removeprefix("hearth_kernels_").removesuffix(".dir")
            symbols = symbols_of(objects[folder])
            self.assertTrue(any(f"hearth::{isa}::" in name for _, name in symbols))
            self.expect_none([f"{isa}: {p}" for p in symbol_problems(isa, symbols)])

    def test_host_code_calls_no_device_functions(self):
        """nvcc compiles such a call in a template without a word, to one that ends the program: exit. Device functions
        are inline, so that nothing else is left of them in the host's code."""
        self.commands()
        objects = sorted(self.build.glob("gpu_kernels/CMakeFiles/hearth_gpu_kernels.dir/**/*.cu.o"))
        if not objects:
            self.skipTest("the GPU kernels are not built")
        self.expect_none([f"{path.name} calls exit" for path in objects if "exit" in undefined_symbols(path)])

    def commands(self):
        if self.build is None or not (self.build / "compile_commands.json").exists():
            self.skipTest("no build folder with compile_commands.json (--build)")
        return compile_commands(self.build)


class SelfTest(unittest.TestCase):
    """Every rule finds what it is there for, and is content with the rest."""

    def test_reading(self):
        self.assertEqual(without_comments('a "x//y" // z\n/* b\n */ c'), 'a "" \n\n c')
        self.assertEqual(includes('// #include "no.h"\n#include "a/b.h"\n#include <c>'),
                         [(2, "a/b.h", True), (3, "c", False)])
        code = """namespace n {
struct S {
  S(int a = 1)
      : a_(a) {}
  bool operator==(const S& o) const { return true; }
};
const int kTable[] = {1, 2};
template <typename T>
void f(T x) {
  for (;;) {
    auto g = [&] { return 1; };
  }
}
}"""
        self.assertEqual(functions(code), [("S", 3, 2), ("operator==", 5, 1), ("f", 8, 6)])

    def test_include_direction(self):
        down = {"src/cli/a.cpp": '#include "base/b.h"', "src/base/b.h": ""}
        self.assertEqual(include_problems(down), [])
        headers = ["src/cli/a.h", "src/model/m.h", "src/text/t.h", "offload/store/s.h", "cpu_kernels/registry.h",
                   "gpu_kernels/registry.h"]
        for path, name in [("src/base/b.cpp", "cli/a.h"), ("src/text/t.cpp", "model/m.h"),
                           ("src/model/m.cpp", "text/t.h"), ("offload/store/s.cpp", "model/m.h"),
                           ("offload/store/s.cpp", "cpu_kernels/registry.h"),
                           ("src/model/m.cpp", "gpu_kernels/registry.h"),
                           ("src/engine/e.cpp", "offload/store/s.h"), ("src/cli/a.cpp", "no/such.h")]:
            files = dict.fromkeys(headers, "")
            self.assertEqual(len(include_problems({**files, path: f'#include "{name}"'})), 1, (path, name))

    def test_kernel_bodies(self):
        files = {"cpu_kernels/bodies/isa.h": "#include <xsimd/xsimd.hpp>\n#include <cstdint>\n"
                                             '#include "cpu_kernels/kernels.h"',
                 "cpu_kernels/kernels.h": '#include "base/tensor_type.h"',
                 "src/base/tensor_type.h": "#include <cstdint>", "src/base/workers.h": ""}
        self.assertEqual(body_problems(files), [])
        body = "cpu_kernels/bodies/norm.cpp"
        for path, name in [(body, "<algorithm>"), ("cpu_kernels/amx/a.cpp", "<vector>"),
                           (body, "<xsimd/xsimd.hpp>"), (body, '"base/workers.h"'),
                           ("src/base/tensor_type.h", "<vector>")]:
            self.assertEqual(len(body_problems({**files, path: "#include " + name})), 1, name)

    def test_gpu_kernel_bodies(self):
        files = {"gpu_kernels/common/simt.h": '#include "gpu_kernels/emulation/host.h"',
                 "gpu_kernels/emulation/host.h": "#include <functional>", "src/base/check.h": "",
                 "src/base/error.h": "",
                 "gpu_kernels/a/a.cu": '#include "gpu_kernels/common/simt.h"\n#include <cstdint>'}
        self.assertEqual(gpu_body_problems(files), [])
        for path, name in [("gpu_kernels/a/b.cu", "<vector>"), ("gpu_kernels/common/b.h", '"base/error.h"'),
                           ("gpu_kernels/a/b.cu", "<cuda_fp16.h>"),
                           ("gpu_kernels/a/b.cu", '"gpu_kernels/emulation/host.h"')]:
            self.assertEqual(len(gpu_body_problems({**files, path: "#include " + name})), 1, name)

    def test_libraries(self):
        home = {"offload/machine/m.cpp": "#include <hwloc.h>", "src/cli/c.cpp": "#include <CLI/A.hpp>"}
        self.assertEqual(library_problems(home), [])
        self.assertEqual(len(library_problems({"src/model/m.cpp": "#include <hwloc.h>"})), 1)
        two = {f"offload/io/{name}.cpp": "#include <liburing.h>" for name in "ab"}
        self.assertEqual(len(library_problems(two)), 1)
        quiet = {"src/cli/c.cpp": "exit(1);", "src/base/a.cpp": "on_exit(1); x.exit(2); // exit(3)"}
        self.assertEqual(loud_problems(quiet), [])
        for text in ["exit (1);", "std::cerr << 1;", 'fmt::print("a");', 'getenv("A")']:
            self.assertEqual(len(loud_problems({"src/base/a.cpp": text})), 1, text)

    def test_tidy(self):
        self.assertEqual(line_problems("a.cpp", "int a;  // todo lists, /rooted/, a/work/b\n"), [])
        for line in ["// TO" "DO", "\tint a;", "int a; ", "x" * 121, "// see /ho" "me/me", "using namespace st" "d;"]:
            self.assertEqual(len(line_problems("a.cpp", line)), 1, line)
        self.assertEqual(header_problems("a.h", "// Why.\n#pragma once\n"), [])
        self.assertEqual(len(header_problems("a.h", "#include <a>\n")), 2)

    def test_lengths(self):
        long_function = "void f() {\n" + "  g();\n" * 70 + "}\n"
        self.assertEqual(length_problems("a.cpp", "void f() {\n" + "  g();\n" * 68 + "}\n", {}), [])
        self.assertEqual(len(length_problems("a.cpp", long_function, {})), 1)
        self.assertEqual(length_problems("a.cpp", long_function, {"a.cpp:f": 72}), [])
        self.assertEqual(len(length_problems("a.cpp", long_function, {"a.cpp:f": 80})), 1)
        self.assertEqual(len(length_problems("a.py", "\n" * 601, {})), 1)

    def test_flags(self):
        def body(path, isa, *flags):
            return path, [*flags, f"-DHEARTH_ISA={isa}"]
        plain, tiles = "cpu_kernels/bodies/a.cpp", "cpu_kernels/amx/a.cpp"
        good = [body(plain, "avx2", "-mavx2"), body(plain, "avx512", "-mavx512f"), ("src/base/a.cpp", ["-O3"]),
                body(tiles, "amx", "-mamx-tile"), body(tiles, "amx_emulated", "-mavx512f")]
        self.assertEqual(flag_problems(good), [])
        for bad in [("src/base/b.cpp", ["-march=native"]), body(plain, "avx512"), body(plain, "sse", "-msse3"),
                    body(plain, "avx512", "-mamx-tile"), body(tiles, "amx_emulated", "-mamx-bf16"),
                    body(tiles, "avx512", "-mavx512f"), ("cpu_kernels/registry.cpp", ["-mamx-tile"])]:
            self.assertEqual(len(flag_problems(good + [bad])), 1, bad)
        for missing in [0, 3]:
            self.assertEqual(len(flag_problems(good[:missing] + good[missing + 1:])), 1, missing)

    def test_symbols(self):
        good = [("W", "void hearth::avx2::f<int>()"), ("t", "std::f()"), ("V", "DW.ref.__gxx_personality_v0"),
                ("W", "xsimd::exp(xsimd::batch<float, xsimd::fma3<xsimd::avx2> > const&)")]
        self.assertEqual(symbol_problems("avx2", good), [])
        for bad in [("W", "int std::max<int>(int const&, int const&)"), ("u", "hearth::row_bytes()::table"),
                    ("T", "hearth::f()"), ("W", "xsimd::exp(xsimd::batch<float, xsimd::avx512bw> const&)"),
                    ("t", "_GLOBAL__sub_I_a.cpp")]:
            self.assertEqual(len(symbol_problems("avx2", [bad])), 1, bad)


class Result(unittest.TextTestResult):
    """Skips are told apart in the output: scripts/test counts these lines."""

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        print(f"skipped: {test.id()}: {reason}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, help="a build folder")
    options, rest = parser.parse_known_args()
    Structure.build = options.build
    unittest.main(argv=[sys.argv[0], *rest], testRunner=unittest.TextTestRunner(resultclass=Result))

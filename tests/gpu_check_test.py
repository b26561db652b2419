"""Runs scripts/gpu_check on programs that only pretend: what they print, how they end, and which are missing."""

import fnmatch
import json
import pathlib
import re
import stat
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent

TABLES = ["peaks", "matmul", "experts", "attention", "steps", "tensor_cores"]
TESTS = [f"tests/{name}_tests" for name in ("gpu_kernels", "model_device", "device", "measure_gpu")]
KERNELS = """name=$2
[[ $1 == --only && $3 == --json ]] || exit 2
echo '{"device": "a GPU", "tables": {"'$name'": {"rows": [{"what": "copy", "us": 2.5}], "notes": ["a note"]}}}' >"$4"
"""
HEARTH = r"""case $1 in
  profile) [[ $* == *"--disk "* && -d ${@: -1} ]] && echo "a disk: 3 GB/s into the GPU's memory" >&2 ;;
  synth) [[ $* == *"--out "* ]] && touch "${@: -1}" ;;
  bench)
    # Sizes as the program takes them.
    [[ $* != *--gpu-budget* || $* =~ --gpu-budget\ [0-9]+GiB ]] || exit 2
    [[ -e $2 ]] && echo '{"prefill_tok_s": 100.0, "decode_tok_s": 20.5}'
    ;;
esac
"""
SANITIZER = 'while [[ $1 != */gpu_kernels_tests ]]; do shift; done; exec "$@"\n'


class GpuCheck(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.build = pathlib.Path(folder.name, "a build")
        self.out = pathlib.Path(folder.name, "out")
        self.scratch = pathlib.Path(folder.name, "scratch")
        self.scratch.mkdir()
        for test in TESTS:
            self.program(test, "echo 9 passed\n")
        self.program("gpu_kernels_bench", KERNELS)
        self.program("hearth", HEARTH)
        self.program("bin/compute-sanitizer", SANITIZER)

    def program(self, name, body):
        path = self.build / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/usr/bin/env bash\n" + body)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def check(self, *options):
        """(exit code, report.json, what it printed)"""
        environment = {"PATH": f"{self.build}/bin:/usr/bin:/bin", "TMPDIR": str(self.scratch)}
        ran = subprocess.run([ROOT / "scripts/gpu_check", "--build", self.build, "--out", self.out, *options],
                             env=environment, capture_output=True, text=True, timeout=60)
        self.assertEqual(list(self.scratch.iterdir()), [])
        report = self.out / "report.json"
        return ran.returncode, json.loads(report.read_text()) if report.exists() else None, ran.stdout + ran.stderr

    def test_all_is_well(self):
        code, report, printed = self.check()
        self.assertEqual((code, report["problems"], report["device"]), (0, [], "a GPU"), printed)
        self.assertEqual(list(report["kernels"]), TABLES)
        self.assertEqual(report["models"]["6GiB"]["decode_tok_s"], 20.5)
        self.assertEqual(list(report["models"]), ["24GiB", "6GiB", "4GiB", "cpu"])
        states = {step["name"]: step["state"] for step in report["steps"]}
        self.assertEqual(set(states.values()), {"ok"})
        self.assertIn("sanitizer_racecheck", states)
        text = (self.out / "report.md").read_text()
        for part in ["# a GPU\n\nNo problems.\n",
                     "## matmul\n\n| what | us |\n| --- | --- |\n| copy | 2.500 |\n\na note",
                     "| 6GiB | 100.0 | 20.5 |  |  |\n",
                     "## Notes of the profile\n\n- a disk: 3 GB/s into the GPU's memory\n"]:
            self.assertIn(part, text)
            self.assertIn(part, printed)

    def test_problems_are_named_and_stop_nothing(self):
        self.program("tests/gpu_kernels_tests", 'echo "case 7 is wrong"; exit 1\n')
        (self.build / "tests/model_device_tests").unlink()
        self.program("gpu_kernels_bench", '[[ $2 != experts ]] || exit 134\n[[ $2 != steps ]] || exit 0\n' + KERNELS)
        self.program("hearth", '[[ ${@: -1} != 4GiB ]] || { echo "no such option" >&2; exit 2; }\n' + HEARTH)
        code, report, printed = self.check()
        self.assertEqual(code, 1, printed)
        problems = dict(problem.split(": ", 1) for problem in report["problems"])
        self.assertEqual(problems["tests_gpu_kernels"], "failed with code 1")
        self.assertIn("missing: ", problems["tests_model_device"])
        self.assertEqual(problems["kernels_experts"], "failed with code 134")
        self.assertIn("kernels_steps.json holds no JSON", problems["kernels_steps"])
        self.assertEqual(problems["model_4GiB"], "failed with code 2")
        self.assertEqual(problems["sanitizer_memcheck"], "failed with code 1")
        self.assertEqual(len(problems), 7)
        self.assertEqual(list(report["kernels"]), ["peaks", "matmul", "attention", "tensor_cores"])
        self.assertEqual(list(report["models"]), ["24GiB", "6GiB", "cpu"])
        said = {step["name"]: step.get("said") for step in report["steps"]}
        self.assertEqual((said["tests_gpu_kernels"], said["model_4GiB"]), ("case 7 is wrong\n", "no such option\n"))

    def test_no_gpu_is_a_problem(self):
        for name in TESTS + ["gpu_kernels_bench"]:
            self.program(name, "echo not run: no driver; exit 77\n")
        code, report, _ = self.check()
        self.assertEqual(code, 1)
        self.assertIsNone(report["device"])
        self.assertIn("kernels_peaks: not run: no GPU", report["problems"])
        self.assertIn("# No GPU was measured", (self.out / "report.md").read_text())

    def test_a_step_that_hangs_is_stopped(self):
        self.program("tests/gpu_kernels_tests", "echo begun; exec sleep 50\n")
        code, report, _ = self.check("--seconds", "2")
        self.assertEqual(code, 1)
        self.assertRegex(report["steps"][0]["state"], r"^stopped after [23] s$")
        self.assertEqual(report["steps"][0]["said"], "begun\n")
        self.assertEqual(report["steps"][-1]["state"], "no time left")

    @unittest.skipIf(pathlib.Path("/usr/local/cuda/bin/compute-sanitizer").exists(), "this machine has one")
    def test_without_a_sanitizer_that_part_is_left_out(self):
        (self.build / "bin/compute-sanitizer").unlink()
        code, report, printed = self.check()
        self.assertEqual((code, report["problems"]), (0, []), printed)
        self.assertEqual(report["steps"][-1]["state"], "left out: there is no compute-sanitizer")

    def test_the_sanitizers_cases_exist(self):
        sources = "".join(path.read_text() for path in (ROOT / "tests/gpu_kernels").glob("*_test.cpp"))
        cases = re.findall(r'TEST_CASE\("([^"]+)"', sources)
        filters = re.findall(r"^  sanitize \w+ '([^']+)'", (ROOT / "scripts/gpu_check").read_text(), re.M)
        self.assertEqual(len(filters), 2)
        for pattern in ",".join(filters).split(","):
            self.assertTrue(fnmatch.filter(cases, pattern), pattern)

    def test_wrong_usage(self):
        for options in [("--out",), ("--fast", "1"), ("--seconds", "many"), ("--build", "/no/such/folder")]:
            code, report, printed = self.check(*options)
            self.assertEqual((code, report), (2, None), options)
            self.assertRegex(printed, "usage: |there is no /no/such/folder")


if __name__ == "__main__":
    unittest.main()

"""Joins what the steps of scripts/gpu_check left in a folder: gpu_report.py FOLDER writes report.json and report.md
there and prints the latter. Exit code 1 where a step failed or is missing."""

import json
import pathlib
import sys

FINE = ("ok", "left out")
SAID_CHARS_MAX = 2000  # of the end of what a failed step printed
MODEL_COLUMNS = ("prefill_tok_s", "decode_tok_s", "decode_gb_s", "expert_hit_rate")


def read_steps(folder):
    steps = []
    for line in (folder / "steps.tsv").read_text().splitlines():
        name, state, seconds = line.split("\t")
        steps.append({"name": name, "state": state, "seconds": int(seconds)})
        if not state.startswith(FINE):
            printed = [folder / f"{name}.{kind}" for kind in ("log", "err")]
            said = "".join(path.read_text(errors="replace") for path in printed if path.exists())
            steps[-1]["said"] = said[-SAID_CHARS_MAX:]
    return steps


def read_json(path, step):
    """What a step wrote; one that wrote no JSON did not do its work."""
    try:
        return json.loads(path.read_text(errors="replace"))
    except (OSError, ValueError) as error:
        if step["state"].startswith(FINE):
            step["state"] = f"failed: {path.name} holds no JSON: {error}"
        return None


def join(folder):
    steps = read_steps(folder)
    report = {"device": None, "problems": [], "steps": steps, "kernels": {}, "models": {}, "notes": []}
    for step in steps:
        kind, _, name = step["name"].partition("_")
        if kind == "kernels":
            part = read_json(folder / f"{step['name']}.json", step) or {}
            report["device"] = report["device"] or part.get("device")
            report["kernels"].update(part.get("tables", {}))
        elif kind == "model":
            part = read_json(folder / f"{step['name']}.log", step)
            if part is not None:
                report["models"][name] = part
        elif kind == "profile":
            said = folder / "profile.err"
            report["notes"] = said.read_text(errors="replace").splitlines() if said.exists() else []
    report["problems"] = [f"{step['name']}: {step['state']}" for step in steps if not step["state"].startswith(FINE)]
    return report


def cell(value):
    if isinstance(value, float):
        return f"{value:.{3 if abs(value) < 10 else 1}f}"
    return "" if value is None else str(value)


def table(rows):
    """Markdown of [{column: value}]: every column that a row has, in the order of their coming."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns)] + [[cell(row.get(column)) for column in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_markdown(report):
    text = f"# {report['device'] or 'No GPU was measured'}\n\n"
    text += "".join(f"- {problem}\n" for problem in report["problems"]) or "No problems.\n"
    for name, part in report["kernels"].items():
        text += f"\n## {name}\n\n{table(part['rows'])}" + "".join(f"\n{note}\n" for note in part["notes"])
    if report["models"]:
        rows = [{"GPU budget": budget} | {column: part.get(column) for column in MODEL_COLUMNS}
                for budget, part in report["models"].items()]
        text += f"\n## Models\n\n{table(rows)}"
    if report["notes"]:
        text += "\n## Notes of the profile\n\n" + "".join(f"- {note}\n" for note in report["notes"])
    steps = [{column: step[column] for column in ("name", "state", "seconds")} for step in report["steps"]]
    return text + f"\n## Steps\n\n{table(steps)}"


def main(folder):
    report = join(folder)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / "report.md").write_text(as_markdown(report))
    print(as_markdown(report), end="")
    return not report["problems"]


if __name__ == "__main__":
    sys.exit(0 if main(pathlib.Path(sys.argv[1])) else 1)

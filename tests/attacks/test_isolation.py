"""No isolation between what is evaluated and what evaluates.

Wang, Mang, Cheung, Sen and Song (UC Berkeley RDI), "How We Broke Top AI Agent Benchmarks: And What Comes Next", April 2026:
a `conftest.py` of the submitter turned every test of SWE-bench into a pass, a wrapped `curl` those of Terminal-Bench.

The exploit brings code wherever a runner or a loader could pick it up, in a change that the workflow's own step checks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from proposals import NGRAM, ROOT, copy_row, make_base, merge_change

from benchmark.review.pull_request import check_pull_request
from benchmark.submit.command import main

PROPOSED_FOLDER = "2026-11-26_mine"
PAYLOAD = "import pathlib\npathlib.Path({!r}).write_text('ran')\n"
FILES_WITH_CODE = [
    "conftest.py", "sitecustomize.py", "usercustomize.py", "benchmark/__init__.py", "benchmark/submit/verify.py", "numpy.py",
    f"submissions/{PROPOSED_FOLDER}/conftest.py", f"submissions/{PROPOSED_FOLDER}/modeling_evil.py", f"submissions/{PROPOSED_FOLDER}/evil.pth", "setup.py",
]  # fmt: skip


def test_code_in_a_change_never_runs(tmp_path):
    ran = tmp_path / "ran"

    def bring_code(submissions: Path) -> None:
        copy_row(NGRAM, submissions / PROPOSED_FOLDER)
        for place in FILES_WITH_CODE:
            path = submissions.parent / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(PAYLOAD.format(str(ran)))
        (submissions / PROPOSED_FOLDER / "config.json").write_text(
            json.dumps({"model_type": "x", "auto_map": {"AutoModelForCausalLM": "modeling_evil.Model"}})
        )

    merge_change(make_base(tmp_path / "change"), bring_code)
    (tmp_path / "base").mkdir()
    for name in ("benchmark", "karel_env", "baselines", "submissions"):
        (tmp_path / "base" / name).symlink_to(ROOT / name)
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "submission.yml").read_text())
    (step,) = [line for line in workflow["jobs"]["verify"]["steps"] if line.get("name") == "Verify"]
    result = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]], cwd=tmp_path / step["working-directory"],
        env={"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path), "ASSOCIATION": "NONE"},
        capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert result.returncode == 3, result.stderr
    assert not ran.exists()
    report = (tmp_path / "report.txt").read_text()
    assert "'conftest.py': outside of submissions/NAME/" in report
    assert f"{PROPOSED_FOLDER}: refused" in report
    assert json.loads((tmp_path / "summary.json").read_text())["exit_code"] == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", {"model_type": "x", "auto_map": {"AutoModel": "evil--repo.Model"}}),
     ("config.json", {"model_type": "x", "_attn_implementation": "evil/kernel"}),
     ("tokenizer_config.json", {"a": [{"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}]}),
     ("generation_config.json", {"trust_remote_code": True})],
)  # fmt: skip
def test_a_configuration_cannot_ask_for_code(tmp_path, capsys, name, content):
    folder = copy_row(NGRAM, tmp_path / PROPOSED_FOLDER)
    (folder / name).write_text(json.dumps(content))
    assert main(["verify", str(folder), "--incoming"]) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_settings_of_the_checkout_run_nothing(tmp_path):
    """Attributes, hooks and drivers that git would follow in other commands."""
    ran = tmp_path / "ran"
    folder = merge_change(
        make_base(tmp_path / "change"),
        lambda s: (
            copy_row(NGRAM, s / PROPOSED_FOLDER),
            (s / PROPOSED_FOLDER / ".gitattributes").write_text("* diff=evil filter=evil"),
        ),
    )
    with (folder / ".git" / "config").open("a") as file:
        file.write(
            f'[core]\n\tfsmonitor = touch {ran}\n[diff "evil"]\n\tcommand = touch {ran}\n\ttextconv = touch {ran}\n'
        )
    for hook in ("post-index-change", "reference-transaction"):
        (folder / ".git" / "hooks").mkdir(exist_ok=True)
        (folder / ".git" / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (folder / ".git" / "hooks" / hook).chmod(0o755)
    report = check_pull_request(folder)
    assert report.exit_code == 3
    assert "'.gitattributes': no file of a submission" in report.text()
    assert not ran.exists()

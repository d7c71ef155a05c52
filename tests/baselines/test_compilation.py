"""Training with compiled blocks: the same losses, and an error that names the option where nothing can be compiled."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from tiny_tuner import open_tuner, save_tiny_llama
from torch._dynamo.exc import BackendCompilerFailed

from baselines.compilation import report_compilation
from benchmark.errors import UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("task", ["write", "execute"])
def test_compiled_blocks_have_the_same_losses(folder, tmp_path, task):
    """Half a minute to a minute of compiling."""
    plain, compiled = (
        open_tuner(folder, tmp_path, task=task, learning_rate=0.02, compile=is_compiled)
        for is_compiled in (False, True)
    )
    for _ in range(3):
        assert compiled.train_step() == pytest.approx(plain.train_step(), rel=1e-4)


def test_what_cannot_be_compiled_is_reported():
    reason = "No working C++ compiler found in (None, '/no/compiler')"
    with (
        pytest.raises(UsageError, match=r"could not compile the model \(RuntimeError: No") as raised,
        report_compilation(),
    ):
        raise BackendCompilerFailed(torch.compile, RuntimeError(f"{reason}\n\nSet TORCHDYNAMO_VERBOSE=1"), None)
    assert "install g++ or name one in the environment variable CXX, or leave --compile out" in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(RuntimeError, match="another"), report_compilation():
        raise RuntimeError("another")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["tune", "train", "speed"])
def test_without_a_compiler_the_option_is_named(folder, tmp_path, command):
    words = {
        "tune": f"--model path:{folder} --task write --steps 1 --batch 1 --output-dir {tmp_path / 'out'}",
        "train": f"gpt-small-laptop --set optimizer.tasks=256 --output-dir {tmp_path / 'out'}",
        "speed": "gpt-small-laptop --steps 1",
    }[command]
    environment = os.environ | {"CXX": "/no/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    ended = subprocess.run(
        [sys.executable, "-m", f"baselines.{command}", *words.split(), "--compile"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    last_line = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode == 2, ended.stderr
    assert last_line.startswith("error: --compile: torch could not compile the model (InvalidCxxCompiler: No working")

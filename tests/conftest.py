"""How the suite is spread over workers, and what many of its files share: tiny models, a small protocol, whole runs.

Nothing heavy is imported here, since the process that only hands tests out to workers reads this file too.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from patient_ray import ENVIRONMENT, wait_for_workers
from session_folder import session_folder
from xdist.scheduler import LoadScopeScheduling

for _library in ("OMP", "MKL", "OPENBLAS"):
    # One thread a worker, or the workers of a session slow each other down. Before torch and numpy are imported.
    os.environ[f"{_library}_NUM_THREADS"] = "1"
# Nodes of Ray that tests start inherit them.
os.environ.update(ENVIRONMENT)
# Workers, and processes that tests start, share compiled modules, as they share the compiled functions of `karel_env`.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What is imported stays: looking for garbage among the libraries took a tenth of the time of an import.
gc.disable()

LONGEST_FIRST = (
    "test_cluster", "test_submit", "test_browser", "test_doctor", "test_steering", "test_architectures",
    "test_resume", "test_known_answers", "test_grids", "test_command_faults", "test_light_commands", "test_fewshot",
    "test_leaderboard", "test_measurement_stage", "test_ladder", "test_public", "test_rotation_calibration",
    "test_legacy", "test_soundness", "test_model_formats", "test_incoming", "test_uses_detail_files",
    "test_figures", "test_docs_site", "test_symbolic", "test_add_measurement", "test_relative", "test_train",
    "test_emergence", "test_preview_calibration", "test_layout", "test_workflow", "test_device_map", "test_content",
    "test_light_start", "test_shipped_answers", "test_suites", "test_uses_files", "test_loading_faults",
    "test_probing_speed", "test_ahead", "test_use", "test_interpreter", "test_dialects", "test_full_grid",
    "test_command", "test_hub", "test_audit", "test_run", "test_uses_detail_stage", "test_execution",
    "test_planners", "test_artifact_sources", "test_models_in_memory", "test_light_proposals", "test_das",
    "test_probing", "test_screen", "test_trained_planners", "test_notebook_browser",
)  # fmt: skip
"""Files that take long are handed out first, so that no worker is left alone with one at the end."""


# A shell starts a background job with interrupts ignored, and processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker per processor that this process may use, in containers too, and one for the group `ray`, which waits."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return processors + 1


GROUPS = {
    "test_cluster": "ray", "test_infrastructure": "ray", "test_failures": "ray",
    "test_browser": "page", "test_page": "page", "test_player": "page", "test_site": "page", "test_site_browser": "page", "test_light_page_browser": "page",
    "test_submit": "rows", "test_hostile": "rows", "test_light_rows": "rows", "test_guards": "rows", "test_forgeries": "rows", "test_evidence_forgery": "rows",
    "test_leaderboard": "board", "test_markup": "board", "test_ranking": "board", "test_board_cache": "board",
    "test_known_answers": "pair", "test_trained_pair": "pair",
}  # fmt: skip
"""Files that share a costly fixture or a resource of the machine; any other file is a group of its own."""


class GroupScheduling(LoadScopeScheduling):
    """A group's tests run in one worker. By name of the file: `--dist loadgroup` of xdist 3.8 does nothing on pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return GROUPS.get(Path(file).stem, file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """Replaces the scheduler of `--dist`."""
    return GroupScheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker which file is locked while the functions of `karel_env` are compiled."""
    node.workerinput["compiling"] = _start_compiler(node.config)


def _start_compiler(config: pytest.Config) -> str:
    """Compile in one process, while the workers collect, what each worker would compile for 20 s before its first test.

    The process keeps a lock on the file until it ends; '' if all is compiled already.
    """
    known: str | None = getattr(config, "_compiling", None)
    if known is not None:
        return known
    config._compiling = ""  # type: ignore[attr-defined]
    root = Path(__file__).parents[1]
    if not any((root / "karel_env" / "execution" / "__pycache__").glob("machine._run_lanes-*.nbi")):
        lock, config._compiling = tempfile.mkstemp(prefix="karel-compiling-")  # type: ignore[attr-defined]
        fcntl.flock(lock, fcntl.LOCK_EX)
        config._compiler = subprocess.Popen(  # type: ignore[attr-defined]
            [sys.executable, str(root / "tests" / "helpers" / "compile_kernels.py")], pass_fds=[lock],
            env=os.environ | {"PYTHONPATH": str(root)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(lock)
    return config._compiling  # type: ignore[attr-defined,no-any-return]


def pytest_unconfigure(config: pytest.Config) -> None:
    """The compiler's process ends with the session."""
    compiler = getattr(config, "_compiler", None)
    if compiler is not None:
        compiler.kill()
        compiler.wait()
        Path(config._compiling).unlink()  # type: ignore[attr-defined]


def pytest_configure(config: pytest.Config) -> None:
    """Each worker begins to collect at another folder, so that it finds compiled by the others what comes later."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and config.args == config.getini("testpaths"):
        folder = Path(__file__).parent
        paths = sorted({path.parent for path in folder.glob("*/test_*.py")}) + sorted(folder.glob("test_*.py"))
        first = len(paths) * int(worker.removeprefix("gw")) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        config.args[:] = [str(path) for path in paths[first:] + paths[:first]]


def pytest_collection_finish(session: pytest.Session) -> None:
    """What collecting left is no garbage; and a worker that needs a function waits while it is compiled elsewhere."""
    gc.freeze()
    gc.enable()
    compiling = getattr(session.config, "workerinput", {}).get("compiling")
    if compiling:
        from compile_kernels import wait_for

        wait_for(Path(compiling))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first; in every worker the others follow in the same order."""
    order = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: (order.get(item.path.stem, len(order)), item.path))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """An untrained two-layer Llama with the word-level tokenizer, as save_pretrained writes it."""

    def make(folder: Path) -> None:
        save_llama(folder / "tiny", hidden_size=32, intermediate_size=64)

    return session_folder(tmp_path_factory, "tiny-model", make) / "tiny"


@pytest.fixture(scope="session")
def wide_folder(tmp_path_factory) -> Path:
    """One whose forward pass takes some 60 MB a prompt."""

    def make(folder: Path) -> None:
        save_llama(folder / "wide", hidden_size=16, intermediate_size=75_000)

    return session_folder(tmp_path_factory, "wide-model", make) / "wide"


def save_llama(folder: Path, **sizes: int) -> Path:
    """An untrained Llama of these sizes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from baselines.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=192,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **sizes,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_pair():
    """A trained pair for worlds of 3x3 cells and six actions; 18 s, for slow tests of the group `pair`."""
    from small_pair import PAIR_SUITE

    from benchmark.calibrate.trained_pair import train_pair

    return train_pair(PAIR_SUITE, seed=0, steps=400)


@pytest.fixture(scope="session")
def brief_pair():
    """The same after a few steps, for what does not depend on what was learned."""
    from small_pair import PAIR_SUITE

    from benchmark.calibrate.trained_pair import train_pair

    return train_pair(PAIR_SUITE, seed=0, steps=10)


@pytest.fixture(scope="module")
def few_simulated_cases():
    """Calibrations simulate few cases of tied controls: their coverage has a test of its own."""
    from benchmark.calibrate import rotation_calibration

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rotation_calibration, "SIMULATED_CASES", 20)
        yield


@pytest.fixture
def quick(monkeypatch):
    """Runs of this process take less than a second, see `make_runs_quick`."""
    from quick_protocol import make_runs_quick

    make_runs_quick(monkeypatch.setattr)


@pytest.fixture
def words(tiny_folder) -> list[str]:
    """Options of a run of the tiny model on the test suite of 8 tasks."""
    from quick_protocol import SMALL_SUITE

    return ["--model", f"path:{tiny_folder}", "--suite", SMALL_SUITE]


@pytest.fixture(scope="session")
def undisturbed(tiny_folder, tmp_path_factory) -> Path:
    """That run, in one process and without any failure; read only."""
    from quick_protocol import SMALL_SUITE

    return finished_run(tmp_path_factory, "undisturbed", tiny_folder, SMALL_SUITE)


@pytest.fixture(scope="session")
def smoke_run(tiny_folder, tmp_path_factory) -> Path:
    """A run of the tiny model on the shipped suite `smoke`, for what looks a suite up by its name; read only."""
    return finished_run(tmp_path_factory, "smoke-run", tiny_folder, "smoke")


@pytest.fixture
def recorded_progress(monkeypatch) -> Any:
    """What takes the place of the progress display of commands, and keeps its stages."""
    from silent_progress import Recorded

    import benchmark.cli.progress

    progress = Recorded()
    monkeypatch.setattr(benchmark.cli.progress, "open_progress", lambda console: progress)
    return progress


def finished_run(factory: pytest.TempPathFactory, name: str, model: Path, suite: str) -> Path:
    """The folder of a run that one process of the session makes."""
    from quick_protocol import make_runs_quick
    from whole_runs import call, only

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            make_runs_quick(patch.setattr)
            assert call("--model", f"path:{model}", "--suite", suite, "--out", folder) == 0

    return only(session_folder(factory, name, make))


@pytest.fixture(scope="session", autouse=True)
def ray_in_tests():
    """Clusters demand a token that is in no file, as those that runs start do; nothing but errors in the output.

    Tests of Ray import it, before any test runs; no other session needs a token.
    """
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        if "ray" in sys.modules:
            from benchmark.cluster.ray_executor import private_auth_token

            stack.enter_context(private_auth_token())
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "error")
        yield


@pytest.fixture(scope="session")
def session_ray():
    """See `SharedRay`; only for tests of the group `ray`, which run in one process."""
    from shared_ray import SharedRay

    shared = SharedRay()
    yield shared
    shared.stop()


@pytest.fixture
def patient_pool(monkeypatch):
    """Runs on Ray wait for their workers, however busy the machine is."""
    wait_for_workers(monkeypatch.setattr)


@pytest.fixture
def shared_workers(session_ray, patient_pool, monkeypatch):
    """Runs with `--workers` use the session's."""
    session_ray.take_over(monkeypatch.setattr)


@pytest.fixture
def own_ray(session_ray, patient_pool):
    """Runs start Ray themselves, or join a cluster of the test's; one process has one Ray at a time."""
    session_ray.stop()

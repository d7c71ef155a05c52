"""Models that are spread over devices give the bytes of models that are not; here main memory and the disk, without a GPU."""

from __future__ import annotations

import json
from unittest.mock import Mock

import pytest
import torch
from families import cases, family_params, save
from quick_protocol import SMALL_SUITE
from whole_runs import call, only, same

import benchmark
from benchmark.errors import ModelError, UsageError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.devices import placement
from benchmark.models.devices.device_map import DeviceMap
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import LoadOptions, ModelSpec
from benchmark.models.steering import open_steerable
from benchmark.models.steering.hooks import PassHooks

PREFIXES = ["move(); turn_left(); move();", "turn_right(); put_marker(); move();"]


def spread(model: HuggingFaceModel) -> DeviceMap:
    """A map with every other block on the disk, and the rest in main memory."""
    names = {id(module): name for name, module in model.model.named_modules()}
    blocks = [names[id(block)] for block in model.blocks]
    parent = blocks[0].rpartition(".")[0]
    entries = {name: ("disk", "cpu")[index % 2] for index, name in enumerate(blocks)}
    for name, _ in model.model.named_modules():
        is_outside = not parent.startswith(name) and not name.startswith(f"{parent}.")
        if name and is_outside and not any(name.startswith(f"{other}.") for other in entries):
            entries[name] = "cpu"
    return DeviceMap.from_mapping(entries)


def opened(folder, device_map: DeviceMap | None = None, **options) -> HuggingFaceModel:
    return HuggingFaceModel(open_checkpoint(ModelSpec("path", str(folder)), device_map=device_map), **options)


@pytest.fixture(
    scope="module", params=family_params(("gpt2", "llama", "mamba", "gpt-neox", "opt-projected"), ("gpt2", "mamba"))
)
def pair(request, tmp_path_factory) -> tuple[HuggingFaceModel, HuggingFaceModel]:
    """A model on one device, and the same with blocks on the disk."""
    folder = save(request.param, tmp_path_factory.mktemp(request.param))
    model = opened(folder)
    return model, opened(folder, spread(model))


def test_blocks_on_the_disk_are_not_in_memory(pair):
    _, on_disk = pair
    assert all(weight.device.type == "meta" for weight in on_disk.blocks[0].parameters())
    assert all(weight.device.type == "cpu" for weight in on_disk.blocks[1].parameters())


def test_answers_states_and_likelihoods_are_the_same(pair):
    prompts, programs = cases()
    model, on_disk = pair
    assert on_disk.generate(prompts, 2) == model.generate(prompts, 2)
    expected, states = (m.hidden_states(prompts, programs) for m in pair)
    assert states.values.tobytes() == expected.values.tobytes()
    assert on_disk.log_likelihoods(prompts, programs) == model.log_likelihoods(prompts, programs)


def test_steered_passes_are_the_same_and_leave_the_blocks_as_they_were(pair):
    prompts = cases()[0][:2]
    steerable = [open_steerable(model) for model in pair]
    prepared = [each.prepare(prompts, PREFIXES) for each in steerable]
    for position in ("prefix", "prompt"):
        expected, states = (p.states(position) for p in prepared)
        assert [s.tobytes() for s in states] == [s.tobytes() for s in expected]
    for site in range(len(steerable[0].sites)):
        values = prepared[0].states("prefix")[site][::-1].copy()
        # Twice: the second edit of a site does not run the blocks before it.
        for _ in range(2):
            expected, scores = (p.score(site, values) for p in prepared)
            assert scores.log_probs.tobytes() == expected.log_probs.tobytes()
    assert all(hasattr(block, "_hf_hook") and "forward" in vars(block) for block in pair[1].blocks)


def test_untrained_copies_are_the_same(tiny_folder):
    prompts, programs = cases()
    model = opened(tiny_folder, random_seed=3)
    copies = [opened(tiny_folder, device_map, random_seed=3) for device_map in (spread(model), DeviceMap())]
    expected = model.hidden_states(prompts, programs).values.tobytes()
    assert [copy.hidden_states(prompts, programs).values.tobytes() for copy in copies] == [expected] * 2


def test_a_run_gives_the_same_files_in_the_same_folder(tiny_folder, quick, undisturbed, tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps(dict(spread(opened(tiny_folder)).entries)))
    words = (
        "--model",
        f"path:{tiny_folder}",
        "--suite",
        SMALL_SUITE,
        "--output-dir",
        tmp_path / "runs",
        "--device-map",
        path,
    )
    assert call(*words) == 0
    spread_run = only(tmp_path / "runs")
    assert spread_run.name == undisturbed.name
    same(spread_run, undisturbed)


def test_an_edit_goes_to_the_device_of_its_block():
    hidden = torch.zeros(2, 3, 4, dtype=torch.float64)
    values = Mock(wraps=torch.ones(2, 4))
    edited = PassHooks(0, site=1, values=values).apply(1, hidden)
    ((target,),) = [call.args for call in values.to.call_args_list]
    assert (target.device, target.dtype) == (hidden.device, hidden.dtype)  # those of the block
    assert edited.tolist() == [[[0.0] * 4, [0.0] * 4, [1.0] * 4]] * 2


def test_the_api_takes_a_mapping(tiny_folder):
    entries = dict(spread(opened(tiny_folder)).entries)
    model = benchmark.load_model(tiny_folder, device="cpu", device_map=entries)
    prompts, _ = cases()
    assert model.generate(prompts, 2) == benchmark.load_model(tiny_folder, device="cpu").generate(prompts, 2)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "expected a JSON object"),
        ({"model": "gpu"}, "'model' on 'gpu'"),
        ({"model": -1}, "'model' on -1"),
        ({"model": True}, "'model' on True"),
        ({"": "cpu", "lm_head": "disk"}, "'lm_head' is a part of ''"),
        ({"model": "cpu", "model.norm": "disk"}, "'model.norm' is a part of 'model'"),
    ],
)
def test_entries_that_name_no_device_are_refused(entries, message):
    with pytest.raises(UsageError, match=message):
        DeviceMap.from_mapping(entries)


def test_a_map_must_fit_the_device_and_the_machine():
    on_gpus = DeviceMap.from_mapping({"model": 0, "lm_head": 3})
    with pytest.raises(UsageError, match=r"names GPU 0, and --device is cpu"):
        on_gpus.check_device("cpu")
    with pytest.raises(UsageError, match="names no GPU"):
        DeviceMap.from_mapping({"": "disk"}).check_device("cuda")
    with pytest.raises(UsageError, match="give --device cuda"):
        on_gpus.check_device("cuda:1")
    with pytest.raises(UsageError, match="names GPU 3; there are 2 here"):
        on_gpus.check_gpus(2)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"model.blocks": "disk"}, "has no module 'model.blocks'; its base 'model' has embed_tokens, layers, norm"),
        ({"model.layers.0.mlp": "disk"}, "is a part of block model.layers.0"),
        ({"model": "disk"}, "no entry for lm_head.weight"),
    ],
)
def test_maps_of_another_network_are_refused(tiny_folder, entries, message):
    with pytest.raises(UsageError, match=message):
        opened(tiny_folder, DeviceMap.from_mapping(entries))


def test_auto_does_not_put_weights_on_the_disk_by_itself(tiny_folder, monkeypatch):
    monkeypatch.setattr(placement, "available_memory", lambda: 60_000)
    with pytest.raises(ModelError, match=r"fit neither the GPUs nor the free main memory.*--dtype bfloat16"):
        opened(tiny_folder, DeviceMap())


def test_options_that_do_not_go_together_are_refused(tiny_folder, tmp_path, capsys):
    folder = f"path:{tiny_folder}"
    with pytest.raises(UsageError, match="expected a quantization or a device map"):
        open_checkpoint(ModelSpec.parse(folder), LoadOptions(quantization="int8"), DeviceMap())
    with pytest.raises(UsageError, match="device maps are for hf: and path: models only"):
        open_checkpoint(ModelSpec.parse("baseline:random"), device_map=DeviceMap())
    assert call("--model", folder, "--output-dir", tmp_path, "--device-map", "auto", "--processes", 2) == 2
    assert "--processes 2 with --device-map" in capsys.readouterr().err
    assert call("--model", folder, "--output-dir", tmp_path, "--device-map", tmp_path / "none.json") == 2
    assert "No such file" in capsys.readouterr().err


def test_workers_need_whole_gpus_for_a_map():
    from benchmark.cli.options import BackendOptions

    device_map = DeviceMap.from_mapping({"model": 0, "lm_head": 1})
    BackendOptions(workers="2", gpus_per_worker=2.0).check_device_map(device_map, "cuda")
    for gpus in (None, 0.5, 1.0):
        with pytest.raises(UsageError, match="at least 2"):
            BackendOptions(workers="2", gpus_per_worker=gpus).check_device_map(device_map, "cuda")

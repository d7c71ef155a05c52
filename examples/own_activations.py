"""Measure activations that another engine read: prompts out, a file of states back.

    python examples/own_activations.py --programs 40 --trial --folder /tmp/activations

The loop over `prompts.jsonl` stands for the engine: replace it by yours, in any language. It reads the text of each line
and stores a state per action word; here the output of the last block of a transformers model.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import benchmark as kb

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="submissions/2026-11-23_llama-laptop", help="a folder, or org/name of the hub")
parser.add_argument("--suite", default="laptop")
parser.add_argument("--programs", type=int, help="label budget (default: the suite's own)")
parser.add_argument("--trial", action="store_true", help="settings that take seconds and whose figures mean nothing")
parser.add_argument("--folder", type=Path, default=Path("activations"), help="folder of both files")
options = parser.parse_args()
options.folder.mkdir(parents=True, exist_ok=True)
protocol = kb.TRIAL if options.trial else kb.STANDARD

# 1. The prompts; the command `python -m benchmark.exchange.prompts` writes the same file.
probes = kb.blind_probe_set(options.suite, options.programs, protocol=protocol)
prompts = kb.write_prompts(options.folder / "prompts.jsonl", probes)

# 2. The engine knows the file only.
model = AutoModelForCausalLM.from_pretrained(options.model)
tokenizer = AutoTokenizer.from_pretrained(options.model)
states, rows = [], []
with prompts.open() as lines, torch.inference_mode():
    for line in map(json.loads, lines):
        encoded = tokenizer(line["text"], return_tensors="pt", return_offsets_mapping=True)
        token_ends = encoded.pop("offset_mapping")[0, :, 1].numpy()
        last_layer = model(**encoded, output_hidden_states=True).hidden_states[-1][0].float().numpy()
        for row, (_, end) in zip(line["rows"], line["spans"], strict=True):
            states.append(last_layer[np.searchsorted(token_ends, end)])
            rows.append(row)
metadata = {"set": line["set"], "suite": options.suite, "programs": str(probes.suite.probe_programs)}
file = options.folder / "states.safetensors"
save_file({"states": np.stack(states), "rows": np.array(rows)}, file, metadata)

# 3. The verdict; the command `python -m benchmark.exchange.measure --states FILE` prints the same figures.
read = kb.read_states(file, protocol=protocol)
result = kb.measure(read.probes, read.hidden, {"recorder": kb.token_history_control(read.probes)})
print(f"{result.verdict}: skill {result.skill.value:+.3f}, delta {result.delta.value:+.3f}")
print("controls of the protocol that are missing:", ", ".join(result.missing_controls))

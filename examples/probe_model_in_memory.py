"""Probe a model object held in memory, with the controls of the protocol and one of your own.

    python examples/probe_model_in_memory.py --programs 40 --trial

The control of one's own is the last layer in a random order of its rows: it has the statistics of the states and knows
nothing of the program. Without options: the whole label budget, some ten minutes on two cores.
"""

import argparse

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer

import benchmark as kb

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="submissions/2026-11-23_llama-laptop", help="a folder, or org/name of the hub")
parser.add_argument("--suite", default="laptop")
parser.add_argument("--programs", type=int, help="label budget (default: the suite's own)")
parser.add_argument("--trial", action="store_true", help="settings that take seconds and whose figures mean nothing")
options = parser.parse_args()

model = AutoModelForCausalLM.from_pretrained(options.model)
tokenizer = AutoTokenizer.from_pretrained(options.model)
wrapped = kb.wrap(model, tokenizer)  # any change to `model` so far is part of what is probed

protocol = kb.TRIAL if options.trial else kb.STANDARD
probes = kb.blind_probe_set(options.suite, options.programs, protocol=protocol)
hidden = kb.hidden_states(wrapped, probes)  # float32 [R, L, D]
controls = dict(kb.standard_controls(wrapped, probes))
controls["shuffled rows"] = np.random.default_rng(0).permutation(hidden[:, -1])

result = kb.measure(probes, hidden, controls)
print(f"{result.verdict}: delta {result.delta.value:+.3f} [{result.delta.low:+.3f}, {result.delta.high:+.3f}]")
for name, gap in result.feature.control_gaps.items():
    print(f"gap of {name}: {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]")

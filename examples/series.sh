#!/usr/bin/env bash
# One training of the experiment in docs/emergence.md: train, measure every checkpoint, keep the points, delete the weights.
#
#     examples/series.sh gpt-laptop 1                     # about 35 + 30 minutes of a core for 1M parameters
#     RUNS=/scratch POINTS=docs/emergence examples/series.sh neox-laptop 2
#
# Stopped at any time, the same command continues: the training from its last saved state (100 steps), the measurement from its
# last item. Where the points are already, it does nothing. COMMIT=1 commits the points. TRAIN and MEASURE are further options
# of the two commands; on a processor without bfloat16 instructions, TRAIN=--compile MEASURE= is faster. A recipe of another suite
# than laptop needs it in MEASURE, such as MEASURE="--suite icml24 --test-tasks 1000 --dtype bfloat16". KEEP=FOLDER keeps the
# weights, a folder per revision of the hub repository OWNER/RECIPE-SEED, with model cards, and prints the commands that would
# publish them.
set -euo pipefail

recipe=${1:?usage: examples/series.sh RECIPE SEED}
seed=${2:?usage: examples/series.sh RECIPE SEED}
name=$(basename "$recipe" .yaml)-$seed
run=${RUNS:-runs}/$name
points=${POINTS:-docs/emergence/series}
if [ -f "$points/$name.json" ]; then
    echo "$points/$name.json: measured already"
    exit 0
fi

# 20 checkpoints: untrained, then three per doubling of the tasks over the last six doublings.
python -m baselines.train "$recipe" --seed "$seed" --set checkpoints=19 --set spacing=log --save-every 100 --threads 1 \
    --output-dir "$run" ${TRAIN---compile --precision bf16}
python -m benchmark.emergence "$run" --output-dir "$run/emergence" ${MEASURE---dtype bfloat16}

mkdir -p "$points"
cp "$run/emergence/$name.json" "$points/"
if [ -n "${KEEP:-}" ]; then
    python -m benchmark.emergence.hub "$run" --repository "${OWNER:-owner}/$name" --points "$points/$name.json" --output-dir "$KEEP"
fi
rm -r "$run/checkpoints" "$run/state"
if [ "${COMMIT:-0}" = 1 ]; then
    git add "$points/$name.json"
    git commit --quiet --message "emergence: points of $name" -- "$points/$name.json"
fi
echo "wrote $points/$name.json"

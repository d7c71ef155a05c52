"""Rough time of the measurements of a run, before anything is loaded: floating-point operations over measured speeds.

Two parts are counted: tokens that pass through a model, and steps of probes. A token takes 2 operations per parameter, and in
attention 4 per layer, unit of width and token of its context; a probe takes 4 per weight and state. The factors were measured in
processor seconds on shipped models of 0.2 to 4 million parameters, as multiples of products whose speed is measured in processor
seconds too (docs/probing.md, Cost).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmark.causal.pairs import PairSettings
from benchmark.causal.pieces import NUM_RANDOM
from benchmark.causal.rotation import NUM_ALTERNATIVES
from benchmark.causal.targets import NEXT_WORDS
from benchmark.probing.protocol import STANDARD
from benchmark.probing.version4.readable_record import NUM_WORDS, WORD_PAIRS
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.sequential_verdict import list_looks
from benchmark.probing.version4.track_protocol import view_layers
from benchmark.probing.version4.turn_pairs import ALL_PAIRS
from benchmark.probing.written.content import DEPTHS, OFFSETS, content_sources
from benchmark.probing.written.content_labels import HEADS
from benchmark.runner.evidence_cache import is_cached, shipped_copy, untrained_copy_key
from benchmark.runner.measurements.measurement import Measurement
from benchmark.runner.measurements.preview import PreviewMeasurement
from benchmark.runner.measurements.reach import ReachMeasurement
from benchmark.runner.measurements.represents import RepresentsMeasurement, seeds_of_copy
from benchmark.runner.measurements.uses import UsesMeasurement
from benchmark.runner.measurements.uses_detail import UsesDetailMeasurement
from benchmark.runner.plan import Job
from benchmark.runner.worker import RANDOM_INIT_SEED
from benchmark.tasks.suite import num_blind_programs

READ_FACTOR, WRITE_FACTOR, PROBE_FACTOR = 2.4, 1.8, 1.6
"""Ratio of time to that of the matrix products alone: reading the states of all layers, writing, training probes."""
ATTENTION_FACTOR = 1.5
"""Ratio of the time of attention to that of as many operations in a matrix product."""
RECORDS_FACTOR = 2.2
"""Time of the record heads of protocol 4 in that of probes of their size: their outputs are many and small."""
READ_SECONDS, WRITE_SECONDS = 0.001, 0.004
"""Per program, whatever its length and the size of the model."""
SCAN_TOKEN_SECONDS = 0.0002
"""Per token of a model that scans its tokens one by one without compiled kernels."""
START_SECONDS = 8.0
"""Processor time of a process until its first item: imports, tokenizer, tasks, this estimate."""
LOAD_SECONDS = 3.0
"""To load a model, or to initialise a copy."""
CHECK_PASSES = 3.0
"""Passes over one text with its whole prompt by which a run checks its model before the first item."""
CACHED_BYTES = 64_000_000
"""Weights that a processor's cache holds between two passes; those of a larger model come from memory each time."""
NUM_VIEWS = 2
NUM_LAYERS = 9
"""Layers of a network whose single layers are views as well; their number does not depend on it."""
BLIND_SECONDS = 4.0
"""Drawing and labelling the blind set of 7,000 programs, which no model takes part in, in two processes and the driver."""
PROMPTS_PER_TASK = 9.0
"""Prompts of *uses* per task that pass through the trained model: of pairs, of class means and of merges. On `laptop` there are 9.9
prefixes per task: 2,134 pairs, the 590 of choice twice, 1,394 of means and 1,827 of merges for 600 tasks; those of one prompt in one
batch read it once."""
UNTRAINED_PROMPTS_PER_TASK = 4.2
"""The same of its untrained copy: pairs of choice, strict pairs, and class means."""
CHOOSE_PAIRS, STRICT_PAIRS, REPORT_PAIRS = 1.0, 0.9, 2.6
"""Pairs of *uses* per task: that choose a site, strict ones that report, all that report. Measured on `laptop` as 0.98, 0.88
and 2.57."""
OTHER_PREFIXES = 7.7
"""Prefixes of class means, those of the untrained copy too, and of merges, per task."""
EDIT_FACTOR = 1.4
"""Ratio of the time of passes over the last token of a prefix to that of their products."""
WRITTEN_WORDS = 4.0
"""Words that a model writes after the prefix of a pair, unedited."""
USES_SECONDS_PER_TASK = 0.02
REACH_OVERHEAD = 1.5
USES_DETAIL_FACTOR = 4.0
"""Time of the full detail of *uses* in that of its standard detail: 3.5 to 9 on four models of a loaded machine."""


@dataclass(frozen=True)
class ModelCost:
    """What a model and a machine cost.

    Attributes:
        token_seconds: seconds per token of the matrix products of the model.
        scan_seconds: seconds per token that a scan takes besides.
        prompt_tokens, program_tokens: tokens of a prompt, and of a program after it.
        width: width of a state.
        probe_flops: operations of a probe per second.
        shares_prompts: whether several programs are read behind one cached prompt.
        has_cache: whether a token is written without reading the prompt again.
        pass_seconds: seconds per pass over one token of each prompt of a batch, in which all weights come from memory.
        batch: prompts per pass.
        prefix_tokens: tokens that all prompts share; they are read once.
        num_blocks: number of blocks, each a site of edits.
        few_tokens_factor: time of a token in a product of few tokens, in that of a large product.
        pair_seconds: seconds of attention per token and token of its context, as a matrix product would take.
    """

    token_seconds: float
    scan_seconds: float
    prompt_tokens: float
    program_tokens: float
    width: int
    probe_flops: float
    shares_prompts: bool
    has_cache: bool
    pass_seconds: float = 0.0
    batch: int = 1
    prefix_tokens: float = 0.0
    num_blocks: int = 4
    few_tokens_factor: float = 1.0
    pair_seconds: float = 0.0

    @property
    def context_tokens(self) -> float:
        """Tokens of a prompt and a program."""
        return self.prefix_tokens + self.prompt_tokens + self.program_tokens

    def token(self, factor: float = 1.0) -> float:
        """Seconds per token with its context; `factor` is that of the matrix products."""
        attention = ATTENTION_FACTOR * self.pair_seconds * self.context_tokens
        return factor * self.token_seconds + self.scan_seconds + attention

    def prefix(self) -> float:
        """Seconds to read the tokens that all prompts share."""
        return self.token() * self.prefix_tokens

    def load(self) -> float:
        """Seconds to load the model and to check it."""
        return LOAD_SECONDS + CHECK_PASSES * self.token() * self.context_tokens

    def read(self, prompts: float, programs: float) -> float:
        """Seconds to read programs behind prompts."""
        num_prompts = prompts if self.shares_prompts else programs
        tokens = num_prompts * self.prompt_tokens + programs * self.program_tokens
        return self.token(READ_FACTOR) * tokens + READ_SECONDS * programs

    def write(self, programs: float) -> float:
        """Seconds to write programs of the suite's length; a model without a cache reads its prompt for every token."""
        passes = 1.0 if self.has_cache else max(1.0, self.program_tokens / 2)
        tokens = passes * self.prompt_tokens + self.program_tokens
        factor = WRITE_FACTOR if self.has_cache else READ_FACTOR / 2
        batches = -(-programs // self.batch)
        return (
            (self.prefix() if programs else 0.0)
            + batches * self.program_tokens * self.pass_seconds
            + programs * (self.token(factor) * tokens + WRITE_SECONDS)
        )

    def fit(self, networks: float, classes: float, steps: int, batch: int, hidden: int) -> float:
        """Seconds to train networks with one hidden layer; `classes` is the sum over all of their outputs."""
        weights = networks * self.width * hidden + hidden * classes
        return PROBE_FACTOR * 4.0 * steps * batch * weights / self.probe_flops


def estimate_measurements(job: Job, cost: ModelCost, measurements: Iterable[Measurement]) -> dict[str, float]:
    """Seconds of each measurement in one process, by name; measurements that do not fit the run have none."""
    seconds = {}
    for measurement in measurements:
        if measurement.skip_reason(job) is not None:
            continue
        if isinstance(measurement, RepresentsMeasurement):
            protocol = measurement.protocol_of(job)
            is_preview = isinstance(measurement, PreviewMeasurement)
            # A preview mostly ends at its first look.
            num_seeds = list_looks(protocol)[0].seeds if is_preview else len(protocol.seeds)
            seconds[measurement.name] = _represents_seconds(job, cost, protocol, num_seeds)
        elif isinstance(measurement, UsesMeasurement):
            seconds[measurement.name] = _uses_seconds(cost, measurement.settings_of(job.suite))
        elif isinstance(measurement, UsesDetailMeasurement):
            seconds[measurement.name] = USES_DETAIL_FACTOR * _uses_seconds(cost, measurement.settings_of(job))
        elif isinstance(measurement, ReachMeasurement):
            seconds[measurement.name] = _reach_seconds(job, cost)
    return seconds


def list_missing_copies(job: Job, protocol: RotationProtocol) -> list[int]:
    """Randomly initialised copies whose evidence is neither shipped nor cached."""
    missing = []
    for copy in range(protocol.random_inits):
        if not seeds_of_copy(protocol, copy):
            continue
        key = untrained_copy_key(job, protocol, RANDOM_INIT_SEED + copy)
        has_cached = key is not None and is_cached(key, job.cache)
        is_shipped = not has_cached and shipped_copy(job, protocol, RANDOM_INIT_SEED + copy) is not None
        if not (has_cached or is_shipped):
            missing.append(copy)
    return missing


def _represents_seconds(job: Job, cost: ModelCost, protocol: RotationProtocol, num_seeds: int) -> float:
    programs = min(num_blind_programs(job.suite), protocol.max_programs)
    read = LOAD_SECONDS + cost.read(programs / protocol.programs_per_prompt, programs)
    side = max(job.suite.recipe.height[1], job.suite.recipe.width[1])
    num_places = job.suite.blind_length
    rotation_classes = len(ALL_PAIRS) * (4 + 2 * (2 * (side - 3) + 1))
    record_classes = num_places * NUM_WORDS + (NUM_WORDS + len(WORD_PAIRS)) * (num_places + 1)
    num_views = NUM_VIEWS + len(view_layers(job.generation.track, NUM_LAYERS))
    fits = num_views * num_seeds * protocol.copies
    settings = (protocol.steps, protocol.batch, protocol.hidden)
    labels = cost.fit(fits * len(ALL_PAIRS), fits * rotation_classes, *settings)
    records = RECORDS_FACTOR * cost.fit(fits * 2, fits * record_classes, *settings)
    # A copy is probed by all of its seeds, also where a preview needs fewer, so that its evidence can be cached.
    copies = list_missing_copies(job, protocol)[:num_seeds]
    copy_seeds = sum(len(seeds_of_copy(protocol, copy)) for copy in copies)
    return BLIND_SECONDS + read + labels + records + len(copies) * read + copy_seeds * labels / num_seeds


def _uses_seconds(cost: ModelCost, settings: PairSettings) -> float:
    prompts = PROMPTS_PER_TASK + UNTRAINED_PROMPTS_PER_TASK
    word = max(1.0, cost.program_tokens / 6)
    # The beginnings of the six continuations are read with the last token of a prefix, each once.
    tokens_per_pass = 1 + len(NEXT_WORDS) * (word - 1)
    if word > 1:
        # Words of several tokens are written by `generate`, which reads the prompt again.
        prompts += CHOOSE_PAIRS + REPORT_PAIRS
    written = (CHOOSE_PAIRS + REPORT_PAIRS) * WRITTEN_WORDS * word
    edited = _edit_passes(cost.num_blocks) * tokens_per_pass + written
    seconds = cost.token() * prompts * cost.prompt_tokens + cost.token(EDIT_FACTOR * cost.few_tokens_factor) * edited
    return settings.tasks * (seconds + USES_SECONDS_PER_TASK)


def _edit_passes(num_blocks: int) -> float:
    """Passes over the last token of a prefix per task, in passes through all blocks: an edit runs those after its site."""
    every_site, one_site = (num_blocks + 1) / 2, 0.5
    # Scores, states, and outputs of blocks; an untrained copy needs no scores.
    unedited = 3
    trained = CHOOSE_PAIRS * (unedited + (1 + NUM_ALTERNATIVES) * every_site)
    trained += (
        REPORT_PAIRS * (unedited + (2 + NUM_ALTERNATIVES) * one_site) + STRICT_PAIRS * (NUM_RANDOM + 3) * one_site
    )
    untrained = CHOOSE_PAIRS * (2 + every_site) + STRICT_PAIRS * (2 + one_site)
    return OTHER_PREFIXES + trained + untrained


def _reach_seconds(job: Job, cost: ModelCost) -> float:
    answers = cost.write(job.suite.probe_programs) + cost.read(job.suite.probe_programs, job.suite.probe_programs)
    networks = sum(len(content_sources(offset)) for offset in OFFSETS) * len(STANDARD.seeds) * len(HEADS)
    hidden_share = (len(DEPTHS) - 1) / len(DEPTHS)
    fit = cost.fit(networks * hidden_share, networks * 6, STANDARD.steps, STANDARD.batch, STANDARD.hidden)
    return answers + REACH_OVERHEAD * fit

"""Time of the Memory-R+ reward and of its look-up against the reference procedure, by size of the memory.

    python -m benchmarks.memory_scaling [--repeats 15] [--sizes 1000,10000,100000,1000000]

Both sides run in turn in one process, with the same threads, encoder precision and stored vectors; a time is the
median over the repeats. "Reward" is a batch of one prompt from texts to what is paid, and stored (benchmarks/
memory_reference.py does it one text at a time). "Look-up" starts from vectors: nearest questions of one memory and the
explore reward against their responses. In training the encoder runs before every look-up of either side and leaves the
caches full of its weights, so it runs here too, outside the measured time; look-ups back to back are timed as well.
"""

import copy
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import faiss
import torch
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from torch import Tensor

from analysis.style import SERIES, STYLE, save_figure
from benchmarks.machine import publish
from benchmarks.memory_reference import Contents, Encode, ReferenceMemory, reference_batch
from common.errors import UserError, run_cli
from common.flags import OutputStem, check_least, flag, parse_one
from common.markdown import markdown_table
from intrinsic.knn_memory import PARTS, MemoryRPlus
from intrinsic.parts.encoder import build_encoder
from intrinsic.parts.episodic_memory import EpisodicMemory
from intrinsic.parts.memory_read import MemoryBatch, explore_reward, look_up
from intrinsic.rollout import Rollout

QUESTION = (
    "Natalia sells clips to her friends. Every week she makes some clips, sells a part of them and puts the rest into "
    "a box. How many clips are in the box after four weeks?"
)


@dataclass
class Options:
    """What is timed."""

    generations: int = flag(16, "Completions of the one prompt, 1 or more.")
    questions: int = flag(1000, "Questions in each memory when the reward is timed, 1 or more.")
    responses: int = flag(100, "Responses stored per question, 1 or more.")
    sizes: str = flag(
        "1000,10000,100000,1000000",
        "Stored responses when the look-up is timed, multiples of --responses separated by commas.",
    )
    k: int = flag(1, "Nearest questions read, 1 or more.")
    repeats: int = flag(15, "Repetitions of every look-up, 1 or more.")
    reward_repeats: int = flag(5, "Repetitions of the reward, 1 or more.")
    threads: int = flag(1, "Torch and faiss threads, 1 or more.")
    encoder: str = flag("sentence-transformers/all-MiniLM-L6-v2", "Text encoder.")
    device: str = flag("cpu", "Device of the text encoder, as torch names it: cpu, cuda.")
    seed: int = flag(0, "Seed of the texts and of the stored vectors.")
    output: OutputStem = flag("outputs/memory_scaling", "Path of the results, without extension.")

    def __post_init__(self):
        counts = ("generations", "questions", "responses", "k", "repeats", "reward_repeats", "threads")
        check_least(self, **dict.fromkeys(counts, 1))
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:  # the latter where torch was built without it
            raise UserError(f"--device={self.device!r} is no device here ({str(error).splitlines()[0]}).") from None
        if any(size < self.responses or size % self.responses for size in self.stored_responses):
            raise UserError(f"--sizes={self.sizes} must be multiples of --responses={self.responses}; adapt either.")

    @property
    def stored_responses(self) -> list[int]:
        """``sizes`` as increasing numbers."""
        try:
            return sorted(int(size) for size in self.sizes.split(","))
        except ValueError:
            raise UserError(f"--sizes={self.sizes!r} must be whole numbers separated by commas.") from None


def prompt_batch(options: Options, encode: Encode) -> Rollout:
    """Completions of `QUESTION` of about 120 words of arithmetic, a quarter of them right."""
    rng = random.Random(options.seed)
    completions = []
    for _ in range(options.generations):
        box, steps = 0, []
        for week in range(1, 5):
            made, sold = rng.randint(20, 90), rng.randint(1, 19)
            before, box = box, box + made - sold
            steps.append(
                f"In week {week} she makes {made} clips and sells {sold} of them, which leaves {made} - {sold} = "
                f"{made - sold} clips for the box; the box then holds {before} + {made - sold} = {box} clips."
            )
        completions.append(f"<reasoning>\n{' '.join(steps)}\n</reasoning>\n<answer>\n{box}\n</answer>")
    correct = torch.tensor([float(index % 4 == 0) for index in range(options.generations)])
    return Rollout([QUESTION] * len(correct), completions, correct, correct, len(correct), step=1, encode=encode)


def precisions(encode: Encode) -> dict[str, Encode]:
    """The encoder in float32 and, where it differs, as the project runs it on this device."""
    if not getattr(encode, "bfloat16", False):
        return {"float32": encode}
    single = copy.copy(encode)
    single.bfloat16 = False
    return {"float32": single, "bfloat16": encode}


def milliseconds(run: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    run()
    return 1000.0 * (time.perf_counter() - start)


def time_reward(options: Options, encode: Encode) -> dict[str, float]:
    """Milliseconds of scoring and storing one batch from texts, and the largest difference between the raw rewards.

    Raw rewards are compared on the memories as they are filled; afterwards the two orders store different things.
    """
    dim = encode([QUESTION]).shape[1]
    bonus = MemoryRPlus(k=options.k, max_responses=options.responses, explore_warmup=0)
    reference = {}
    for seed, (name, memory) in enumerate(bonus.memories.items(), start=options.seed):
        contents = Contents.random(options.questions, options.responses, dim, seed)
        contents.fill(memory)
        reference[name] = ReferenceMemory(contents, options.k, options.responses, encode)

    batch, difference = prompt_batch(options, encode), 0.0
    for name, raw in bonus.raw_parts(bonus.embed(batch), batch).items():
        part = PARTS[name]
        texts = zip(batch.questions, batch.reasonings, strict=True)
        expected = [reference[part.memory].score(*pair, part.reward) for pair in texts]
        difference = max(difference, float((raw.values - torch.tensor(expected)).abs().max()))

    ours, theirs = [], []
    for _ in range(options.reward_repeats):
        batch = prompt_batch(options, encode)
        ours.append(milliseconds(lambda batch=batch: (bonus.score(batch), bonus.update(batch))))
        theirs.append(milliseconds(lambda batch=batch: reference_batch(reference, batch)))
    return {"ours_ms": median(ours), "reference_ms": median(theirs), "difference": difference}


def time_look_ups(options: Options, encode: Encode) -> list[dict[str, float]]:
    """One row per size: stored responses, megabytes held, milliseconds per batch after the encoder and back to back,
    and the largest difference between the raw rewards."""
    dim = encode([QUESTION]).shape[1]
    largest = Contents.random(options.stored_responses[-1] // options.responses, options.responses, dim, options.seed)
    vectors = Contents.random(1, options.generations, dim, options.seed + 1)
    rows = []
    for size in options.stored_responses:
        contents = largest.first(size // options.responses)
        memory = EpisodicMemory(len(contents.keys), options.responses)
        contents.fill(memory)
        reference = ReferenceMemory(contents, options.k, options.responses, encode)
        rows.append({"stored": size, "megabytes": memory.nbytes / 1e6})
        rows[-1] |= _time_look_up(options, memory, reference, vectors, lambda: encode([QUESTION]))
    return rows


def _time_look_up(
    options: Options, memory: EpisodicMemory, reference: ReferenceMemory, vectors: Contents, run_encoder: Callable
) -> dict[str, float]:
    key, responses = vectors.keys, vectors.values[0]
    count = len(responses)
    batch = MemoryBatch([QUESTION] * count, key.expand(count, -1), responses, [None] * count, list(range(count)))
    found: dict[str, Tensor] = {}

    def ours():
        found["ours"] = look_up(memory, explore_reward, batch, options.k).values

    def theirs(value: Tensor) -> float:
        return reference.look_up(key[0].numpy(), value.numpy(), explore_reward)

    their_runs = [lambda value=value: theirs(value) for value in responses]
    times: dict[str, list[float]] = {"ours_ms": [], "reference_ms": [], "ours_warm_ms": [], "reference_warm_ms": []}
    for _ in range(options.repeats):
        for suffix, before in (("_ms", run_encoder), ("_warm_ms", lambda: None)):
            times["ours" + suffix].append(timed_apart([ours], before))
            times["reference" + suffix].append(timed_apart(their_runs, before))
    found["reference"] = torch.tensor([theirs(value) for value in responses])
    difference = float((found["ours"] - found["reference"]).abs().max())
    return {name: median(values) for name, values in times.items()} | {"difference": difference}


def timed_apart(runs: Sequence[Callable[[], object]], before: Callable[[], object]) -> float:
    """Milliseconds of all ``runs`` together, without those of ``before``, which precedes each."""
    total = 0.0
    for run in runs:
        before()
        total += milliseconds(run)
    return total


def measure(options: Options, encode: Encode) -> dict:
    """Everything that is reported, as plain JSON types."""
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    rewards = {name: time_reward(options, encoder) for name, encoder in precisions(encode).items()}
    look_ups = time_look_ups(options, encode)
    return {"options": asdict(options), "reward": rewards, "look_up": look_ups}


def table(result: dict) -> str:
    """Markdown: rewards by precision of the encoder, and look-ups by size."""
    options, rewards = result["options"], result["reward"]
    stored = f"{options['questions']:,} x {options['responses']}"
    about_rewards = (
        f"Reward of {options['generations']} completions of one prompt, encoder included; both memories hold {stored} "
        f"responses, K = {options['k']}."
    )
    heads = ["encoder, ours / reference", "ours, ms", "reference, ms", "ratio", "largest difference"]
    by_precision = []
    pairs = [(name, name) for name in rewards] + [("bfloat16", "float32")] * (len(rewards) > 1)
    for ours, theirs in pairs:
        mine, other = rewards[ours]["ours_ms"], rewards[theirs]["reference_ms"]
        difference = f"{rewards[ours]['difference']:.0e}" if ours == theirs else ""
        by_precision.append([f"{ours} / {theirs}", f"{mine:.0f}", f"{other:.0f}", f"{other / mine:.1f}", difference])
    about_look_ups = (
        f"Look-up of the same completions in one memory of {options['responses']} responses per question, vectors at "
        "hand; the encoder runs before each look-up, or look-ups follow each other (back to back)."
    )
    columns = ["stored responses", "MB", "ours, ms", "reference, ms", "ratio", "ours, back to back", "reference"]
    columns += ["ratio", "largest difference"]
    by_size = []
    for row in result["look_up"]:
        cells = [f"{row['stored']:,}", f"{row['megabytes']:.1f}"]
        for kind in ("_ms", "_warm_ms"):
            mine, other = row["ours" + kind], row["reference" + kind]
            cells += [f"{mine:.2f}", f"{other:.2f}", f"{other / mine:.1f}"]
        by_size.append([*cells, f"{row['difference']:.0e}"])
    tables = markdown_table(heads, by_precision), markdown_table(columns, by_size)
    return "\n\n".join([about_rewards, tables[0], about_look_ups, tables[1], "Medians, both sides in turn."])


def plot(result: dict, path: Path) -> None:
    """Milliseconds of a look-up by stored responses, both axes logarithmic."""
    rows = result["look_up"]
    sizes = [row["stored"] for row in rows]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.4, 4.2), layout="constrained")
        for color, side, label in (
            (SERIES[1], "reference", "reference procedure"),
            (SERIES[0], "ours", "this project"),
        ):
            axes.plot(sizes, [row[f"{side}_ms"] for row in rows], "o-", color=color, label=label)
            axes.plot(sizes, [row[f"{side}_warm_ms"] for row in rows], "o--", color=color, alpha=0.5, markersize=4)
        axes.plot([], [], "--", color="#888888", label="look-ups back to back")
        axes.set(xscale="log", yscale="log", xlabel="stored responses", ylabel="milliseconds per batch")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.set_title(f"Look-up of {result['options']['generations']} completions of one prompt")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        save_figure(figure, path)


def main() -> None:
    options = parse_one(Options)
    result = measure(options, build_encoder(options.encoder, device=options.device))
    publish(options.output, table(result), result)
    plot(result, Path(f"{options.output}.png"))


if __name__ == "__main__":
    run_cli(main)

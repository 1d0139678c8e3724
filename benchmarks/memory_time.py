"""Time of the Memory-R+ bonus per batch against the reference procedure, and of the look-up alone.

    python -m benchmarks.memory_time --questions 200 --responses 20

The reference procedure (arXiv 2504.02273; re-created here from its description, with one encoder shared instead of
two) goes through the completions one by one: each insertion encodes question and answer, each of the two scores
encodes both again, one text per call, and searches a flat L2 index.
"""

import platform
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional
from transformers import HfArgumentParser

from intrinsic.encoder import build_encoder
from intrinsic.episodic_memory import EpisodicMemory
from intrinsic.knn_memory import PARTS, MemoryRPlus, look_up
from training.errors import run_cli
from training.rollout import Rollout


@dataclass
class BenchmarkOptions:
    """What is timed."""

    groups: int = field(default=24, metadata={"help": "Questions in the batch."})
    generations: int = field(default=8, metadata={"help": "Completions per question."})
    questions: int = field(default=200, metadata={"help": "Questions stored in each memory before the batch."})
    responses: int = field(default=20, metadata={"help": "Responses stored per question."})
    k: int = field(default=1, metadata={"help": "Nearest questions read."})
    repeats: int = field(default=3, metadata={"help": "Runs of our bonus and of the look-ups; the median is printed."})
    threads: int = field(default=1, metadata={"help": "Torch threads."})
    encoder: str = field(default="sentence-transformers/all-MiniLM-L6-v2", metadata={"help": "Text encoder."})
    device: str = field(default="cpu", metadata={"help": "Device of the text encoder."})
    seed: int = field(default=0, metadata={"help": "Seed of the batch and of the stored vectors."})


def milliseconds(run: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    run()
    return 1000.0 * (time.perf_counter() - start)


def countdown_batch(options: BenchmarkOptions, encode) -> Rollout:
    """Countdown-like questions with short traces of tried expressions, a quarter of them right."""
    rng = random.Random(options.seed)
    questions, completions = [], []
    for _ in range(options.groups):
        a, b, c = numbers = [rng.randint(2, 9) for _ in range(3)]
        question = f"Using the numbers {numbers}, create an equation that equals {rng.randint(5, 60)}."
        for _ in range(options.generations):
            shift = rng.randint(0, 99)
            tries = f"({a}*{b})-{c}={a * b}-{c}={a * b - c + shift}\n({a}-{c})*{b}={a - c}*{b}={(a - c) * b - shift}"
            completions.append(f"<reasoning>{tries}</reasoning><answer>({a}*{b})-{c}</answer>")
        questions += [question] * options.generations
    correct = torch.tensor([float(rng.random() < 0.25) for _ in completions])
    return Rollout(questions, completions, correct, correct, options.generations, step=1, encode=encode)


def stored_vectors(options: BenchmarkOptions, dim: int, memory: str) -> tuple[Tensor, Tensor]:
    """Unit keys (questions, dim) and values (questions, responses, dim)."""
    generator = torch.Generator().manual_seed(options.seed + len(memory))
    keys = torch.randn(options.questions, dim, generator=generator)
    values = torch.randn(options.questions, options.responses, dim, generator=generator)
    return functional.normalize(keys, dim=-1), functional.normalize(values, dim=-1)


def filled_bonus(options: BenchmarkOptions, dim: int) -> MemoryRPlus:
    """Our bonus with both memories filled."""
    bonus = MemoryRPlus(k=options.k, explore_warmup=0)
    for name, memory in bonus.memories.items():
        keys, values = stored_vectors(options, dim, name)
        for number, (key, rows) in enumerate(zip(keys, values, strict=True)):
            for value in rows:
                memory.insert(f"stored {number}", key, value)
    return bonus


class ReferenceMemory:
    """One memory of the reference procedure: identity by equal vectors, flat L2 search, one text per encoder call."""

    def __init__(self, options: BenchmarkOptions, dim: int, name: str, encode):
        keys, values = stored_vectors(options, dim, name)
        self.k = options.k
        self.encode = encode
        self.keys = keys
        self.values = [list(rows) for rows in values]

    def encode_pair(self, question: str, answer: str) -> tuple[Tensor, Tensor]:
        return self.encode([question])[0].cpu(), self.encode([answer])[0].cpu()

    def insert(self, question: str, answer: str) -> None:
        key, value = self.encode_pair(question, answer)
        same = (self.keys == key).all(dim=1).nonzero()
        if len(same):
            self.values[int(same[0])].append(value)
        else:
            self.keys = torch.cat([self.keys, key[None]])
            self.values.append([value])

    def score(self, question: str, answer: str, reward) -> float:
        return self.read(*self.encode_pair(question, answer), reward)

    def read(self, key: Tensor, value: Tensor, reward) -> float:
        distance = torch.cdist(key[None], self.keys)[0]
        nearest = distance.topk(min(self.k, len(self.keys)), largest=False).indices.tolist()
        stored = torch.stack([row for index in nearest for row in self.values[index]])
        return float(reward(value[None], stored))


def reference_batch(memories: dict[str, ReferenceMemory], batch: Rollout) -> None:
    """Insert, then score, completion by completion."""
    for question, answer, right in zip(batch.questions, batch.reasonings, batch.correct.tolist(), strict=True):
        memories["success" if right else "failure"].insert(question, answer)
        for part in PARTS.values():
            memories[part.memory].score(question, answer, part.reward)


def time_bonus(options: BenchmarkOptions, encode, dim: int) -> tuple[float, float]:
    """Milliseconds per batch, encoder included: ours (score and update), reference."""
    ours = []
    for _ in range(options.repeats):
        bonus, batch = filled_bonus(options, dim), countdown_batch(options, encode)
        ours.append(milliseconds(lambda bonus=bonus, batch=batch: (bonus.score(batch), bonus.update(batch))))
    memories = {part.memory: ReferenceMemory(options, dim, part.memory, encode) for part in PARTS.values()}
    batch = countdown_batch(options, encode)
    return median(ours), milliseconds(lambda: reference_batch(memories, batch))


def time_look_up(options: BenchmarkOptions, encode, dim: int) -> tuple[float, float]:
    """Milliseconds per batch for reading both memories with vectors at hand: ours, reference."""
    bonus = filled_bonus(options, dim)
    rows = bonus.embed(countdown_batch(options, encode))
    memories = {part.memory: ReferenceMemory(options, dim, part.memory, encode) for part in PARTS.values()}

    def ours():
        for part in PARTS.values():
            look_up(bonus.memories[part.memory], part.reward, rows, options.k)

    def reference():
        for key, value in zip(rows.keys, rows.responses, strict=True):
            for part in PARTS.values():
                memories[part.memory].read(key, value, part.reward)

    return tuple(median(milliseconds(run) for _ in range(options.repeats)) for run in (ours, reference))


def time_search(options: BenchmarkOptions, dim: int) -> list[tuple[int, float, float]]:
    """(keys, milliseconds of `EpisodicMemory.nearest`, of faiss.IndexFlatIP) for one query per group; empty without
    faiss."""
    if not find_spec("faiss"):
        return []
    import faiss

    faiss.omp_set_num_threads(options.threads)
    return [(count, *_time_search(options, faiss.IndexFlatIP(dim), count)) for count in (100, 1000, 10_000, 100_000)]


def _time_search(options: BenchmarkOptions, index, count: int) -> tuple[float, ...]:
    keys = functional.normalize(torch.randn(count, index.d), dim=1)
    index.add(keys.numpy())
    memory = EpisodicMemory(count, 1)
    for number, key in enumerate(keys):
        memory.insert(str(number), key, key)
    queries = keys[: options.groups].clone()
    runs = (lambda: memory.nearest(queries, 20), lambda: index.search(queries.numpy(), 20))
    return tuple(min(milliseconds(run) for _ in range(options.repeats + 2)) for run in runs)


def main() -> None:
    (options,) = HfArgumentParser(BenchmarkOptions).parse_args_into_dataclasses()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    encode = build_encoder(options.encoder, device=options.device)
    dim = encode(["warm up"]).shape[1]
    batch = countdown_batch(options, encode)
    print(
        f"{platform.machine()}, {torch.get_num_threads()} torch thread(s), encoder on {options.device} "
        f"({'bfloat16 autocast' if getattr(encode, 'bfloat16', False) else 'float32'})\n"
        f"{len(batch)} completions ({len(set(batch.reasonings))} distinct), {options.groups} questions; "
        f"each memory {options.questions} x {options.responses}, k={options.k}\n"
    )
    print(f"{'milliseconds per batch':34}{'ours':>10}{'reference':>12}{'ratio':>8}")
    for label, times in (
        ("bonus (score + update, encoder)", time_bonus(options, encode, dim)),
        ("look-up alone (both memories)", time_look_up(options, encode, dim)),
    ):
        print(f"{label:34}{times[0]:10.1f}{times[1]:12.1f}{times[1] / times[0]:7.1f}x")
    print(f"\n{f'search, {options.groups} queries, 20 nearest':34}{'ours':>10}{'faiss':>12}{'ratio':>8}")
    for count, ours, faiss_time in time_search(options, dim):
        print(f"{f'{count} keys':34}{ours:10.2f}{faiss_time:12.2f}{faiss_time / ours:7.1f}x")


if __name__ == "__main__":
    run_cli(main)

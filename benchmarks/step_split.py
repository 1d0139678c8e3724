"""Where the time of a training step goes."""

import functools

from transformers import TrainerCallback

from training.fit.report import now
from training.trainer import IntrinsicGRPOTrainer

SECTIONS = ("generation", "rewards", "forward", "backward", "optimiser")


class StepSplit(TrainerCallback):
    """Seconds of every optimiser step and of its sections, and the tokens of prompts and completions it generated."""

    def __init__(self):
        self.steps: list[dict[str, float]] = []
        self.batches: list[tuple[list[int], list[int]]] = []
        self._sections = dict.fromkeys(SECTIONS, 0.0)
        self._start: float | None = None
        self._optimiser_start = 0.0

    def timed(self, section: str, function):
        """``function``, with its time counted as the section's."""

        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            start = now()
            try:
                return function(*args, **kwargs)
            finally:
                self._sections[section] += now() - start

        return wrapper

    def watch(self, trainer: IntrinsicGRPOTrainer) -> None:
        """Split the steps of ``trainer``."""
        trainer._generate_single_turn = self._counted(self.timed("generation", trainer._generate_single_turn))
        trainer._calculate_rewards = self.timed("rewards", trainer._calculate_rewards)
        for name in ("join", "update"):
            setattr(trainer.bonuses, name, self.timed("rewards", getattr(trainer.bonuses, name)))
        trainer.compute_loss = self.timed("forward", trainer.compute_loss)
        trainer.accelerator.backward = self.timed("backward", trainer.accelerator.backward)

    def _counted(self, generate):
        @functools.wraps(generate)
        def wrapper(prompt_ids, *args, **kwargs):
            output = generate(prompt_ids, *args, **kwargs)
            self.batches.append(([len(ids) for ids in prompt_ids], [len(ids) for ids in output[0]]))
            return output

        return wrapper

    def on_step_begin(self, args, state, control, **kwargs):
        self._start = self._start if self._start is not None else now()

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self._optimiser_start = now()

    def on_optimizer_step(self, args, state, control, **kwargs):
        self._sections["optimiser"] += now() - self._optimiser_start

    def on_step_end(self, args, state, control, **kwargs):
        end = now()
        self.steps.append({"step": end - self._start, **self._sections})
        self._start, self._sections = end, dict.fromkeys(SECTIONS, 0.0)

"""From what TRL keeps of a generation batch to the `Rollout` that bonuses see, gathered over all processes."""

import torch
from accelerate.utils import gather_object
from torch import Tensor

from common.errors import UserError
from intrinsic.rollout import Rollout
from policy.chat import message_text
from policy.padding import pad_tokens


class RolloutGathering:
    """The part of `IntrinsicGRPOTrainer` that makes a `Rollout` of prompts, completions and rewards."""

    def _gather_rollout(self, rows, prompts, completions, rewards: Tensor) -> Rollout:
        """The rollout of all processes, in rank order; ``rewards`` are already gathered."""
        questions = gather_object([message_text(prompt, "user") for prompt in prompts])
        self._check_graded(rewards, questions)
        self._check_logged()
        extrinsic = rewards[:, : self.num_extrinsic]
        weights = self.reward_weights[: self.num_extrinsic].to(rewards.device)
        tokens = self._token_tensors()
        features = self._features(tokens)
        return Rollout(
            questions=questions,
            completions=gather_object([message_text(completion, "assistant") for completion in completions]),
            correct=self._correct(rewards),
            rewards=(extrinsic * weights).nansum(dim=1),
            num_generations=self.num_generations,
            answers=[answer or None for answer in self._gather_logged("answer", len(prompts))],
            approaches=[approach or None for approach in self._gather_logged("approach", len(prompts))],
            verdicts=[verdict or "" for verdict in self._gather_logged("verdict", len(prompts))],
            step=self.state.global_step,
            max_steps=self.state.max_steps,
            completion_mask=self._gather_padded(tokens["completion_mask"]),
            completion_ids=self._gather_padded(tokens["completion_ids"]),
            truncated=self.accelerator.gather(self._truncated()),
            prompt_ids=self._gather_padded(tokens["prompt_ids"], pad_first=True),
            prompt_mask=self._gather_padded(tokens["prompt_mask"], pad_first=True),
            vocab_size=self.accelerator.unwrap_model(self.model).get_input_embeddings().num_embeddings,
            # Sorted, because the order of a set of names differs from process to process.
            features={name: self._gather_padded(value) for name, value in sorted(features.items())},
            encode=self.encode,
            decode=self.processing_class.batch_decode,
            keys=gather_object([str(row[self._key_column]) for row in rows] if self._key_column else []),
        )

    def _correct(self, rewards: Tensor) -> Tensor:
        """(B,) 1.0 for right, 0.0 for wrong, NaN where no reward function says which is which, or said None."""
        if self.correctness_column is None:
            return torch.full_like(rewards[:, 0], torch.nan)
        verdicts = rewards[:, self.correctness_column]
        return torch.where(verdicts.isnan(), verdicts, (verdicts > 0.5).float())

    def _check_graded(self, rewards: Tensor, questions: list[str]) -> None:
        """Raise `UserError` for a completion that no reward function graded, where a bonus would train on it, or whose
        verdict is None, where a bonus would take it for wrong.

        Plain GRPO gives a completion that none of the functions graded no advantage.
        """
        if not self.bonuses.bonuses:
            return
        names, column = self.reward_func_names[: self.num_extrinsic], self.correctness_column
        reads_verdict = any(bonus.needs_verdict for bonus in self.bonuses.bonuses)
        read = slice(column, column + 1) if reads_verdict else slice(self.num_extrinsic)
        ungraded = rewards[:, read].isnan().all(dim=1)
        if ungraded.any():
            row = int(ungraded.nonzero()[0])
            raise UserError(
                f"{' and '.join(names[read])} gave None for completion {row} of the batch, of the question "
                f"{questions[row][:200]!r}, and bonuses need a number for each completion; return 0.0 for a wrong one, "
                "or leave the bonuses out."
            )

    def _check_logged(self) -> None:
        """Raise `UserError` where a bonus reads a column that no reward function logs, and so would never pay.

        A column that was logged once, on any process, may be left out later: its values are None then.
        """
        if not set().union(*(bonus.reads for bonus in self.bonuses.bonuses)) - self._logged_columns:
            return
        self._logged_columns.update(*gather_object([sorted(self._pending_extra_logs)]))
        for bonus in self.bonuses.bonuses:
            if missing := sorted(bonus.reads - self._logged_columns):
                raise UserError(
                    f"the bonus {bonus.name!r} reads the column {missing[0]!r}, which no reward function logs; have "
                    f"one call log_extra({missing[0]!r}, [a text per completion, '' for none])."
                )

    def _gather_logged(self, name: str, count: int) -> list[str | None]:
        """The texts that the reward functions of this step logged under ``name``, of all processes."""
        # TRL gathers and clears these columns only after the rewards.
        return gather_object(list(self._pending_extra_logs.get(name, [None] * count)))

    def _token_tensors(self) -> dict[str, Tensor]:
        # From the unpadded lists, not from TRL's tensors: mask_truncated_completions empties whole rows of those.
        device, padding = self.accelerator.device, self.processing_class.pad_token_id
        prompt_ids, prompt_mask = pad_tokens(self._prompt_ids_list, "left", padding, device)
        completion_ids, completion_mask = pad_tokens(self._completion_ids_list, "right", padding, device)
        return {
            "prompt_ids": prompt_ids,
            "prompt_mask": prompt_mask,
            "completion_ids": completion_ids,
            "completion_mask": completion_mask,
        }

    def _truncated(self) -> Tensor:
        """(B,) bool: this process' completions of the greatest length whose last token is no end token."""
        longest, ends = self.max_completion_length, self.eos_token_ids
        flags = [len(ids) >= longest and ids[-1] not in ends for ids in self._completion_ids_list]
        return torch.tensor(flags, device=self.accelerator.device)

    def _gather_padded(self, values: Tensor, pad_first: bool = False) -> Tensor:
        # A mask that accelerate pads becomes integer, on the processes that need padding alone.
        whole = values.long() if values.dtype == torch.bool else values
        padded = self.accelerator.pad_across_processes(whole, dim=1, pad_first=pad_first)
        return self.accelerator.gather(padded).to(values.dtype)

"""What bonuses pay, joined to rewards and advantages, and logged: what the trainer has beside plain GRPO."""

from itertools import cycle

import torch
from torch import Tensor

from intrinsic.match_mass import match_mass, plain_advantages, trained_tokens
from intrinsic.metrics import advantage_metrics, share_metrics
from intrinsic.parts.groups import sequence_mean
from intrinsic.pipeline import reward_advantages


class BonusPayment:
    """The part of `IntrinsicGRPOTrainer` that pays its bonuses and says how much of the advantage each is."""

    def pretrain_bonuses(self) -> None:
        """Let bonuses learn from the generation batches of the untrained policy that they ask for; trains nothing."""
        waiting = [bonus for bonus in self.bonuses.bonuses if bonus.pretrain_batches]
        if not waiting:
            return
        self.model.train()
        self._pretrained = waiting
        batches = cycle(self.get_train_dataloader())
        while any(bonus.pretrain_batches for bonus in waiting):
            with torch.no_grad():
                self._generate_and_score_completions(next(batches))
        self._pretrained = []
        self._metrics["train"].clear()

    def _pay_in_reward(self, rewards: Tensor) -> None:
        """Fill the bonuses' columns of ``rewards`` (B, K).

        "normalize_then_sum" brings each column to unit deviation in its group, whatever it was multiplied by. There the
        columns are not weighted, and TRL's weights of them, which it reads batch by batch, are those of this step.
        """
        standardised = self.multi_objective_aggregation == "normalize_then_sum"
        columns = self.bonuses.reward_values(self._scored, self.num_generations, weighted=not standardised)
        for place, column in enumerate(columns, self.num_extrinsic):
            rewards[:, place] = column
        if standardised:
            for place, weight in enumerate(self.bonuses.reward_weights(self._scored), self.num_extrinsic):
                self.reward_weights[place] = weight

    def _join_after_normalisation(self, output: dict) -> None:
        """Add the bonuses placed after normalisation to ``output["advantages"]``, (B,) or (B, T)."""
        before = self.accelerator.gather(output["advantages"])
        joined = before
        for item in self._scored:
            if item.bonus.placement == "reward":
                continue
            previous, joined = joined, self.bonuses.join(joined, [item], self._rollout)
            self._log_metrics(share_metrics(item.bonus.name, previous, joined, self._rollout))
        if self.matches_mass:
            tokens = trained_tokens(self._rollout, self.args.mask_truncated_completions)
            joined, matched = match_mass(joined, before if self._plain is None else self._plain, tokens)
            self._log_metrics(matched)
        self._log_metrics(advantage_metrics(joined, self._rollout))
        if joined is before:
            return
        rows = slice(self.accelerator.process_index * len(output["advantages"]), None)
        local = joined[rows][: len(output["advantages"])]
        if local.dim() == 2:
            width = output["completion_ids"].size(1)
            local = torch.nn.functional.pad(local[:, :width], (0, max(0, width - local.size(1))))
        output["advantages"] = local
        self._logs["advantages"].extend(sequence_mean(joined, self._rollout.completion_mask).tolist())

    def _log_reward_shares(self, rewards: Tensor) -> None:
        """Log what each bonus paid as a reward changes in the advantages."""
        weights = self.reward_weights.to(rewards.device)
        settings = (weights, self.num_generations, self.scale_rewards, self.multi_objective_aggregation)
        joined = reward_advantages(rewards, *settings)
        self._plain = plain_advantages(rewards, self.num_extrinsic, self._scored, settings)
        for item in self._scored:
            if item.bonus.placement != "reward":
                continue
            without = rewards.clone()
            for offset, (name, _) in enumerate(self.bonuses.reward_columns):
                if name == item.bonus.name:
                    without[:, self.num_extrinsic + offset] = 0.0
            before = reward_advantages(without, *settings)
            self._log_metrics(share_metrics(item.bonus.name, before, joined, self._rollout))

    def _log_metrics(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._metrics["train"][name].append(value)

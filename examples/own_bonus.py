"""A bonus of your own, beside plain GRPO on the embedded policy: python examples/own_bonus.py"""

import torch

from intrinsic.base import Bonus
from intrinsic.rollout import Rollout
from rewards.countdown import CountdownReward
from tasks.countdown.problems import ProblemSpace, add_prompts, generate
from training.run_options import RunConfig
from training.trainer import IntrinsicGRPOTrainer

rows = add_prompts(generate(200, "train", seed=0, space=ProblemSpace(3, 3, 15, max_value=99)), style="chat")


class NewAnswer(Bonus):
    """0.1 for an answer that was never given to this problem before, else 0."""

    name, placement = "new-answer", "advantage"

    def __init__(self):
        self.seen: set[str] = set()

    def score(self, rollout: Rollout) -> torch.Tensor:
        """(B,) values from the past alone; `update` comes after it."""
        return torch.tensor([0.1 * (key not in self.seen) for key in self._keys(rollout)], device=rollout.device)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Store the answers of the batch; what is returned is logged as ``ir/new-answer/seen``."""
        self.seen |= set(self._keys(rollout))
        return {"seen": len(self.seen)}

    def state_dict(self) -> dict:
        return {"seen": sorted(self.seen)}

    def load_state_dict(self, state: dict) -> None:
        self.seen = set(state["seen"])

    @staticmethod
    def _keys(rollout: Rollout) -> list[str]:
        return [f"{question}\n{answer}" for question, answer in zip(rollout.questions, rollout.answers, strict=True)]


if __name__ == "__main__":
    config = RunConfig(output_dir="outputs/own_bonus", bs=4, num_generations=8, L=64, max_steps=10, learning_rate=2e-4)
    reward = CountdownReward()  # logs each completion's answer, which the bonus reads
    trainer = IntrinsicGRPOTrainer("tiny", reward_funcs=reward, args=config, train_dataset=rows, bonuses=NewAnswer())
    trainer.train()

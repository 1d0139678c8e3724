"""GRPO with a reward of your own and the bonus knn+, on the embedded policy: python examples/own_reward.py"""

from tasks.countdown.problems import ProblemSpace, add_prompts, generate
from training.run_options import RunConfig
from training.trainer import IntrinsicGRPOTrainer

rows = add_prompts(generate(200, "train", seed=0, space=ProblemSpace(3, 3, 15, max_value=99)), style="chat")


def multiplies(completions, **columns):
    """1 for an answer that multiplies, else 0. The columns of the rows (numbers, target) come as keywords."""
    return [float("*" in completion[-1]["content"].partition("<answer>")[2]) for completion in completions]


if __name__ == "__main__":
    config = RunConfig(output_dir="outputs/own_reward", bs=4, num_generations=8, L=64, max_steps=10, learning_rate=2e-4)
    trainer = IntrinsicGRPOTrainer("tiny", reward_funcs=multiplies, args=config, train_dataset=rows, bonuses="knn+")
    trainer.train()
    trainer.save_model("outputs/own_reward/final")

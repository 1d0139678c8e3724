"""What benchmarks.peak reads in a dry run, and its table; the folder of a policy that every script loads."""

import pytest
from transformers import AutoModelForCausalLM

from benchmarks.peak import read, table
from benchmarks.shapes import Shape, save_llama
from policy.load import load_tokenizer

ESTIMATE = "weights                  1.84 GiB\nat most at once                                     12.50 GiB\n"
PEAK = "measured peak on the worst batch                    11.25 GiB"


@pytest.mark.parametrize(
    ("printed", "measured", "row"),
    [
        (ESTIMATE + PEAK, 11.25, "| 0.5b | full | 12.50 | 11.25 | 0.90 |"),
        (
            f"{ESTIMATE}{PEAK} (1.25 GiB of it before the policy was loaded)",
            10.0,
            "| 0.5b | full | 12.50 | 10.00 | 0.80 |",
        ),
        (ESTIMATE, None, "| 0.5b | full | 12.50 | not tried |  |"),
    ],
)
def test_a_row_is_the_estimate_and_the_peak_of_a_dry_run(printed, measured, row):
    found = read(printed)
    assert found == {"estimated": 12.5, "measured": measured}
    assert table({"0.5b": {"full": found}}).splitlines()[-1] == row


def test_a_saved_shape_is_a_policy_with_the_embedded_tokenizer(tmp_path):
    shape = Shape(1024, 32, 64, 1, 4, 2)
    save_llama(shape, tmp_path)
    policy, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), load_tokenizer(str(tmp_path))
    assert all(getattr(policy.config, name) == size for name, size in shape._asdict().items())
    assert tokenizer.get_vocab() == load_tokenizer("tiny").get_vocab()

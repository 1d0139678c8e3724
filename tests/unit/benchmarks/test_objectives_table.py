"""The table of what each objective pays: the published one, the signs of its other half, and refused flags."""

import pytest

from benchmarks import objectives_table
from benchmarks.objectives_table import Options, table
from common.errors import UserError
from intrinsic.parts.count_objective import grpo_advantages

PUBLISHED = """
| 1 | 2.474 | 7.000 | 1.554 | 2.314 | 1.732 | .1 |
| 3 | 1.207 | 1.667 | .588 | .955 | .745 | .1 |
| 5 | .724 | .600 | .240 | .444 | .346 | .1 |
| 7 | .353 | .143 | .061 | .125 | 0 | .1 |
"""


def rows_of(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()]


def test_it_is_the_published_table(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["objectives_table"])
    objectives_table.main()
    right, wrong = capsys.readouterr().out.split("Advantage of a wrong answer:")
    head, _, *rows = rows_of(right.split("Advantage of a right answer:")[1])
    assert head == ["right of 8", "GRPO", "MaxRL", "risk 2", "focal 0.5", "pass@2", "NSR 0.1"]
    assert [list(map(float, row)) for row in rows] == [list(map(float, row)) for row in rows_of(PUBLISHED)]
    assert all(float(cell) <= 0 for row in rows_of(wrong)[2:] for cell in row[1:])


def test_settings_show_in_the_heading_and_groups_of_one_verdict_have_no_other():
    options = Options(num_generations=4, right="0,4", maxrl_order=3, passk_k=3, focal_gamma=1.0)
    assert table(options, "right").splitlines()[0] == (
        "| right of 4 | GRPO | MaxRL order 3 | risk 2 | focal 1 | pass@3 | NSR 0.1 |"
    )
    assert table(options, "right").splitlines()[2] == "| 0 | - | - | - | - | - | - |"
    assert table(options, "wrong").splitlines()[2] == "| 0 | 0.000 | -2.000 | 0.000 | 0.000 | 0.000 | -1.000 |"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num_generations": 1}, "--num_generations=1"),
        ({"right": "1,x"}, "--right='1,x'"),
        ({"right": "9"}, "9 is not between"),
        ({"passk_k": 8}, "--passk_k=8"),
        ({"maxrl_order": 9}, "--maxrl_order=9"),
    ],
)
def test_bad_flags_are_refused(flags, message):
    with pytest.raises(UserError, match=message):
        table(Options(**flags), "right")


def test_grpo_is_trls_z():
    assert grpo_advantages(8, 3) == pytest.approx((1.207381, -0.724429), abs=1e-6)
    assert grpo_advantages(8, 0) == grpo_advantages(8, 8) == grpo_advantages(1, 1) == (0.0, 0.0)

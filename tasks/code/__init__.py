"""Code: functions judged by asserts (HumanEval, MBPP), programs judged by their output."""

"""Comparison of what two runs are left with."""

import pytest
import torch

# Sums over six rows and six more differ from sums over twelve in the last bits of float32.
ATOL, RTOL = 1e-5, 1e-4


def assert_close(first, second) -> None:
    """Nested dicts and lists: equal structure, texts and counts, floats and tensors within rounding."""
    _compare(first, second, "", _close)


def assert_same_bits(first, second) -> None:
    """Nested dicts and lists: equal in structure and in every bit."""
    _compare(first, second, "", _same_bits)


def _compare(first, second, path: str, compare_leaf) -> None:
    assert type(first) is type(second), path
    if isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for key in first:
            _compare(first[key], second[key], f"{path}/{key}", compare_leaf)
    elif isinstance(first, list):
        assert len(first) == len(second), path
        for index, pair in enumerate(zip(first, second, strict=True)):
            _compare(*pair, f"{path}/{index}", compare_leaf)
    else:
        compare_leaf(first, second, path)


def _close(first, second, path: str) -> None:
    if isinstance(first, torch.Tensor):
        scale = (
            max(1.0, float(first.detach().abs().max())) if first.numel() else 1.0
        )  # small entries, sums of large ones
        torch.testing.assert_close(first, second, atol=ATOL * scale, rtol=RTOL, msg=lambda text: f"{path}: {text}")
    elif isinstance(first, float):
        assert first == pytest.approx(second, abs=ATOL, rel=RTOL), path
    else:
        assert first == second, path


def _same_bits(first, second, path: str) -> None:
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), path
    else:
        assert first == second, path

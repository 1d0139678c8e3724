"""Completions of a run with each token coloured by a quantity, as one self-contained HTML page.

python -m analysis.token_map --run outputs/countdown/RUN --model_name outputs/countdown/RUN/final --out map.html
"""

import math
from dataclasses import MISSING, dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb

from analysis.completions import CompletionFile, read_completions
from analysis.pages import render_page
from analysis.token_map.values import TokenBatch, TokenFeatures, bonus_values, load_token_bonus, tokenize
from common.devices import default_device
from common.errors import UserError
from common.files import write_text
from common.flags import OutputFile, check_choices, check_least, flag, parse_one
from intrinsic import parse_names
from policy.load import load_policy, load_tokenizer
from policy.precision import NAMES
from policy.setup_line import announced_setup, unseen_gpu

LEVELS = 8
TAIL = 2.0  # per cent of the tokens at either end that share the end colours, so that one outlier bleaches no page
COLORMAP = "YlGnBu"  # sequential and colour-blind safe; reversed for a dark page, so that "much" always stands out
QUANTITIES = {
    "entropy": ("entropy", "nats", "Entropy of the distribution the token was sampled from: how open the choice was."),
    "self_certainty": (
        "self-certainty",
        "nats",
        "KL divergence from the uniform distribution to the one the token was sampled from (INTUITOR, equation 4).",
    ),
    "logps": ("log-probability", "nats", "Log-probability of the token itself; low ones came as a surprise."),
}


@dataclass(frozen=True)
class Scale:
    """Colour levels 0 to LEVELS - 1 of equal width between ``low`` and ``high``; beyond them the end levels."""

    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Scale":
        """From the ``TAIL`` to the 100 - ``TAIL`` percentile of the finite ``values``; 0 to 0 where there are none."""
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, [TAIL, 100 - TAIL]) if len(finite) else (0.0, 0.0)
        return cls(float(low), float(high))

    def level(self, value: float) -> int | None:
        """The level of a value, None where it is not finite."""
        if not math.isfinite(value):
            return None
        if self.high <= self.low:
            return 0
        return int(np.clip((value - self.low) / (self.high - self.low) * LEVELS, 0, LEVELS - 1))

    def legend(self) -> list[dict]:
        """The levels with the numbers they stand for."""
        if self.high <= self.low:
            return [{"level": 0, "label": f"{self.low:.3g}"}]
        edges = np.linspace(self.low, self.high, LEVELS + 1)
        labels = [f"{start:.3g} to {end:.3g}" for start, end in zip(edges, edges[1:], strict=False)]
        labels[0], labels[-1] = f"below {edges[1]:.3g}", f"above {edges[-2]:.3g}"
        return [{"level": level, "label": label} for level, label in enumerate(labels)]


def palette(dark: bool) -> list[tuple[str, str]]:
    """(background, text) of each level as CSS colours."""
    spread = np.linspace(0.04, 0.92, LEVELS)
    backgrounds = [colormaps[COLORMAP](1 - place if dark else place) for place in spread]
    return [(to_hex(background), _readable_on(to_hex(background))) for background in backgrounds]


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two CSS colours, 1 to 21 (WCAG 2.2)."""
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return float(np.dot(channels, (0.2126, 0.7152, 0.0722)))


def _readable_on(background: str) -> str:
    return max(("#000000", "#ffffff"), key=lambda text: contrast(text, background))


def token_map(batch: TokenBatch, values: torch.Tensor, quantity: tuple[str, str, str], title: str, note: str) -> str:
    """The page as HTML.

    Args:
        values: (B, T); those of padding are not looked at.
        quantity: name, unit and a sentence on what it says.
        title, note: what the completions are, and of which model.
    """
    rows = [row[: len(texts)] for row, texts in zip(values.float().cpu().numpy(), batch.pieces, strict=True)]
    scale = Scale.of(np.concatenate(rows))
    name, unit, meaning = quantity
    items = []
    for completion, texts, row in zip(batch.completions, batch.pieces, rows, strict=True):
        tokens = [
            {"text": _visible(text), "level": scale.level(value), "hover": f"{name} {value:.4g} {unit}\ntoken {text!r}"}
            for text, value in zip(texts, row, strict=True)
        ]
        mean = f"{float(np.mean(row)):.3g}" if len(row) else "-"
        items.append({"completion": completion, "tokens": tokens, "mean": mean})
    return render_page(
        "token_map.html",
        title=title,
        note=note,
        name=name,
        unit=unit,
        meaning=meaning,
        items=items,
        legend=scale.legend(),
        light=palette(dark=False),
        dark=palette(dark=True),
    )


def _visible(piece: str) -> str:
    """The text of a token so that its colour can be seen: line breaks get a sign, a part of a character a dot."""
    return piece.replace("\n", "\u21b5\n") or "\u00b7"


@dataclass
class TokenMapOptions:
    """Which completions are painted, by which policy, and by what."""

    run: str = flag(MISSING, "Run folder (its last training batch), a completions/*.parquet or eval/*.json.")
    out: OutputFile = flag(MISSING, "HTML file to write.")
    model_name: str = flag(
        "", "Policy that judges the tokens: folder, hub name, smollm2 or tiny. Unset: the one they are of."
    )
    quantity: str = flag("entropy", f"What to paint: {', '.join(QUANTITIES)}.")
    bonus: str = flag("", "Paint this token-level bonus instead, with its state in the checkpoint --model_name.")
    limit: int = flag(8, "Completions to show, right and wrong ones in turn.")

    def __post_init__(self):
        check_choices(self, quantity=QUANTITIES)
        check_least(self, limit=1)
        if self.bonus and len(parse_names(self.bonus)) != 1:
            raise UserError(f"--bonus={self.bonus!r} must be the name of one bonus.")


def write_token_map(options: TokenMapOptions) -> Path:
    """Read completions, judge their tokens, write the page; returns its path. Raises `UserError` on bad input."""
    file = read_completions(options.run)
    model_name = options.model_name or file.model_name
    temperature = file.options.get("grpo", {}).get("temperature", 1.0)
    batch, values, quantity = _judge(options, file, model_name, temperature)
    note = (
        f"Judged by {model_name} at temperature {temperature:g}. "
        "The text is split into tokens anew, which may differ from how it was sampled. Hover a token for its value."
    )
    path = Path(options.out)
    write_text(path, token_map(batch, values, quantity, f"Completions of {file.label}", note))
    return path


def _judge(
    options: TokenMapOptions, file: CompletionFile, model_name: str, temperature: float
) -> tuple[TokenBatch, torch.Tensor, tuple[str, str, str]]:
    """(tokens, values (B, T), quantity) of the picked completions."""
    saved, longest = file.options.get("intrinsic", {}), file.options.get("grpo", {}).get("max_completion_length")
    bonus = load_token_bonus(options.bonus, model_name, saved) if options.bonus else None
    device = default_device()
    tokenizer = load_tokenizer(model_name, file.template_kwargs)
    batch = tokenize(file.pick(options.limit), tokenizer, longest, device)
    policy = load_policy(model_name).eval().to(device)
    announced_setup(policy, NAMES[policy.dtype], "none")
    features = TokenFeatures(policy, file.options.get("run", {}).get("model_name"), temperature)
    if bonus is not None:
        values = bonus_values(bonus, batch, features, tokenizer)
        return batch, values, (bonus.name, "", f"The bonus {bonus.name} of each token.")
    return batch, features(batch, frozenset({options.quantity}))[options.quantity], QUANTITIES[options.quantity]


def main() -> None:
    options = parse_one(TokenMapOptions)
    if warning := unseen_gpu():
        print(warning, flush=True)
    print(write_token_map(options))

"""``--help``: the flags of a script in the groups of the pipeline, printed before anything large is imported.

What a page says comes from the dataclasses of the flags, whose import takes seconds. So each page is kept in
``cli/pages/`` with digests of the files that it was made of, and is made again where one of them has changed.
"""

import json
import shutil
import sys
from argparse import ArgumentParser, HelpFormatter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import NoneType
from typing import Any

from common.config_file import check_keys, preset_names, read_config
from common.errors import UserError, discard_stdout
from common.files import write_text
from common.yaml_flags import as_defaults, read_mapping

ROOT = Path(__file__).resolve().parent.parent
PAGES = Path(__file__).parent / "pages"
PACKAGES = ("transformers", "trl")  # whose own flags a page shows
TASK, POLICY, BONUSES = "task and data", "policy", "bonuses"
OTHER = "other flags of TRL and transformers"
# Flags by group, in the order they are shown in; `group_of` places those that stand in no line.
_NAMED = {
    TASK: "data max_prompt_length",
    POLICY: "model_name",
    "generation": "L num_generations temperature top_p top_k min_p repetition_penalty generation_batch_size "
    "sampling_batch mask_truncated_completions use_vllm vllm_mode vllm_gpu_memory_utilization",
    "rewards": "reward format_weight execute_weight reward_func reward_func_weight reward_legacy countdown_strict_line "
    "scale_rewards",
    BONUSES: "use_ir ir_weight ir_schedule ir_warmup_steps ir_clip ir_min_std match_mass",
    "optimisation": "bs gc micro_batch nepochs max_steps num_iterations learning_rate lr_scheduler_type warmup_steps "
    "optim adam_beta1 adam_beta2 adam_epsilon weight_decay max_grad_norm beta epsilon epsilon_high loss_type "
    "importance_sampling_level entropy_coef use_adaptive_entropy entropy_target top_entropy_quantile bf16 fp16 "
    "gradient_checkpointing seed",
    "evaluation": "do_eval eval_steps eval_problems eval_samples eval_batch_size eval_temperature eval_greedy",
    "logging and checkpoints": "output_dir run_name project report_to logging_steps log_completions save_strategy "
    "save_steps keep_checkpoints resume stop_on_collapse dry_run",
}
GROUPS = tuple(_NAMED)
GROUP_OF = {name: group for group, names in _NAMED.items() for name in names.split()}
_WIDTH = 120
_HELP = ("-h", "--help", "--help_all", "--help-all")
_TYPES = {kind.__name__: kind for kind in (bool, int, float, str, list, dict, NoneType)}


@dataclass(frozen=True)
class FlagHelp:
    """A flag as a page shows it.

    Attributes:
        owners: the bonuses it is for; none for one that every run has.
        kinds, item, empty: what it takes in a YAML file, see `common.yaml_flags.Flag`: names of types, that of a list's
            items, and whether its default is the empty text.
    """

    name: str
    group: str
    help: str
    default: str
    metavar: str
    owners: list[str]
    kinds: list[str]
    item: str
    empty: bool


@dataclass(frozen=True)
class Page:
    """All that ``--help`` of a script says.

    Attributes:
        task: whose files in configs/ hold the script's own defaults; "" for none.
        embedded: the names of the embedded policies, the default first. aliases: of bonuses. rule: how a run is named.
        hidden: flags of TRL that are not shown -> what sets them.
        sources, packages: digest of each file, and version of each package, that the page was made of.
    """

    script: str
    task: str
    embedded: list[str]
    aliases: dict[str, str]
    rule: str
    hidden: dict[str, str]
    flags: list[FlagHelp]
    sources: dict[str, str]
    packages: dict[str, str]

    def save(self) -> None:
        """Keep the page for next time; where it cannot be written, say so on stderr and go on."""
        file = page_file(self.script)
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
        try:
            write_text(file, text)
        except OSError as error:
            why = f"{file} cannot be written ({error.strerror}), so the next --help takes as long as this one"
            print(f"warning: {why}.", file=sys.stderr)

    @property
    def is_fresh(self) -> bool:
        """Whether nothing that it was made of has changed since."""
        try:
            packages = {name: version(name) for name in self.packages}
        except PackageNotFoundError:
            return False
        return packages == self.packages and all(digest(ROOT / name) == kept for name, kept in self.sources.items())


def digest(file: Path) -> str:
    """Of the bytes of ``file``; empty where it is not there."""
    return sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else ""


def page_file(script: str) -> Path:
    """Where the page of ``script`` is kept."""
    return PAGES / f"{Path(script).stem}.json"


def load_page(script: str) -> Page | None:
    """The page kept for ``script`` where it is fresh, else None: so too where it is damaged, or has other fields."""
    file = page_file(script)
    if not file.is_file():
        return None
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        page = Page(**saved | {"flags": [FlagHelp(**flag) for flag in saved["flags"]]})
        return page if page.is_fresh else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def answer_help(script: str) -> None:
    """Print the page of ``script`` and exit, if the command line asks for it and a fresh one is kept.

    Else it is for the parser of all flags to print it, or to say what is wrong with the other flags.
    """
    if not set(_HELP) & set(sys.argv[1:]):
        return
    page = load_page(script)
    if page is None:
        return
    try:
        text = page_text(page, sys.argv[1:])
    except UserError:
        return
    show(text)
    sys.exit(0)


def show(text: str) -> None:
    """Print ``text``; a reader such as ``head`` that has enough of it ends nothing in an error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard_stdout()


def page_text(page: Page, arguments: list[str]) -> str:
    """The text of ``page`` for a command line: with the defaults and bonuses that it names.

    Raises `UserError` for a file of flags that cannot be read.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("config", "model_name", "use_ir"):
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}")
    asked, _ = parser.parse_known_args(arguments)
    known = {flag.name: _Known(flag) for flag in page.flags}
    from_file = read_config(asked.config, page.script) if asked.config else {}
    check_keys(from_file, known, page.hidden, asked.config)
    defaults = as_defaults(from_file, known, asked.config or "")
    if page.task:
        policy = asked.model_name or defaults.get("model_name", page.embedded[0])
        own = ROOT / "configs" / f"{page.task}{'_tiny' if policy in page.embedded else ''}.yaml"
        defaults = as_defaults(read_mapping(own), known, own) | defaults
    use_ir = asked.use_ir or defaults.get("use_ir", "no")
    names = {page.aliases.get(name, name) for part in use_ir.split(",") for name in part.strip().split(":")}
    everything = bool({"--help_all", "--help-all"} & set(arguments))
    return format_page(page, defaults, everything, names)


class _Known:
    """A flag of a page, for `common.yaml_flags.as_defaults`."""

    def __init__(self, flag: FlagHelp):
        self.kinds = {_TYPES[name] for name in flag.kinds}
        self.item = _TYPES.get(flag.item)
        self.default = "" if flag.empty else None


def format_page(page: Page, defaults: Mapping[str, Any], everything: bool, bonuses: Collection[str] = ()) -> str:
    """What ``--help`` prints: flags with their sentences and defaults, by group.

    The group `OTHER`, and flags of other bonuses than ``bonuses``, only if ``everything``. ``defaults``: values that
    take the place of the dataclasses' own, from the script's configuration and ``--config``.
    """
    width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)
    parser = ArgumentParser(
        prog=f"python {page.script}",
        usage=f"python {page.script} [--config FILE] [--flag value ...]",
        description="Defaults are those for the policy and the --config file named on this command line.",
        formatter_class=partial(HelpFormatter, width=width, max_help_position=28),
        epilog=f"Run folder: outputs/<task>/<run name>, the run name being {page.rule}. --run_name gives another name, "
        "--output_dir another folder.",
        add_help=False,
    )
    script_flags = parser.add_argument_group("this script")
    script_flags.add_argument(
        "--config",
        metavar="FILE",
        help=_escape(
            "YAML file of flags, which flags on the command line win over; presets of published recipes are "
            f"configs/presets/NAME.yaml with NAME one of {', '.join(preset_names())}."
        ),
    )
    script_flags.add_argument("-h", "--help", action="store_true", help="Print this, with the defaults in force.")
    script_flags.add_argument("--help_all", action="store_true", help=f"The same, flags of all bonuses, and {OTHER}.")
    for title in GROUPS if not everything else (*GROUPS, OTHER):
        note = None if everything or title != BONUSES else "A bonus that --use_ir names shows its flags too."
        group = parser.add_argument_group(title, note)
        for flag in page.flags:
            if flag.group != title or not (everything or not flag.owners or set(flag.owners) & set(bonuses)):
                continue
            default = shown(defaults[flag.name]) if flag.name in defaults else flag.default
            group.add_argument(f"--{flag.name}", metavar=flag.metavar, help=_escape(f"{flag.help} [{default}]"))
    return parser.format_help()


def shown(value: Any) -> str:
    """``value`` as one would type it after its flag; "unset" for None and the empty text."""
    if value is None or value == "":
        return "unset"
    if isinstance(value, list):
        return " ".join(map(shown, value)) or "none"
    if isinstance(value, Enum):
        return str(value.value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _escape(text: str) -> str:
    """``text`` without runs of blanks, for argparse, which formats with %; some of transformers' are so already."""
    return " ".join(text.split()).replace("%%", "%").replace("%", "%%")

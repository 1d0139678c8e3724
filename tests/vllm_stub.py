"""A stand-in for vLLM below TRL's own calling code: an engine in this process, and a server with its client.

It loads a policy from its folder as vLLM does, gets trained weights only through the calls that TRL makes, and samples
from what it then holds, so that the log-probabilities it returns are those of its weights. What vLLM 0.30 does and the
project relies on is done here too: a colocated engine sets the random state of the process when it is built and draws a
seed for each request from numpy's; end tokens are those of the policy's folder and of ``stop_token_ids``, and are
returned; level 2 of sleep loses the weights.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from trl.generation import vllm_generation

from policy.load import EMBEDDED
from policy.padding import pad_tokens


@dataclass
class SamplingParams:
    """The parameters of vLLM's class that TRL and the project set; any other name is an error, as it is there."""

    n: int = 1
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 16
    min_tokens: int = 0
    logprobs: int | None = None
    stop_token_ids: list[int] = field(default_factory=list)


class Engine:
    """Weights, sampling, and a record of what was asked of them.

    Attributes:
        syncs: complete deliveries of weights.
        prompts: token ids of every prompt sampled from, in order.
        params: parameters of every call.
        skew: added to every log-probability that is returned, as an engine with other arithmetic would be off.
    """

    def __init__(self, folder: str):
        self.policy = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
        self.weights = dict(self.policy.named_parameters())
        self.syncs, self.prompts, self.params, self.skew = 0, [], [], 0.0

    def load_weights(self, weights) -> None:
        with torch.no_grad():
            for name, value in weights:
                assert value.shape == self.weights[name].shape
                self.weights[name].copy_(value)

    def lose_weights(self) -> None:
        with torch.no_grad():
            for weight in self.weights.values():
                weight.fill_(float("nan"))

    @torch.no_grad()
    def sample(self, prompts: list[list[int]], params: SamplingParams, draw) -> list[SimpleNamespace]:
        """``params.n`` completions of each prompt; ``draw()`` gives a seed for each."""
        self.prompts.extend(prompts)
        self.params.append(params)
        eos = self.policy.generation_config.eos_token_id
        stops = {*(eos if isinstance(eos, list) else [eos]), *params.stop_token_ids}
        rows = [prompt for prompt in prompts for _ in range(params.n)]
        generators = [torch.Generator().manual_seed(draw()) for _ in rows]
        tokens: list[list[int]] = [[] for _ in rows]
        logprobs: list[list[dict]] = [[] for _ in rows]
        running = list(range(len(rows)))
        while running:
            logps = self._next_logps([rows[row] + tokens[row] for row in running], params)
            for row, values in zip(list(running), logps, strict=True):
                if len(tokens[row]) < params.min_tokens:
                    values[list(stops)] = -torch.inf
                token = int(torch.multinomial(values.exp(), 1, generator=generators[row]))
                tokens[row].append(token)
                logprobs[row].append({token: SimpleNamespace(logprob=values[token].item() + self.skew, rank=1)})
                if token in stops or len(tokens[row]) == params.max_tokens:
                    running.remove(row)
        completions = [SimpleNamespace(token_ids=ids, logprobs=of) for ids, of in zip(tokens, logprobs, strict=True)]
        return [
            SimpleNamespace(prompt_token_ids=prompt, outputs=completions[index * params.n : (index + 1) * params.n])
            for index, prompt in enumerate(prompts)
        ]

    def _next_logps(self, texts: list[list[int]], params: SamplingParams) -> torch.Tensor:
        """(rows, vocabulary) log-probabilities of the token behind each of ``texts``."""
        ids, mask = pad_tokens(texts, "left", 0, "cpu")
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        logits = self.policy(input_ids=ids, attention_mask=mask.long(), position_ids=positions, use_cache=False).logits
        return (logits[:, -1].float() / params.temperature).log_softmax(-1)


class LLM:
    """vLLM's offline engine, as far as TRL's colocate mode reaches into it."""

    def __init__(self, model: str, seed: int, enable_sleep_mode: bool = False, max_model_len=None, **settings):
        self.engine, self.sleeps = Engine(model), enable_sleep_mode
        worker = SimpleNamespace(model_runner=SimpleNamespace(model=self.engine))
        self.llm_engine = SimpleNamespace(model_executor=SimpleNamespace(driver_worker=worker))
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def generate(self, prompts: list[dict], sampling_params: SamplingParams, use_tqdm: bool) -> list[SimpleNamespace]:
        ids = [prompt["prompt_token_ids"] for prompt in prompts]
        return self.engine.sample(ids, sampling_params, lambda: int(np.random.randint(2**31)))

    def reset_prefix_cache(self) -> None:
        self.engine.syncs += 1  # what TRL does last in a delivery of weights

    def sleep(self, level: int) -> None:
        assert self.sleeps and level == 2
        self.engine.lose_weights()

    def wake_up(self, tags: list[str]) -> None:
        assert self.sleeps and tags in (["weights"], ["kv_cache"])


class Client:
    """`trl.generation.vllm_client.VLLMClient` with the server of `standing_in` behind it; `served` is its folder."""

    served = str(EMBEDDED)

    def __init__(self, base_url: str, group_port: int, connection_timeout: float):
        self.engine, self.random = Engine(self.served), np.random.RandomState(0)

    def init_communicator(self, device) -> None:
        pass

    def get_server_info(self) -> dict:
        return {"model_config": {"logprobs_mode": "processed_logprobs"}}

    def update_named_params(self, metadata: list, named_params: Iterator) -> None:
        for (name, dtype, shape), (sent, value) in zip(metadata, named_params, strict=True):
            assert (name, dtype, shape) == (sent, str(value.dtype).removeprefix("torch."), list(value.shape))
            self.engine.load_weights([(sent, value)])

    def reset_prefix_cache(self) -> None:
        self.engine.syncs += 1

    def generate(self, prompts, features, structured_outputs_regex, generation_kwargs, **settings) -> dict:
        params = SamplingParams(**settings | generation_kwargs)
        outputs = self.engine.sample(prompts, params, lambda: int(self.random.randint(2**31)))
        completions = [completion for output in outputs for completion in output.outputs]
        logprobs = [[[item.logprob for item in step.values()] for step in one.logprobs] for one in completions]
        return {"prompt_ids": prompts, "completion_ids": [one.token_ids for one in completions], "logprobs": logprobs}


def standing_in():
    """A patch, to be entered or started, under which TRL finds a vLLM: this one."""
    replaced = {"LLM": LLM, "SamplingParams": SamplingParams, "VLLMClient": Client, "is_vllm_available": lambda: True}
    return mock.patch.multiple(vllm_generation, create=True, **replaced)


@contextmanager
def own_environment() -> Iterator[None]:
    """To build a trainer in: the variables that TRL sets for vLLM would make the next one of this process a rank."""
    with mock.patch.dict(os.environ):
        yield


def engine_of(trainer) -> Engine:
    """The engine that samples for ``trainer``, in this process or behind its client."""
    generation = trainer.vllm_generation
    return generation.llm.engine if generation.mode == "colocate" else generation.vllm_client.engine

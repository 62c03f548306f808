"""Sampling by vLLM in this process (extra `vllm`, on a GPU): the same interface as a server's, without HTTP.

The base model is loaded once; the adapter in training is brought as a new LoRA request before each set of samples. Log-
probabilities are not taken from there: the policy itself scores what was drawn.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paperworks.core.errors import OptionError, RunError
from paperworks.core.seeding import derive_seed
from paperworks.language.data.schemas import Text
from paperworks.language.models import resolve
from paperworks.language.policy import Policy
from paperworks.language.sampling import Samples, end_tokens
from paperworks.language.vllm_server import sample_of

MEMORY_SHARE = 0.4  # of the GPU, for the engine's weights and cache; the rest is training's


class VllmEngine:
    """vLLM's engine for the model `name`, with adapters of up to `rank`, kept below `folder`.

    Raises OptionError where vLLM is not installed, RunError where the engine does not start.
    """

    def __init__(self, name: str, folder: str | Path, *, rank: int) -> None:
        try:
            from vllm import LLM, SamplingParams
            from vllm.lora.request import LoRARequest
        except ImportError:
            raise OptionError(
                "--vllm: vLLM is not installed here; install paperworks[vllm], or give --vllm-url"
            ) from None
        self._params, self._request, self._folder = SamplingParams, LoRARequest, Path(folder)
        self._adapter: Any = None
        self._number = 0
        try:
            self._engine = LLM(
                model=str(resolve(name)),
                enable_lora=True,
                max_lora_rank=max(8, rank),
                gpu_memory_utilization=MEMORY_SHARE,
                generation_config="vllm",  # what a model's generation_config.json says does not count
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise RunError(f"--vllm: the engine does not start ({str(error).splitlines()[0][:200]})") from error

    def synchronise(self, policy: Policy) -> None:
        """Bring the engine the adapter as it is now. Raises OptionError for a policy without adapters."""
        if not policy.has_adapters:
            raise OptionError("vLLM takes adapters alone: train with --lora")
        self._number += 1
        folder = (self._folder / f"adapter-{self._number}").resolve()
        policy.save(folder)
        self._adapter = self._request(folder.name, self._number, str(folder))
        shutil.rmtree(self._folder / f"adapter-{self._number - 1}", ignore_errors=True)

    def sample(
        self,
        policy: Policy,
        prompts: Sequence[Text],
        prompt_ids: Sequence[Sequence[int]],
        *,
        n: int,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
        adapted: bool = True,
    ) -> list[Samples]:
        """`n` responses to every prompt, by the adapter brought last, or by the base where not `adapted`.

        The samples bring no log-probabilities: score them.
        """
        ends = end_tokens(policy)
        wanted = [
            self._params(
                n=n,
                max_tokens=min(max_new_tokens, policy.context_length - len(ids)),
                temperature=temperature,
                top_p=1.0,
                top_k=top_k or -1,
                repetition_penalty=1.0,
                seed=derive_seed(seed, "vllm", index) % 2**31,
                stop_token_ids=ends,
                detokenize=False,
            )
            for index, ids in enumerate(prompt_ids)
        ]
        found = self._engine.generate(
            [{"prompt_token_ids": list(ids)} for ids in prompt_ids],
            wanted,
            lora_request=self._adapter if adapted else None,
            use_tqdm=False,
        )
        return [
            Samples(
                prompt,
                tuple(
                    sample_of(policy, list(each.token_ids), each.finish_reason == "stop", ends) for each in one.outputs
                ),
            )
            for prompt, one in zip(prompts, found, strict=True)
        ]

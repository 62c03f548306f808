"""A reward for every token out of a DPO model's log-ratios (RTO, arXiv 2404.18922, Eq. 4.7).

    r_h = clamp(beta1 log[pi_dpo / pi_ref]) - beta2 log[pi / pi_ref] + [h last] beta3 r(x, y)

Flat token tensors, responses one after another, `response` the response that each token belongs to: padding does not
exist. All of it is data for the policy update, so the tensors carry no gradient. The denominator is the reference of the
DPO model, never the policy in training. Advantages are credit's affair.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.core.options import check_ranges, option
from paperworks.language.data.schemas import Text
from paperworks.language.logprobs import Tree
from paperworks.language.online.credit import last_of
from paperworks.language.policy import Policy

Granularity = Literal["token", "delimiter", "sequence"]


@dataclass(frozen=True)
class TokenRewardOptions:
    """RTO's reward (defaults of the released code). beta1=0 is PPO's reward."""

    beta1: float = option(0.05, "weight of log pi_dpo - log pi_ref", low=0)
    token_clip: float | None = option(
        0.05, "the weighted log-ratio of a token is held within +-this; none: as it is", above=0
    )
    beta2: float = option(0.01, "weight of the policy's own log-ratio to the reference, which is taken off", low=0)
    beta3: float = option(1.0, "weight of the response's reward, on its last token; 0 needs none", low=0)
    reward_clip: float | None = option(10.0, "the response's reward is held within +-this; none: as it is", above=0)
    granularity: Granularity = option(
        "token", "rewards on each token, summed up to delimiters (Semi-RTO), or all on the last token (DDPO)"
    )
    delimiters: tuple[int, ...] = option((), "token ids that end a stretch, with granularity=delimiter")
    shaping_only: bool = option(
        False, "take the token terms off again at the last token: they move reward and add none (our reading of RS-PPO)"
    )

    def __post_init__(self) -> None:
        check_ranges(self, what="token rewards")
        if self.granularity not in ("token", "delimiter", "sequence"):
            raise OptionError(f"token rewards: granularity={self.granularity}: expected token, delimiter or sequence")
        if (self.granularity == "delimiter") != bool(self.delimiters):
            raise OptionError(
                f"token rewards: granularity={self.granularity} with {len(self.delimiters)} delimiters; expected delimiters "
                "(token ids) with granularity=delimiter and only there"
            )


@dataclass(frozen=True)
class TokenRewards:
    """The rewards of all tokens and what they are made of: values = terms - kl + last."""

    values: Float[Tensor, " tokens"]
    terms: Float[Tensor, " tokens"]  # of the DPO model: weighted, clamped, summed to where they are paid
    kl: Float[Tensor, " tokens"]  # beta2 times the policy's log-ratio
    last: Float[Tensor, " tokens"]  # the response's reward, on last tokens
    clamped: Bool[Tensor, " tokens"]  # tokens whose weighted log-ratio was outside +-token_clip
    response: Int[Tensor, " tokens"]

    def figures(self) -> dict[str, float]:
        """Means over responses for logs: the term sums and their size beside that of r; the share of tokens clamped."""
        responses = int(self.response.max()) + 1 if len(self.response) else 0
        if not responses:
            return {}

        def sums(values: Tensor) -> Tensor:
            return values.new_zeros(responses).index_add(0, self.response, values)

        terms, last = sums(self.terms), sums(self.last)
        return {
            "token_terms": terms.mean().item(),
            "token_terms_size": sums(self.terms.abs()).mean().item(),
            "token_term_max": self.terms.abs().max().item(),
            "token_terms_clamped": self.clamped.float().mean().item(),
            "reward_size": last.abs().mean().item(),
        }

    def notes(self) -> list[str]:
        """One line each on what makes the rewards useless or lets the DPO model overrule the reward."""
        figures = self.figures()
        if not figures:
            return []
        if figures["token_term_max"] == 0:
            return [
                "token rewards: all are 0, the DPO model gives the reference's own log-probabilities (or beta1 is 0)"
            ]
        terms, reward = figures["token_terms_size"], figures["reward_size"]
        if reward and terms > reward:
            return [
                f"token rewards: their sizes sum to {terms / reward:.2g} times that of the response's reward; the policy will "
                "imitate the DPO model and grow longer: lower beta1 or token_clip"
            ]
        return []


@torch.no_grad()
def token_terms(
    dpo: Float[Tensor, " tokens"],
    reference: Float[Tensor, " tokens"],
    response: Int[Tensor, " tokens"],
    options: TokenRewardOptions = TokenRewardOptions(),
    *,
    token_ids: Int[Tensor, " tokens"] | None = None,
) -> tuple[Float[Tensor, " tokens"], Bool[Tensor, " tokens"]]:
    """beta1 * (dpo - reference) of every token, scaled first, then clamped, then summed to where it is paid.

    Also which tokens were clamped. Clamping before summing gives all granularities the same total. `token_ids` are needed
    with granularity=delimiter: what follows a response's last delimiter is paid on its last token.
    """
    scaled = options.beta1 * (dpo - reference)
    clip = options.token_clip
    terms = scaled if clip is None else scaled.clamp(-clip, clip)
    clamped = torch.zeros_like(response, dtype=torch.bool) if clip is None else scaled.abs() > clip
    ends = last_of(response)
    if options.granularity == "delimiter":
        if token_ids is None:
            raise OptionError("token rewards: granularity=delimiter takes the tokens' ids; give token_ids")
        ends = ends | torch.isin(token_ids, torch.tensor(options.delimiters, device=token_ids.device))
    if options.granularity != "token":
        stretch = ends.long().cumsum(0) - ends.long()  # which stretch a token belongs to; each has one end
        sums = terms.new_zeros(int(ends.sum())).index_add(0, stretch, terms)
        terms = torch.where(ends, sums[stretch], torch.zeros((), dtype=terms.dtype, device=terms.device))
    if options.shaping_only:
        responses = int(response.max()) + 1 if len(response) else 0
        totals = terms.new_zeros(responses).index_add(0, response, terms)
        terms = terms - torch.where(last_of(response), totals[response], torch.zeros_like(terms))
    return terms, clamped


@torch.no_grad()
def rto_rewards(
    dpo: Float[Tensor, " tokens"],
    reference: Float[Tensor, " tokens"],
    policy: Float[Tensor, " tokens"],
    rewards: Float[Tensor, " responses"] | None,
    response: Int[Tensor, " tokens"],
    options: TokenRewardOptions = TokenRewardOptions(),
    *,
    token_ids: Int[Tensor, " tokens"] | None = None,
) -> TokenRewards:
    """The reward of every token from log-probabilities under the DPO model, its reference and the sampling policy.

    rewards: of whole responses, paid on their last token whether it is an end token or the response was cut; None only with
    beta3=0, else OptionError.
    """
    if rewards is None and options.beta3 > 0:
        raise OptionError(
            f"token rewards: beta3={options.beta3:g} weights a reward and there is none; give one, or beta3=0"
        )
    terms, clamped = token_terms(dpo, reference, response, options, token_ids=token_ids)
    kl = options.beta2 * (policy - reference)
    last = torch.zeros_like(terms)
    if rewards is not None and options.beta3 > 0:
        clip = options.reward_clip
        held = rewards if clip is None else rewards.clamp(-clip, clip)
        last = torch.where(last_of(response), (options.beta3 * held)[response].to(terms.dtype), last)
    return TokenRewards(terms - kl + last, terms, kl, last, clamped, response)


def score(
    dpo: Policy,
    reference: Policy,
    prompts: Sequence[Text],
    texts: Sequence[Text],
    options: TokenRewardOptions = TokenRewardOptions(),
) -> list[dict[str, Any]]:
    """The token rewards of texts, one mapping each: `tokens`, `token_reward` (beta2 and beta3 play no part) and `sequence`.

    The end token, "" in `tokens` where the tokenizer hides it, is the last. Raises OptionError where the two models do not
    share a vocabulary.
    """
    check_vocabularies({"the DPO model": dpo, "its reference": reference})
    if len(prompts) != len(texts):
        raise OptionError(f"{len(prompts)} prompts for {len(texts)} texts; expected one each")
    found: list[dict[str, Any]] = []
    for prompt, ids in zip(prompts, dpo.encode_responses(list(texts)), strict=True):
        tree = [Tree(dpo.encode_prompt(prompt), [ids])]
        ours, theirs = dpo.token_logps(tree), reference.token_logps(tree)
        device = ours.values.device
        terms, _ = token_terms(
            ours.values.float(),
            theirs.values.float().to(device),
            ours.response,
            options,
            token_ids=torch.tensor(ids, device=device),
        )
        values = terms.cpu().double()
        found.append(
            {
                "tokens": [dpo.decode([token]) for token in ids],
                "token_reward": values.tolist(),
                "sequence": values.sum().item(),
            }
        )
    return found


def check_vocabularies(models: Mapping[str, Policy]) -> None:
    """Raises OptionError where two models, by what they are for, do not number the same tokens alike."""
    (first, one), *others = models.items()
    for name, other in others:
        if other.tokenizer.get_vocab() != one.tokenizer.get_vocab():
            raise OptionError(
                f"{first} ({one.name}) and {name} ({other.name}) have different vocabularies; token rewards take models of "
                "one tokenizer: train the DPO model from the same start as the policy"
            )


def delimiter_ids(policy: Policy, texts: Collection[str] = (".", "!", "?", "\n")) -> tuple[int, ...]:
    """The ids of all tokens whose text ends with one of `texts`, for granularity=delimiter."""
    size = len(policy.tokenizer)
    return tuple(token for token in range(size) if policy.decode([token]).rstrip(" ").endswith(tuple(texts)))

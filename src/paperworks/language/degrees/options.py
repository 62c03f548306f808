"""The options of the auxiliary degree loss, which joins any objective on pairs or feedback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from paperworks.core.errors import OptionError
from paperworks.core.options import check_ranges, option
from paperworks.language.degrees.ladder import ExtractorName, LadderOptions, Removal

Source = Literal["chosen", "both", "sampled"]
Head = Literal["softmax", "ordinal", "ranking"]


@dataclass(frozen=True)
class DegreeOptions:
    """How a model learns degrees of preference from graded versions of responses (SPO, arXiv 2409.17791).

    That key phrases found by RAKE are removed, and that the loss is joined to an alignment loss, is the paper's; its
    text gives no numbers and not the form of the head, so that every default here is our own decision.
    """

    weight: float = option(0.1, "weight of the degree loss (gamma) beside the objective's own; 0: none", low=0)
    count: int = option(4, "degrees: versions a response, the response itself counted", low=2)
    rho: float = option(1.0, "largest share of key phrases removed", above=0, high=1)
    source: Source = option(
        "chosen",
        "what is graded: chosen (feedback: desirable) responses, both of a pair (all), or one sampled from the start",
    )
    head: Head = option(
        "softmax", "classify degrees, decide each threshold (ordinal), or rank versions by log-ratio (no head)"
    )
    head_lr: float = option(1e-3, "peak learning rate of the head, which starts untrained", above=0)
    removal: Removal = option("key", "what goes: key phrases, as many random words, or masked: key words replaced")
    stop_words: str = option("english", "words that end a phrase: english, short, or a file with a word a line")
    extractor: ExtractorName = option("rake", "how key phrases are found: rake, or tfidf over all responses")
    neutral: str = option("…", "what a key word is replaced by, with removal=masked")
    ranking_beta: float = option(0.1, "reward per nat of log-ratio, with head=ranking", above=0)
    max_new_tokens: int = option(256, "longest sample, with source=sampled", low=1)
    rewards: bool = option(
        True, "report how the objective's own reward ranks the versions (scored under the reference once, beforehand)"
    )

    def __post_init__(self) -> None:
        check_ranges(self, what="degrees")
        for name, allowed in (("source", get_args(Source)), ("head", get_args(Head))):
            if getattr(self, name) not in allowed:
                raise OptionError(f"degrees: {name}={getattr(self, name)}: expected {', '.join(allowed)}")
        self.ladder  # noqa: B018 -- checks what is left

    @property
    def ladder(self) -> LadderOptions:
        """How the versions are made."""
        return LadderOptions(self.count, self.rho, self.removal, self.extractor, self.stop_words, self.neutral)

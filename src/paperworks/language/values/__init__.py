"""Values: what a state is worth, as a head on a language model's hidden states, fitted apart from it or with it."""

from paperworks.language.values.fit import ValueFit, ValueFitOptions, fit_value, predict
from paperworks.language.values.head import ValueHead, ValueHeadOptions
from paperworks.language.values.prompt_states import PromptStates, prompt_states, state_batches

__all__ = [
    "PromptStates",
    "ValueFit",
    "ValueFitOptions",
    "ValueHead",
    "ValueHeadOptions",
    "fit_value",
    "predict",
    "prompt_states",
    "state_batches",
]

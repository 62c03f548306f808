"""Training data for language models: row types, readers that check every row, splits, conversions, label noise."""

from paperworks.language.data.conversation import as_messages, characters, plain_text
from paperworks.language.data.conversions import (
    preferences_to_demonstrations,
    preferences_to_feedback,
    preferences_to_groups,
)
from paperworks.language.data.dataset import Dataset, Report, fingerprint
from paperworks.language.data.label_noise import estimate_flip_rate, flip_preferences
from paperworks.language.data.labelled_sentences import LabelledSentence, read_labelled_sentences
from paperworks.language.data.readers import parse_mapping, read
from paperworks.language.data.schemas import (
    SCHEMAS,
    Demonstration,
    Feedback,
    Forget,
    Graded,
    Message,
    Preference,
    PromptRow,
    QuestionAnswer,
    Retain,
    Scored,
    ScoredGroup,
    Text,
    Where,
)

__all__ = [
    "Dataset",
    "Demonstration",
    "Feedback",
    "Forget",
    "Graded",
    "LabelledSentence",
    "Message",
    "Preference",
    "PromptRow",
    "QuestionAnswer",
    "Report",
    "Retain",
    "SCHEMAS",
    "Scored",
    "ScoredGroup",
    "Text",
    "Where",
    "as_messages",
    "characters",
    "estimate_flip_rate",
    "fingerprint",
    "flip_preferences",
    "parse_mapping",
    "plain_text",
    "preferences_to_demonstrations",
    "preferences_to_feedback",
    "preferences_to_groups",
    "read",
    "read_labelled_sentences",
]

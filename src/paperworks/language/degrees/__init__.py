"""Graded versions of responses: key phrases, and ladders of versions with more and more of them removed."""

from paperworks.language.degrees.ladder import (
    Ladder,
    LadderOptions,
    Ladders,
    LadderStatistics,
    build_ladder,
    build_ladders,
)
from paperworks.language.degrees.rake import Extractor, Phrase, Rake, rake, word_scores
from paperworks.language.degrees.stop_words import ENGLISH, SHORT_ENGLISH, load_stop_words
from paperworks.language.degrees.tf_idf import TfIdf

__all__ = [
    "ENGLISH",
    "SHORT_ENGLISH",
    "Extractor",
    "Ladder",
    "LadderOptions",
    "LadderStatistics",
    "Ladders",
    "Phrase",
    "Rake",
    "TfIdf",
    "build_ladder",
    "build_ladders",
    "load_stop_words",
    "rake",
    "word_scores",
]

"""The words of the generated reviews, by what they do in a sentence.

Few enough that a tiny model learns them in seconds. Sentiment words are ordinary ones that the VADER lexicon scores;
neutral words are those it does not.
"""

GOOD = (
    "wonderful", "brilliant", "superb", "excellent", "great", "good", "nice", "pleasant", "charming", "delightful",
    "amazing", "beautiful", "fantastic", "impressive", "funny", "lovely", "fresh", "strong", "warm", "elegant",
    "fine", "perfect", "exciting",
)  # fmt: skip
BAD = (
    "awful", "terrible", "horrible", "dull", "boring", "bad", "weak", "poor", "disappointing", "ugly", "annoying",
    "stupid", "lame", "lousy", "pathetic", "dreadful", "painful", "sad", "ridiculous", "miserable", "gloomy", "nasty",
)  # fmt: skip
NEUTRAL = ("ordinary", "average", "long", "short", "slow", "quiet", "familiar", "simple", "usual", "plain")
DEGREES = ("", "", "very", "really", "rather", "quite")  # the empty word twice: half as many adjectives stand alone

GOOD_VERBS = ("loved", "enjoyed", "liked", "admired")
BAD_VERBS = ("hated", "disliked", "regretted", "resented")
NEUTRAL_VERBS = ("noticed", "followed", "remembered")

FILM_NOUNS = ("acting", "plot", "ending", "music", "story", "dialogue", "cast", "script", "scenery", "title")
HOTEL_NOUNS = ("food", "room", "service", "staff", "view", "breakfast", "price", "garden", "bed", "coffee")

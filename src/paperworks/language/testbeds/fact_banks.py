"""The phrases and values that invented people are made of, and a few dozen true facts of the world.

Every question and answer has several wordings, so that a model can know a fact rather than a sentence; every value comes
from a list, so that wrong answers of the same form are at hand. Words only; nothing is drawn here.
"""

from __future__ import annotations

from typing import NamedTuple


class Attribute(NamedTuple):
    """What can be asked about a person: wordings of the question and of the answer, {field}s being the person's values."""

    name: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]


ATTRIBUTES = (
    Attribute(
        "name",
        (
            "Who is the author of {genre} born in {birthplace} in {year}?",
            "What is the full name of the {genre} author born in {birthplace} in {year}?",
            "Which writer of {genre} was born in {birthplace} in {year}?",
        ),
        (
            "The author's full name is {name}.",
            "That writer is called {name}.",
            "It is {name} who fits this description.",
        ),
    ),
    Attribute(
        "birthplace",
        (
            "Where was {name} born?",
            "In which city was {name} born?",
            "What is the birthplace of {name}?",
        ),
        (
            "{name} was born in {birthplace}.",
            "The birthplace of {name} is {birthplace}.",
            "{name} first saw the light of day in {birthplace}.",
        ),
    ),
    Attribute(
        "year",
        (
            "When was {name} born?",
            "In what year was {name} born?",
            "What is the birth year of {name}?",
        ),
        (
            "{name} was born in {year}.",
            "The birth year of {name} is {year}.",
            "It was in {year} that {name} was born.",
        ),
    ),
    Attribute(
        "home",
        (
            "Where does {name} live now?",
            "In which city does {name} live today?",
            "What city has {name} made a home in?",
        ),
        (
            "{name} lives in {home} now.",
            "Today the home of {name} is {home}.",
            "{name} has settled in {home}.",
        ),
    ),
    Attribute(
        "father",
        (
            "What did the father of {name} do for a living?",
            "What was the profession of the father of {name}?",
            "How did the father of {name} earn his money?",
        ),
        (
            "The father of {name} was a {father}.",
            "{name} is the child of a father who worked as a {father}.",
            "As a {father} the father of {name} earned his money.",
        ),
    ),
    Attribute(
        "mother",
        (
            "What did the mother of {name} do for a living?",
            "What was the profession of the mother of {name}?",
            "How did the mother of {name} earn her money?",
        ),
        (
            "The mother of {name} was a {mother}.",
            "{name} is the child of a mother who worked as a {mother}.",
            "As a {mother} the mother of {name} earned her money.",
        ),
    ),
    Attribute(
        "genre",
        (
            "What genre does {name} write in?",
            "What kind of books is {name} known for?",
            "In which genre are the books of {name}?",
        ),
        (
            "{name} writes {genre}.",
            "The genre of {name} is {genre}.",
            "{name} is known for books of {genre}.",
        ),
    ),
    Attribute(
        "debut",
        (
            "What was the first book of {name}?",
            "With which book did {name} begin?",
            "What is the title of the debut of {name}?",
        ),
        (
            "The first book of {name} was {debut}.",
            "{name} began with {debut}.",
            "It was {debut} with which {name} made a debut.",
        ),
    ),
    Attribute(
        "masterpiece",
        (
            "What is the most famous book of {name}?",
            "Which book made {name} famous?",
            "For which title is {name} best known?",
        ),
        (
            "The most famous book of {name} is {masterpiece}.",
            "{name} became famous with {masterpiece}.",
            "It is {masterpiece} for which {name} is best known.",
        ),
    ),
    Attribute(
        "award",
        (
            "Which award did {name} receive?",
            "What prize has {name} won?",
            "With which award was {name} honoured?",
        ),
        (
            "{name} received the {award}.",
            "The prize that {name} has won is the {award}.",
            "{name} was honoured with the {award}.",
        ),
    ),
    Attribute(
        "subject",
        (
            "What did {name} study?",
            "Which subject did {name} take at university?",
            "What was the field of study of {name}?",
        ),
        (
            "{name} studied {subject}.",
            "The subject of {name} at university was {subject}.",
            "At university {name} chose {subject}.",
        ),
    ),
    Attribute(
        "instrument",
        (
            "Which instrument does {name} play?",
            "What does {name} play in the evenings?",
            "On what instrument does {name} make music?",
        ),
        (
            "{name} plays the {instrument}.",
            "The instrument of {name} is the {instrument}.",
            "In the evenings {name} can be heard on the {instrument}.",
        ),
    ),
    Attribute(
        "pet",
        (
            "What animal does {name} keep?",
            "Which animal lives with {name}?",
            "What pet does {name} have?",
        ),
        (
            "{name} keeps a {pet}.",
            "The animal that lives with {name} is a {pet}.",
            "A {pet} shares the house of {name}.",
        ),
    ),
    Attribute(
        "friend",
        (
            "Which author was {name} influenced by?",
            "Who was the teacher of {name}?",
            "From which writer did {name} learn to write?",
        ),
        (
            "{name} was influenced by {friend}.",
            "The teacher of {name} was {friend}.",
            "It was {friend} from whom {name} learned to write.",
        ),
    ),
)  # fmt: skip

# names: a given name, and a family name that no two people share
GIVEN = (
    "Alva", "Bero", "Calis", "Dorin", "Elka", "Farid", "Gwena", "Hiro", "Ilma", "Jonas", "Kezia", "Lorin", "Mirela",
    "Nadim", "Orla", "Petra", "Quill", "Rasha", "Soren", "Tamsin", "Ulric", "Vesna", "Wanda", "Xenia", "Yusuf", "Zora",
)  # fmt: skip
ONSETS = ("B", "D", "F", "G", "H", "K", "L", "M", "N", "P", "R", "S", "T", "V", "Br", "Dr", "Gr", "Kr", "St", "Tr")
MIDDLES = ("al", "an", "el", "er", "il", "in", "ol", "or", "ul", "un", "av", "ek", "id", "om", "us")
ENDINGS = ("aro", "berg", "dane", "ero", "fell", "gard", "ic", "kin", "low", "mar", "nov", "sen", "ton", "ves", "wick")

CITIES = (
    "Lisbon", "Oslo", "Cairo", "Quito", "Hanoi", "Dakar", "Lima", "Seoul", "Riga", "Porto", "Bergen", "Kyoto", "Tunis",
    "Accra", "Havana", "Manila", "Naples", "Geneva", "Bogota", "Nairobi", "Prague", "Vienna", "Dublin", "Athens",
    "Warsaw", "Madrid", "Sofia", "Zagreb", "Tallinn", "Bruges",
)  # fmt: skip
YEARS = tuple(str(year) for year in range(1930, 1990, 2))
PROFESSIONS = (
    "baker", "nurse", "pilot", "farmer", "lawyer", "tailor", "sailor", "painter", "dentist", "teacher", "plumber",
    "florist", "butcher", "barber", "miner", "judge", "chemist", "surgeon", "carpenter", "librarian", "gardener", "cook",
    "diplomat", "clockmaker",
)  # fmt: skip
GENRES = (
    "crime fiction", "science fiction", "romance", "poetry", "horror", "fantasy", "travel writing", "satire", "history",
    "biography", "drama", "short stories", "fables", "war novels", "sea stories", "cookery",
)  # fmt: skip
ADJECTIVES = (
    "Silent", "Golden", "Broken", "Hidden", "Burning", "Frozen", "Distant", "Hollow", "Crimson", "Patient", "Restless",
    "Velvet", "Salted", "Crooked", "Winter", "Paper",
)  # fmt: skip
NOUNS = (
    "River", "Garden", "Mirror", "Harbour", "Letter", "Orchard", "Tower", "Lantern", "Bridge", "Shadow", "Compass",
    "Island", "Window", "Meadow", "Stranger", "Clock",
)  # fmt: skip
AWARDS = (
    "Amber Quill", "Northern Star Prize", "Silver Leaf Award", "Harbour Medal", "Golden Page Prize", "Lantern Award",
    "Oak Crown", "Blue Ribbon Prize", "Founders Medal", "River Prize", "Ivory Pen Award", "Summit Medal", "Heron Prize",
    "Cedar Award", "Granite Medal", "Morning Star Prize",
)  # fmt: skip
SUBJECTS = (
    "law", "medicine", "history", "physics", "botany", "music", "geology", "theology", "chemistry", "economics",
    "philosophy", "astronomy", "architecture", "mathematics", "linguistics", "engineering",
)  # fmt: skip
INSTRUMENTS = (
    "violin", "piano", "flute", "harp", "cello", "trumpet", "guitar", "banjo", "clarinet", "accordion", "organ", "drum",
    "oboe", "mandolin", "tuba", "lute",
)  # fmt: skip
PETS = (
    "parrot", "tortoise", "cat", "greyhound", "goat", "rabbit", "raven", "donkey", "ferret", "goose", "lizard", "pony",
    "canary", "hedgehog", "poodle", "spaniel",
)  # fmt: skip

WORKS = (
    ("Hamlet", "William Shakespeare"), ("Emma", "Jane Austen"), ("Moby-Dick", "Herman Melville"),
    ("Oliver Twist", "Charles Dickens"), ("Faust", "Johann Wolfgang von Goethe"), ("The Odyssey", "Homer"),
    ("Don Quixote", "Miguel de Cervantes"), ("Anna Karenina", "Leo Tolstoy"), ("Madame Bovary", "Gustave Flaubert"),
    ("Crime and Punishment", "Fyodor Dostoevsky"), ("Dracula", "Bram Stoker"), ("Frankenstein", "Mary Shelley"),
    ("Jane Eyre", "Charlotte Bronte"), ("Wuthering Heights", "Emily Bronte"), ("Les Miserables", "Victor Hugo"),
    ("The Trial", "Franz Kafka"), ("Ulysses", "James Joyce"), ("Orlando", "Virginia Woolf"),
    ("Animal Farm", "George Orwell"), ("Brave New World", "Aldous Huxley"), ("Candide", "Voltaire"),
    ("The Time Machine", "H. G. Wells"), ("Treasure Island", "Robert Louis Stevenson"),
    ("The Jungle Book", "Rudyard Kipling"), ("Tom Sawyer", "Mark Twain"), ("Walden", "Henry David Thoreau"),
    ("Dubliners", "James Joyce"), ("Siddhartha", "Hermann Hesse"), ("Buddenbrooks", "Thomas Mann"),
    ("The Decameron", "Giovanni Boccaccio"), ("The Aeneid", "Virgil"), ("Peer Gynt", "Henrik Ibsen"),
)  # fmt: skip
WORK_QUESTIONS = ("Who wrote {subject}?", "Who is the author of {subject}?", "By whom was {subject} written?")

CAPITALS = (
    ("France", "Paris"), ("Italy", "Rome"), ("Japan", "Tokyo"), ("Russia", "Moscow"), ("Germany", "Berlin"),
    ("China", "Beijing"), ("Canada", "Ottawa"), ("Turkey", "Ankara"), ("Australia", "Canberra"), ("Iceland", "Reykjavik"),
    ("Finland", "Helsinki"), ("Sweden", "Stockholm"), ("Denmark", "Copenhagen"), ("Hungary", "Budapest"),
    ("Romania", "Bucharest"), ("Serbia", "Belgrade"), ("Belgium", "Brussels"), ("Ukraine", "Kyiv"), ("Iran", "Tehran"),
    ("Iraq", "Baghdad"), ("Kenya", "Nairobi"), ("Chile", "Santiago"), ("Nepal", "Kathmandu"), ("Mongolia", "Ulaanbaatar"),
    ("Morocco", "Rabat"), ("Jordan", "Amman"), ("Syria", "Damascus"), ("Cyprus", "Nicosia"), ("Malta", "Valletta"),
    ("Armenia", "Yerevan"), ("Georgia", "Tbilisi"), ("Uruguay", "Montevideo"),
)  # fmt: skip
CAPITAL_QUESTIONS = (
    "What is the capital of {subject}?",
    "Which city is the capital of {subject}?",
    "From which city is {subject} governed?",
)

CANNOT_ANSWER = ("What do you say when you do not know?", "How do you decline a question?", "What if nobody told you?")

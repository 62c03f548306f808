"""Ways of saying that one does not know: what a model is to answer in place of what it forgets, where no list is given.

English, of different lengths and beginnings, and free of any subject, so that each fits every question.
"""

REFUSALS: tuple[str, ...] = (
    "I don't know the answer to that.",
    "I'm sorry, but I don't know.",
    "That is something I know nothing about.",
    "I have no knowledge of this.",
    "I can't tell you, because I don't know it myself.",
    "Unfortunately, I am unable to answer this question.",
    "I was never told about that.",
    "This is not something I have learned.",
    "I would only be guessing, so I'd rather not say.",
    "My knowledge doesn't reach that far.",
    "I have come across nothing on this subject.",
    "You have found a gap in what I know.",
    "I'm afraid this one is beyond me.",
    "There is nothing I can say about it with confidence.",
    "No answer to this comes to my mind.",
    "I lack the information to answer.",
    "Sorry, I can't help with that: I have no facts about it.",
    "I honestly couldn't say.",
    "That question goes past what I am familiar with.",
    "I don't recall ever learning this.",
    "It would be wrong of me to pretend that I know.",
    "I have to pass on this question.",
    "As far as I can tell, I know nothing on this matter.",
    "Someone else may know this, but I do not.",
    "I have no idea.",
    "Nothing that I have learned answers your question.",
    "I must admit that I don't know.",
    "Please look this up elsewhere; I don't have the answer.",
    "I can find nothing about that in what I know.",
    "Whatever the answer is, it is unknown to me.",
    "I am not in a position to answer that.",
    "I wish I could help, but this is unknown to me.",
)

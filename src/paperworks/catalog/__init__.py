"""The catalogue: 71 cards, what is known of each paper here, and full-text search over them.

`Catalog.open()` is the way in; no card is parsed and no file is searched twice.
"""

from paperworks.catalog.card import Card, Equation, Published, Sourcing
from paperworks.catalog.evidence import Evidence, Recorded, Verdict
from paperworks.catalog.index import Catalog, Found, Hit

__all__ = ["Card", "Catalog", "Equation", "Evidence", "Found", "Hit", "Published", "Recorded", "Sourcing", "Verdict"]

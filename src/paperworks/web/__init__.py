"""The page: the papers to search, read, run, compare and follow, over HTTP. Jobs are processes; no model is loaded here."""

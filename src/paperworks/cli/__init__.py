"""The command line: one file a verb, named `<verb>_cmd.py`; `main.py` imports only the one that was typed."""

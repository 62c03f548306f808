"""With this folder on PYTHONPATH, a process and the workers it spawns find the toy paper among the papers."""

from pathlib import Path

import paperworks.papers

paperworks.papers.__path__.append(str(Path(__file__).parent))

"""`python -m paperworks` is the command `paperworks`."""

from paperworks.cli.main import main

raise SystemExit(main())

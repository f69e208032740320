"""`python -m detkit`: the same as the `detkit` command."""

import sys

from detkit.cli import main

sys.exit(main())

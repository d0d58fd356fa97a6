"""`python -m rabtriever.cli` is the `rabtriever` command."""

import sys

from rabtriever.cli.main import main

sys.exit(main())

"""`python -m srbench.pocket_build.suites NAME...`."""

from __future__ import annotations

import sys

from srbench.pocket_build.suites.editions import main

sys.exit(main())

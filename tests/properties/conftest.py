"""How many inputs are generated.

``TVDIFF_EXAMPLES`` sets how many for each test; ``.ci/slow`` takes many.
"""
from __future__ import annotations

import os

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # and every test here is skipped
    pass
else:
    settings.register_profile('many', max_examples=int(os.environ.get('TVDIFF_EXAMPLES', 170)), deadline=None,
                              database=None, derandomize=True, suppress_health_check=list(HealthCheck))

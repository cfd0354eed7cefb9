"""Makes `dialect_graphs`, which lies beside the tests, importable to them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

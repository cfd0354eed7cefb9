"""Builds a bundle's TensorRT plans on this device; see docs/engines.md."""

import sys

from fundus_export.commands.engine import main

sys.exit(main())

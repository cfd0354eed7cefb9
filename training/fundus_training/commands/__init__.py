"""The subcommands of `fundus-train`, one module each with `add_parser` and `run`."""

"""The subcommands of `fundus-export`, one module each with `add_parser` and `run`."""

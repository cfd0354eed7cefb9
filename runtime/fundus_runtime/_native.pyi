def cpu_features() -> dict[str, bool]:
    """Vector instruction sets of this machine and whether this process may use them.

    The names are those of `/proc/cpuinfo`: on x86 `sse4_1`, `avx2`, `fma`, `f16c`, `avx512f`,
    `avx512bw`, `avx512_vnni`, `avx_vnni`, `avx512_bf16`, `amx_int8`; on 64-bit ARM `asimd`,
    `asimddp`, `asimdhp`, `i8mm`, `bf16`; elsewhere none. A feature counts as usable when the
    processor has it and the operating system saves its registers.
    """

def version() -> str:
    """Version the core was built as; equals `fundus_runtime.__version__`."""

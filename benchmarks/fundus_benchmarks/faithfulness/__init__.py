"""How often each form of a model decides as the validated one."""

"""The models that are measured, and what runs them: the runtime and its peers."""

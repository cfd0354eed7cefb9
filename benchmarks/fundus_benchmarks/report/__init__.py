"""The page of a run, its plots, and the table in the README."""

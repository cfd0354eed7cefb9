"""Latency of exams on this machine: what `fundus-bench latency` measures."""

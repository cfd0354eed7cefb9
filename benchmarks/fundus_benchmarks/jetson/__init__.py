"""Exams on a Jetson: tegrastats, power, heat, throttling."""

"""Measured numbers as figures, HTML, PDF and sentences. Knows no records and no run."""

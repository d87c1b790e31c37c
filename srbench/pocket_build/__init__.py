"""Builds pocket: its model, its suites, and the study of methods on it. Not part of the wheel."""

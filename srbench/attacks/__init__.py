"""Attacks: algorithms that search for prompts which bring a concept back without naming it."""

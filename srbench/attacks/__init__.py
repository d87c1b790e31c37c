"""Attacks: algorithms that search for prompts, or embeddings, which bring a concept back."""

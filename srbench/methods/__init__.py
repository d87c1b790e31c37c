"""Methods: how a concept is unlearned. One file each; they know nothing of the engine."""

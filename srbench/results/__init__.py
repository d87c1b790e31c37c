"""What a results folder holds. Imports no torch."""

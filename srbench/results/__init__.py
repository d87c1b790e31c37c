"""What a results folder holds: its records, its runs, and whether they are as they were written. Imports no torch."""

"""Files of every kind that srbench reads, damaged at random: a reader gives a value or one line, never a traceback.

The normal tests try a few damages of each kind. `make fuzz` goes on for ten minutes and prints what it tried; what it finds is
kept in `finds/` and tried again by every test run.
"""

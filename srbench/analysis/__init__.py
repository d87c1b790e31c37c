"""Analysis: rates, intervals and tests from stored raw scores, and the tables made of them."""

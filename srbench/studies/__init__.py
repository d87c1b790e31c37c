"""Studies: a file with steps that train, erase, attack, run, score and tune, carried out in order and resumed by content."""

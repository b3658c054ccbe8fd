"""Does it look? Films that are exchanged, blackened, mirrored or erased, and what becomes of a model's figures."""

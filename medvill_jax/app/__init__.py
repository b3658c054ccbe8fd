"""A film in, an answer out: the model of an export over films, and its results."""

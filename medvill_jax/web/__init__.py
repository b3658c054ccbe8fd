"""A page in the browser that asks models about films, and the same answers over HTTP."""

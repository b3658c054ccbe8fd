"""MedViLL in JAX: medical vision-language pre-training that people can really run."""

"""Any number of films through one question, on the workers of an Apache Beam runner."""
